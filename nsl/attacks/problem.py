"""The maximization problem that an attack solves on one batch."""

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

Loss = Callable[[Any, Any], Any]

# Tolerance for rounding errors in multiples of the grid spacing.
_GRID_SLACK = 1e-3
# The radius shrinks by the rounding error if that is at most this share of it.
_ROUNDING = 1e-5


class NoGradientError(ValueError):
    """A model has no gradient with respect to any feature."""


class Problem:
    """Maximizes an objective over the allowed perturbations of a batch.

    Perturbations are rows: a row holds the coordinates of all perturbable features of
    an example, divided by the radius of each coordinate if there are such radii.
    Allowed are the perturbations in the intersection of ball and box.

    Attributes:
      batch: The examples.
      threat: The ball, the bounds and the mask.
      norm: The norm, a `nsl.lib.Norm`.
      radius: The radius of each example's ball, a column.
      low: The lower bounds of a perturbation, at most 0; they broadcast to the rows.
      high: The upper bounds of a perturbation, at least 0; they broadcast to the rows.
      labels: The true classes, of shape [batch]; with `loss_fn`, any structure it
        takes.
      targets: The target classes, of shape [batch], or None.
      dtype: The dtype of the rows, float32 or float64.
      none: The zero perturbation; rows.

    Args:
      model: The model.
      batch: The examples.
      norm: The norm of the ball.
      seed: Two integers that determine all random numbers.
      objective: The function of logits, labels and targets to maximize.
      loss_fn: A function of labels and outputs to maximize instead.
      criterion: With `loss_fn`, a function of labels and outputs that returns whether
        each example is correct. Without it, no example counts as fooled.
      any_class: Whether any wrong class is a success, whatever the targets.
      samples: The number of forward passes through a randomized model per point.
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
        self.threat = batch.threat(norm)
        self.norm = self.threat.norm
        self.dtype = self.threat.centers.dtype
        self.none = tf.zeros_like(self.threat.centers)
        self._grid = self.threat.spread(batch.limits.grid, 0.0)
        assert self.threat.radius is not None
        self.radius = self.threat.radius
        # On a grid, a smaller radius would exclude the outermost values.
        if self._grid is None:
            self.radius -= self._rounding()
        low, high = self.threat.box()
        self.low, self.high = self._per_scale(low), self._per_scale(high)

    def seed(self, i: tf.Tensor | None = None) -> tf.Tensor:
        """Returns two integers that seed random numbers, different ones for each i."""
        if i is None:
            return self._seed
        return tf.random.experimental.stateless_fold_in(self._seed, i)  # type: ignore[attr-defined]

    def project(self, perturbation: tf.Tensor, factor: Any = 1.0) -> tf.Tensor:
        """Projects onto the box and the ball of `factor` radii at once; rows."""
        return self.norm.project_with_bounds(
            perturbation, factor * self.radius, self.low, self.high
        )

    def clip_and_project(self, perturbation: tf.Tensor, factor: Any = 1.0) -> tf.Tensor:
        """Clips to the box, then projects onto the ball of `factor` radii; rows.

        The result is allowed. Under L1 and L2 it is not the nearest allowed point,
        because the projection moves coordinates off the bounds of the box.
        """
        clipped = tf.clip_by_value(perturbation, self.low, self.high)
        return self.norm.project(clipped, factor * self.radius)

    def random_start(self, seed: tf.Tensor, factor: Any = 1.0) -> tf.Tensor:
        """Draws uniformly from the ball of `factor` radii, then projects; rows."""
        shape, radius = tf.shape(self.none), factor * self.radius
        drawn = self.norm.random_start(shape, radius, seed, self.dtype)
        return self.project(self.masked(drawn), factor)

    def masked(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns rows multiplied by the mask."""
        return tf.ensure_shape(self.threat.masked(rows), self.none.shape)

    def features(self, perturbation: tf.Tensor) -> Any:
        """Returns the perturbed features, in the structure of the clean ones."""
        scale = self.threat.scale
        moved = perturbation if scale is None else perturbation * scale
        point = self.threat.place(moved)
        if self._grid is not None:
            point = self._on_grid(point)
        return self.threat.restore(point)

    def from_point(self, point: tf.Tensor) -> tf.Tensor:
        """Returns the perturbation that leads to a point, allowed or not; rows."""
        return self._per_scale(point - self.threat.centers)

    def logits(self, perturbation: tf.Tensor) -> tf.Tensor:
        """Returns the logits of perturbed features, of shape [batch, classes]."""
        return self._model.logits(self.features(perturbation), self.batch.memory)

    def evaluate(self, perturbation: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs one forward pass for each sample.

        Returns:
          The objective, of shape [batch] and the dtype of the rows, and whether the
          perturbation fools the model, bool of shape [batch]. With several samples, the
          objective is their mean, and more than half of them must be fooled.
        """
        x = self.features(perturbation)
        values, fooled = self._over_samples(lambda: self._values(x))
        return values, fooled

    def gradient(
        self, perturbation: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Runs one forward and one backward pass for each sample.

        Returns:
          The results of `evaluate`, and the masked gradient of the objective; rows.

        Raises:
          ValueError: If no feature has a gradient.
        """
        x = self.features(perturbation)
        values, fooled, gradient = self._over_samples(lambda: self._gradient(x))
        return values, fooled, gradient

    def raw_gradient(self, perturbation: tf.Tensor) -> tf.Tensor:
        """Returns the gradient including its non-finite values; rows."""
        return self._gradient(self.features(perturbation), finite=False)[2]

    def movable(self, gradient: tf.Tensor, perturbation: tf.Tensor) -> tf.Tensor:
        """Zeroes gradient components that would leave the box; rows."""
        blocked = ((gradient > 0) & (perturbation >= self.high)) | (
            (gradient < 0) & (perturbation <= self.low)
        )
        return tf.where(blocked, tf.zeros_like(gradient), gradient)

    def length(self, perturbation: tf.Tensor) -> tf.Tensor:
        """Returns the norm of each perturbation, rounded to the grid; a column."""
        if self._grid is None:
            return self.norm.length(perturbation)
        moved = self.threat.rows(self.features(perturbation)) - self.threat.centers
        return self.norm.length(self._per_scale(moved))

    def _over_samples(self, draw: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
        """Averages what is drawn; the second of it is bool and becomes the majority."""
        if self._samples == 1:
            return draw()

        def numbers() -> tuple[Any, ...]:
            values, fooled, *gradient = draw()
            return values, tf.cast(fooled, self.dtype), *gradient

        _, *totals = tf.while_loop(
            lambda i, *_: i < self._samples,
            lambda i, *totals: (i + 1, *map(tf.add, totals, numbers())),
            (tf.constant(1), *numbers()),
            parallel_iterations=1,
        )
        values, fooled, *gradient = (total / self._samples for total in totals)
        return values, fooled > 0.5, *gradient

    def _gradient(
        self, x: Any, finite: bool = True
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            leaves = tf.nest.flatten(x)
            sources = {str(i): f for i, f in enumerate(leaves) if is_perturbable(f)}
            tape.watch(sources)
            values, fooled = self._values(x)
        found = tape.gradient(values, sources)
        gradients = [found.get(str(i)) for i in range(len(leaves))]
        if all(gradient is None for gradient in gradients):
            raise NoGradientError(
                "The model's outputs have no gradient with respect to any of the "
                f"features: {described(x)}. Make all operations of the model "
                "differentiable, or use an attack without gradients: "
                "nsl.attacks.Square for scores, nsl.attacks.HopSkipJump for labels."
            )
        gradient = self.threat.masked(self.threat.rows(gradients, finite))
        if self.threat.scale is not None:
            gradient *= self.threat.scale
        return values, fooled, gradient

    def _values(self, x: Any) -> tuple[tf.Tensor, tf.Tensor]:
        if self._loss_fn is not None:
            outputs = self._model(x, self.batch.memory)
            values = per_example(self._loss_fn(self.labels, outputs))
            if self._criterion is None:
                fooled = tf.zeros_like(self.none[:, 0], tf.bool)
            else:
                answers = tf.cast(self._criterion(self.labels, outputs), tf.bool)
                fooled = tf.logical_not(answers)
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
        """Returns the rounding error of a point, or 0 if it is not negligible."""
        size = self.norm.length(self._per_scale(tf.abs(self.threat.centers)))
        added = np.finfo(self.dtype.as_numpy_dtype).eps * (size + self.radius)
        return tf.where(added < _ROUNDING * self.radius, added, 0.0)

    def _per_scale(self, rows: tf.Tensor) -> tf.Tensor:
        return rows if self.threat.scale is None else rows / self.threat.scale

    def _on_grid(self, point: tf.Tensor) -> tf.Tensor:
        """Returns the nearest grid values to a point, within box and ball.

        Coordinates round towards the clean example, except those whose fraction of a
        grid step exceeds a threshold: the smallest one, from 0.5 up, with which the
        point stays in the ball. Coordinates that do not move need not be on the grid.
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
    """Reduces a loss to one value per example, of shape [batch].

    Takes the mean over all axes but the first.

    Raises:
      ValueError: If the loss is a scalar.
    """
    loss = tf.convert_to_tensor(loss)
    if loss.shape.rank == 0:
        raise ValueError(
            "The loss of an attack must be one value per example, but received a "
            "scalar. Use a loss without reduction, such as "
            "keras.losses.MeanSquaredError(reduction=None)."
        )
    if loss.shape.rank == 1:
        return loss
    return tf.reduce_mean(loss, axis=list(range(1, loss.shape.rank)))
