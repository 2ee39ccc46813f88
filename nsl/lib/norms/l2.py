"""Geometry of the L2 norm."""

from typing import Any

import numpy as np
import tensorflow as tf

from nsl import configs
from nsl.lib.norms.norm import MAX_ROUNDS, Norm, room, wider


class L2(Norm, norm_type=configs.NormType.L2):
    """The Euclidean norm."""

    def length(self, rows: tf.Tensor) -> tf.Tensor:
        # Scaling by the largest coordinate avoids overflow and underflow of squares.
        largest = tf.reduce_max(tf.abs(rows), axis=1, keepdims=True)
        scaled = tf.math.divide_no_nan(rows, largest)
        return largest * tf.sqrt(
            tf.maximum(tf.reduce_sum(tf.square(scaled), axis=1, keepdims=True), 1.0)
        )

    def project_with_bounds(
        self, perturbation: tf.Tensor, radius: Any, low: Any, high: Any
    ) -> tf.Tensor:
        # The optimality conditions give clip(s x, low, high) for one s <= 1 per row,
        # 1 if that is inside the ball.
        scale = self._largest_scale(perturbation, radius, low, high, 1.0)
        return tf.clip_by_value(scale * perturbation, low, high)

    def steepest_step(self, gradient: tf.Tensor) -> tf.Tensor:
        return tf.math.divide_no_nan(gradient, self.length(gradient))

    def steepest_step_with_bounds(
        self, gradient: tf.Tensor, length: Any, low: Any, high: Any
    ) -> tf.Tensor:
        # As for the projection, but s may be any number.
        direction = self.steepest_step(gradient)
        scale = self._largest_scale(direction, length, low, high, direction.dtype.max)
        return tf.clip_by_value(scale * direction, low, high)

    def ascent_step(
        self, gradient: tf.Tensor, length: Any, low: Any, high: Any
    ) -> tf.Tensor:
        # The norm leaves out coordinates at a bound, but the step moves them in
        # proportion: otherwise the projection, which scales all coordinates, would
        # move them off the bound again.
        at_bound = room(gradient, low, high) <= 0
        moving = tf.where(at_bound, tf.zeros_like(gradient), gradient)
        return length * tf.math.divide_no_nan(gradient, self.length(moving))

    def _largest_scale(
        self, rows: tf.Tensor, radius: Any, low: Any, high: Any, limit: float
    ) -> tf.Tensor:
        """Returns the largest s up to a limit with clip(s x, low, high) in the ball."""
        # Given the coordinates at a bound for the current s, solve for the s at which
        # the norm equals the radius. From below this only grows, so it converges in
        # finitely many rounds (in practice, a few).
        size = tf.abs(rows)
        bound = room(rows, low, high)
        radius = tf.cast(radius, size.dtype)
        total = self.length(rows)
        most = tf.fill(tf.shape(total), tf.cast(limit, size.dtype))
        # Smaller growth is rounding error.
        notable = 1 + 8 * np.finfo(size.dtype.name).eps

        def grows(scale: tf.Tensor, before: tf.Tensor) -> tf.Tensor:
            return tf.reduce_any(scale > notable * before)

        def refine(scale: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            at_bound = scale * size >= bound
            fixed = tf.where(at_bound, bound, tf.zeros_like(bound))
            free = tf.where(at_bound, tf.zeros_like(size), size)
            left = radius**2 - tf.reduce_sum(fixed**2, axis=1, keepdims=True)
            square = tf.reduce_sum(free**2, axis=1, keepdims=True)
            largest = tf.sqrt(tf.maximum(left, 0.0) / square)
            grown = tf.where(square > 0, tf.minimum(largest, most), most)
            return tf.maximum(scale, grown), scale

        start = tf.where(total > 0, tf.minimum(radius / total, most), most)
        scale, _ = tf.while_loop(
            grows,
            refine,
            (start, -tf.ones_like(start)),
            parallel_iterations=1,
            maximum_iterations=MAX_ROUNDS,
        )
        return scale

    def random_start(
        self, shape: tf.Tensor, radius: Any, seed: tf.Tensor, dtype: tf.DType
    ) -> tf.Tensor:
        # As in L1, but with density exp(-x^2 / 2) and two more coordinates.
        normal = tf.random.stateless_normal(wider(shape, 2), seed, dtype=dtype)
        return radius * normal[:, :-2] / self.length(normal)
