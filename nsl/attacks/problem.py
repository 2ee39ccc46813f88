"""One batch of an attack: what is perturbed, how far, and what is maximized."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from nsl import configs
from nsl.attacks.examples import Batch
from nsl.attacks.model_adapter import ModelAdapter
from nsl.attacks.objectives import Objective, cross_entropy
from nsl.lib.features import described, is_perturbable
from nsl.lib.norms import Norm
from nsl.lib.threat_model import ThreatModel

Loss = Callable[[Any, Any], Any]

# What rounding may add to a multiple of the grid.
_GRID_SLACK = 1e-3
# Up to which share the radius is reduced by what rounding adds.
_ROUNDING = 1e-5


class NoGradientError(ValueError):
    """A model has no gradient with respect to any feature."""


class Problem:
    """Maximizes an objective over the perturbations of a batch that are allowed.

    Perturbations are rows: one row holds the coordinates of all features of an example
    that can be perturbed, divided by the radius of each coordinate where there is one.
    Allowed are those inside the ball and the box at once.

    Attributes:
      batch: The examples.
      norm: The geometry of the norm, see `nsl.lib.norms.Norm`.
      radius: The radius of each example's ball, a column.
      low: Lower bounds of a perturbation, at most 0; they broadcast to the rows.
      high: Upper bounds of a perturbation, at least 0.
      labels: The true classes, of shape [batch]; with `loss_fn`, whatever that takes.
      targets: The classes to reach, of shape [batch], or None.
      dtype: The dtype of the rows, float32 or float64.
      none: The perturbation of zeros.

    Args:
      model: The model.
      batch: The examples.
      norm: The norm of the ball.
      seed: Two integers that determine all that is random.
      objective: What is maximized, of logits, labels and targets.
      loss_fn: Maximized instead if given: a function of labels and outputs.
      criterion: With `loss_fn`, tells of labels and outputs which examples are right;
        without it, none ever counts as fooled.
      any_class: Whether any wrong class is a success, whatever the targets are.
      samples: How many draws of a random model a gradient is averaged over.
    """

    def __init__(
        self,
        model: ModelAdapter,
        batch: Batch,
        *,
        norm: configs.NormType | str | Norm,
        seed: Any = (0, 0),
        objective: Objective = cross_entropy,
        loss_fn: Loss | None = None,
        criterion: Loss | None = None,
        any_class: bool = False,
        samples: int = 1,
    ) -> None:
        self._model = model
        self.batch = batch
        self._seed = tf.convert_to_tensor(seed, tf.int32)
        self._objective = objective
        self._loss_fn, self._criterion = loss_fn, criterion
        self._any_class = any_class
        self._samples = samples
        self.labels, self.targets = batch.labels, batch.targets
        features = tf.nest.map_structure(tf.convert_to_tensor, batch.features)
        leaves, limits = tf.nest.flatten(features), batch.limits
        self.threat = ThreatModel(
            features,
            norm,
            low=_reaching(tf.minimum, limits.low, leaves),
            high=_reaching(tf.maximum, limits.high, leaves),
            mask=limits.mask,
        )
        self.norm = self.threat.norm
        self.dtype = self.threat.centers.dtype
        self.none = tf.zeros_like(self.threat.centers)
        self._scale = self.threat.spread(limits.scale, 1.0)
        self._grid = self.threat.spread(limits.grid, 0.0)
        self.radius = tf.cast(limits.radius, self.dtype)
        # Of a grid, the last step would be lost.
        self.radius -= self._rounding() if self._grid is None else 0.0
        low, high = self.threat.box()
        self.low, self.high = self._per_scale(low), self._per_scale(high)

    def seed(self, i: tf.Tensor | None = None) -> tf.Tensor:
        """Returns two integers that determine what is random, others for each i."""
        if i is None:
            return self._seed
        return tf.random.experimental.stateless_fold_in(self._seed, i)

    def project(self, perturbation: tf.Tensor, factor: Any = 1.0) -> tf.Tensor:
        """Returns the nearest perturbation in the box and `factor` times the radius."""
        return self.norm.project_with_bounds(
            perturbation, factor * self.radius, self.low, self.high
        )

    def clip_and_project(self, perturbation: tf.Tensor, factor: Any = 1.0) -> tf.Tensor:
        """Returns an allowed perturbation: clipped to the box, then projected.

        Under L1 and L2 it is not the nearest one, for on the way into the ball
        coordinates come off the bounds of the box.
        """
        clipped = tf.clip_by_value(perturbation, self.low, self.high)
        return self.norm.project(clipped, factor * self.radius)

    def random_start(self, seed: tf.Tensor, factor: Any = 1.0) -> tf.Tensor:
        """Draws perturbations uniformly from `factor` balls and projects them; rows."""
        shape, radius = tf.shape(self.none), factor * self.radius
        drawn = self.norm.random_start(shape, radius, seed, self.dtype)
        return self.project(self.masked(drawn), factor)

    def masked(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns rows multiplied by the mask."""
        return tf.ensure_shape(self.threat.masked(rows), self.none.shape)

    def features(self, perturbation: tf.Tensor) -> Any:
        """Returns the perturbed features, in the structure of the clean ones."""
        moved = perturbation if self._scale is None else perturbation * self._scale
        point = self.threat.place(moved)
        if self._grid is not None:
            point = self._on_grid(point)
        return self.threat.restore(point)

    def from_point(self, point: tf.Tensor) -> tf.Tensor:
        """Returns the perturbation that leads to a point, whatever is allowed; rows."""
        return self._per_scale(point - self.threat.centers)

    def logits(self, perturbation: tf.Tensor) -> tf.Tensor:
        """Returns the logits of perturbed features, of shape [batch, classes]."""
        return self._model.logits(self.features(perturbation), self.batch.memory)

    def evaluate(self, perturbation: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs the model forward once.

        Returns:
          The objective, of shape [batch] and the dtype of the rows, and whether the
          attack has succeeded, of shape [batch].
        """
        return self._values(self.features(perturbation))

    def gradient(
        self, perturbation: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Runs the model forward and backward, once for each sample.

        Returns:
          As `evaluate`, and the gradient of the objective, masked; rows. With several
          samples, values and gradients are means, and success is that of the last.

        Raises:
          ValueError: If there is no gradient with respect to any feature.
        """
        x = self.features(perturbation)
        values, fooled, gradient = self._gradient(x)
        if self._samples > 1:

            def add(i: Any, value: Any, _: Any, total: Any) -> tuple[Any, ...]:
                drawn, fooled, gradient = self._gradient(x)
                return i + 1, value + drawn, fooled, total + gradient

            _, values, fooled, gradient = tf.while_loop(
                lambda i, *_: i < self._samples,
                add,
                (tf.constant(1), values, fooled, gradient),
                parallel_iterations=1,
            )
            values, gradient = values / self._samples, gradient / self._samples
        return values, fooled, gradient

    def raw_gradient(self, perturbation: tf.Tensor) -> tf.Tensor:
        """Returns the gradient as the model gives it, whether finite or not; rows."""
        return self._gradient(self.features(perturbation), finite=False)[2]

    def movable(self, gradient: tf.Tensor, perturbation: tf.Tensor) -> tf.Tensor:
        """Returns a gradient with zeros where it would leave the box; rows."""
        blocked = ((gradient > 0) & (perturbation >= self.high)) | (
            (gradient < 0) & (perturbation <= self.low)
        )
        return tf.where(blocked, tf.zeros_like(gradient), gradient)

    def length(self, perturbation: tf.Tensor) -> tf.Tensor:
        """Returns the norm of each perturbation, as it is on the grid; a column."""
        if self._grid is None:
            return self.norm.length(perturbation)
        moved = self.threat.rows(self.features(perturbation)) - self.threat.centers
        return self.norm.length(self._per_scale(moved))

    def _gradient(
        self, x: Any, finite: bool = True
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            leaves = tf.nest.flatten(x)
            sources = {i: f for i, f in enumerate(leaves) if is_perturbable(f)}
            tape.watch(sources)
            values, fooled = self._values(x)
        found = tape.gradient(values, sources)
        gradients = [found.get(i) for i in range(len(leaves))]
        if all(gradient is None for gradient in gradients):
            raise NoGradientError(
                "The model's outputs have no gradient with respect to any of the "
                f"features: {described(x)}. Give the model with all of its operations "
                "differentiable, or use an attack that needs none: nsl.attacks.Square "
                "for scores, nsl.attacks.HopSkipJump for labels."
            )
        gradient = self.threat.masked(self.threat.rows(gradients, finite))
        if self._scale is not None:
            gradient *= self._scale
        return values, fooled, gradient

    def _values(self, x: Any) -> tuple[tf.Tensor, tf.Tensor]:
        if self._loss_fn is not None:
            outputs = self._model(x, self.batch.memory)
            values = per_example(self._loss_fn(self.labels, outputs))
            if self._criterion is None:
                fooled = tf.zeros_like(self.none[:, 0], tf.bool)
            else:
                fooled = ~tf.cast(self._criterion(self.labels, outputs), tf.bool)
            return tf.cast(values, self.dtype), fooled
        logits = self._model.logits(x, self.batch.memory)
        values = self._objective(logits, self.labels, self.targets)
        predicted = tf.argmax(logits, axis=1, output_type=tf.int32)
        if self.targets is None or self._any_class:
            fooled = predicted != self.labels
        else:
            fooled = predicted == self.targets
        return tf.cast(per_example(values), self.dtype), fooled

    def _rounding(self) -> tf.Tensor:
        """Returns what rounding may add to the radius, if that is next to nothing."""
        size = self.norm.length(self._per_scale(tf.abs(self.threat.centers)))
        added = np.finfo(self.dtype.as_numpy_dtype).eps * (size + self.radius)
        return tf.where(added < _ROUNDING * self.radius, added, 0.0)

    def _per_scale(self, rows: tf.Tensor) -> tf.Tensor:
        return rows if self._scale is None else rows / self._scale

    def _on_grid(self, point: tf.Tensor) -> tf.Tensor:
        """Returns the values of the grid nearest to a point, inside box and ball.

        Coordinates are rounded towards the clean example, but for those whose share of
        a step is above a threshold: the smallest one from 0.5 on that the ball allows.
        A coordinate that does not move need not be on the grid.
        """
        grid, center = self._grid, self.threat.centers
        assert grid is not None
        rounding = 4 * np.finfo(self.dtype.as_numpy_dtype).eps
        outward = tf.sign(point - center)
        steps = outward * tf.math.divide_no_nan(point, grid)
        inner = tf.floor(steps + rounding * (1 + tf.abs(steps)))

        def moved(steps: tf.Tensor) -> tf.Tensor:
            return tf.maximum(self._per_scale(steps * grid - outward * center), 0.0)

        room = tf.minimum(tf.where(outward > 0, self.high, -self.low), self.radius)
        allowed = moved(inner + 1) <= room * (1 + _GRID_SLACK)
        largest = self.radius * (1 + 4 * rounding)
        short = self.norm.length(moved(inner)) > largest
        inner = tf.where(short, tf.floor(steps), inner)
        threshold = self.radius * 0 + 1.0
        for size in (0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.015625):
            up = allowed & (steps - inner > threshold - size)
            length = self.norm.length(tf.where(up, moved(inner + 1), moved(inner)))
            threshold = tf.where(length <= largest, threshold - size, threshold)
        found = inner + tf.cast(allowed & (steps - inner > threshold), self.dtype)
        found = tf.where(moved(found) > 0, outward * found * grid + 0.0, center)
        return tf.where(grid > 0, found, point)


def per_example(loss: Any) -> tf.Tensor:
    """Returns a loss as one value per example, of shape [batch].

    Means are taken over all axes but the first. Raises ValueError for a scalar.
    """
    loss = tf.convert_to_tensor(loss)
    if loss.shape.rank == 0:
        raise ValueError(
            "The loss of an attack must be one value per example, but received a "
            "scalar. Give a loss without reduction, such as "
            "keras.losses.MeanSquaredError(reduction=None)."
        )
    if loss.shape.rank == 1:
        return loss
    return tf.reduce_mean(loss, axis=list(range(1, loss.shape.rank)))


def _reaching(
    extreme: Callable[[Any, Any], tf.Tensor], bounds: list[Any], leaves: list[Any]
) -> list[Any]:
    """Returns bounds that the clean features are within."""
    return [
        None if bound is None else extreme(bound, tf.cast(leaf, bound.dtype))
        for bound, leaf in zip(bounds, leaves, strict=True)
    ]
