"""The threat model: which perturbations of an example an attacker may use."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from nsl import configs
from nsl.lib import positions, rows
from nsl.lib.features import is_perturbable
from nsl.lib.norms import Norm

_Leaves = Sequence[Any]


class ThreatModel:
    """A norm ball around the features, bounds on them, and a mask.

    Points and perturbations are rows. A row holds the coordinates of all perturbable
    features of one example, in the order of `tf.nest.flatten`; with `per_position`,
    those of one position of one feature.

    Attributes:
      norm: The norm of the ball.
      centers: The features, of shape [rows, coordinates], float64 if one of them is,
        otherwise float32.
      radius: The radius of the ball, a scalar or a column; None if unbounded.

    Args:
      features: A structure of tensors of shape [batch, ...]. Dense floating tensors are
        perturbable.
      norm_type: A `NormType` or its value, or a `Norm`.
      radius: The radius of the ball, a scalar or a tensor of shape [batch, 1], or None.
      scale: For each leaf the divisor of its coordinates before the norm is computed,
        or None for a leaf that the ball does not restrict.
      low: The lower bound of each leaf, broadcastable to it, or None.
      high: The upper bound of each leaf, broadcastable to it, or None.
      mask: Factors of each leaf's gradient and random start, or None.
      per_position: Whether each position of a feature of shape [batch, ..., d] has its
        own norm and ball.

    Raises:
      ValueError: If no feature is perturbable.
    """

    def __init__(
        self,
        features: Any,
        norm_type: configs.NormType | str | Norm,
        *,
        radius: Any = None,
        scale: _Leaves | None = None,
        low: _Leaves | None = None,
        high: _Leaves | None = None,
        mask: _Leaves | None = None,
        per_position: bool = False,
    ) -> None:
        self._layout: Any = positions if per_position else rows
        self.norm = Norm.of(norm_type)
        self._features = features
        leaves = tf.nest.flatten(features)
        self._positions = [i for i, f in enumerate(leaves) if is_perturbable(f)]
        self._leaves = [tf.convert_to_tensor(leaves[i]) for i in self._positions]
        self.centers = tf.stop_gradient(self._layout.to_rows(self._leaves))
        self.radius = None if radius is None else tf.cast(radius, self.centers.dtype)

        self.scale = self.spread(scale, float("inf"))
        self._low = self.spread(low, float("-inf"))
        self._high = self.spread(high, float("inf"))
        self._mask = self.spread(mask, 1.0)

    def spread(self, values: _Leaves | None, missing: float) -> tf.Tensor | None:
        """Lays out values given per leaf like the rows.

        Args:
          values: For each leaf a value that broadcasts to it, or None.
          missing: The value to use for None.

        Returns:
          A tensor that broadcasts to `centers`; None if there are no values.
        """
        if values is None:
            return None
        values = [values[i] for i in self._positions]
        spread: tf.Tensor | None = self._layout.spread_rows(
            values, self._leaves, missing
        )
        return spread

    def rows(self, structure: Any, finite: bool = True) -> tf.Tensor:
        """Lays out a structure like the features, such as the gradients, as rows.

        Args:
          structure: A structure like the features. None leaves count as zero.
          finite: Whether to replace non-finite values by zero.

        Returns:
          A tensor of the shape and dtype of `centers`.
        """
        flat = tf.nest.flatten(structure)
        parts = [
            tf.zeros_like(leaf) if flat[i] is None else tf.convert_to_tensor(flat[i])
            for i, leaf in zip(self._positions, self._leaves, strict=True)
        ]
        found = tf.cast(self._layout.to_rows(parts), self.centers.dtype)
        if not finite:
            return found
        return tf.where(tf.math.is_finite(found), found, tf.zeros_like(found))

    def restore(self, points: tf.Tensor, kept: Any = ()) -> Any:
        """Returns the features with their coordinates replaced by those of `points`.

        Args:
          points: Rows.
          kept: Positions of leaves that keep their own coordinates.

        Returns:
          A structure like the features, with gradients stopped.
        """
        leaves = tf.nest.flatten(self._features)
        moved = self._layout.from_rows(tf.stop_gradient(points), self._leaves)
        for i, value in zip(self._positions, moved, strict=True):
            if i not in kept:
                leaves[i] = value
        return tf.nest.pack_sequence_as(self._features, leaves)

    def steepest_step(self, gradient: tf.Tensor) -> tf.Tensor:
        """Returns the steepest-ascent direction of norm 1 for the masked gradient."""
        return self.norm.steepest_step(self.masked(gradient))

    def masked(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns rows multiplied by the mask."""
        return rows if self._mask is None else rows * self._mask

    def project(self, perturbation: tf.Tensor) -> tf.Tensor:
        """Projects a perturbation onto the ball, ignoring the bounds."""
        if self.radius is None:
            return perturbation
        if self.scale is None:
            return self.norm.project(perturbation, self.radius)
        in_ball = tf.math.is_finite(self.scale)
        scaled = tf.math.divide_no_nan(perturbation, self.scale)
        scaled = tf.where(in_ball, scaled, tf.zeros_like(scaled))
        projected = self.norm.project(scaled, self.radius) * self.scale
        return tf.where(in_ball, projected, perturbation)

    def box(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the bounds of a perturbation. They always allow 0.

        A feature outside its bounds may stay where it is or move towards them. Where
        the mask is 0, both bounds are 0.

        Returns:
          The lower and the upper bound, which broadcast to the rows.
        """
        infinity = tf.constant(float("inf"), self.centers.dtype)
        low = -infinity if self._low is None else self._low - self.centers
        high = infinity if self._high is None else self._high - self.centers
        low, high = tf.minimum(low, 0.0), tf.maximum(high, 0.0)
        if self._mask is not None:
            low = tf.where(self._mask > 0, low, tf.zeros_like(low))
            high = tf.where(self._mask > 0, high, tf.zeros_like(high))
        return low, high

    def enclosing_box(self) -> tuple[Any, Any]:
        """Returns the L-infinity ball, intersected with the bounds.

        Balls of the other norms lie within it.

        Returns:
          The lower and the upper bounds, structures like the features.
        """
        low, high = self.box()
        if self.radius is not None:
            reach = self.radius if self.scale is None else self.radius * self.scale
            low, high = tf.maximum(low, -reach), tf.minimum(high, reach)
        return self.restore(self.centers + low), self.restore(self.centers + high)

    def place(self, perturbation: tf.Tensor) -> tf.Tensor:
        """Returns the center plus a perturbation, clipped to the bounds."""
        point = self.centers + perturbation
        if self._low is not None:
            point = tf.maximum(point, self._low)
        if self._high is not None:
            point = tf.minimum(point, self._high)
        return tf.ensure_shape(point, self.centers.shape)
