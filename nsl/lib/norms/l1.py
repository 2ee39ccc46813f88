"""Geometry of the L1 norm."""

from typing import Any

import numpy as np
import tensorflow as tf

from nsl import configs
from nsl.lib.norms.norm import MAX_ROUNDS, Norm, room, wider


class L1(Norm, norm_type=configs.NormType.L1):
    """The sum of absolute values."""

    def length(self, rows: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.abs(rows), axis=1, keepdims=True)

    def project(self, perturbation: tf.Tensor, radius: Any) -> tf.Tensor:
        # Duchi et al. (2008), figure 1. Each count of non-zero coordinates implies a
        # threshold, and the largest one is theirs, so no search for the count is
        # needed. It is negative exactly for rows inside the ball.
        size = tf.abs(perturbation)
        descending = tf.sort(size, axis=1, direction="DESCENDING")
        count = tf.range(1, tf.shape(size)[1] + 1)
        excess = tf.cumsum(descending, axis=1) - radius
        threshold = tf.reduce_max(
            excess / tf.cast(count, size.dtype), axis=1, keepdims=True
        )
        shrunk = tf.maximum(size - tf.maximum(threshold, 0.0), 0.0)
        return tf.sign(perturbation) * shrunk

    def project_with_bounds(
        self, perturbation: tf.Tensor, radius: Any, low: Any, high: Any
    ) -> tf.Tensor:
        # The optimality conditions give sizes clip(size - t, 0, bound) for one t >= 0
        # per row, 0 if those are inside the ball: Croce & Hein (2021), proposition
        # 2.1. Their sum decreases piecewise linearly in t. Newton's method finds the
        # piece with the root in a few rounds. The sum is not convex in t, so a bracket
        # safeguards the method, and every third round bisects it.
        size = tf.abs(perturbation)
        bound = room(perturbation, low, high)
        radius = tf.cast(radius, size.dtype)

        tolerance = 8 * np.finfo(size.dtype.name).eps * radius

        def clipped(threshold: tf.Tensor) -> tf.Tensor:
            return tf.clip_by_value(size - threshold, 0.0, bound)

        def unsettled(_: Any, threshold: Any, left: Any, right: Any) -> tf.Tensor:
            return tf.reduce_any(left < right)

        def refine(
            i: tf.Tensor, threshold: tf.Tensor, left: tf.Tensor, right: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            sizes = clipped(threshold)
            excess = tf.reduce_sum(sizes, axis=1, keepdims=True) - radius
            left = tf.where(excess >= -tolerance, threshold, left)
            right = tf.where(excess <= tolerance, threshold, right)
            free = tf.cast((sizes > 0) & (sizes < bound), size.dtype)
            slope = tf.reduce_sum(free, axis=1, keepdims=True)
            newton = threshold + tf.math.divide_no_nan(excess, slope)
            halves = (
                (newton <= left) | (newton >= right) | (tf.math.floormod(i, 3) == 2)
            )
            following = tf.where(halves, (left + right) / 2, newton)
            # The root is found, or the bracket contains no further number.
            settled = (following <= left) | (following >= right)
            return (
                i + 1,
                tf.where(settled, right, following),
                tf.where(settled, right, left),
                right,
            )

        zero = tf.zeros_like(size[:, :1])
        _, threshold, _, _ = tf.while_loop(
            unsettled,
            refine,
            (tf.constant(0), zero, zero, tf.reduce_max(size, axis=1, keepdims=True)),
            parallel_iterations=1,
            maximum_iterations=MAX_ROUNDS,
        )
        return tf.sign(perturbation) * clipped(threshold)

    def steepest_step(self, gradient: tf.Tensor) -> tf.Tensor:
        size = tf.abs(gradient)
        largest = tf.equal(size, tf.reduce_max(size, axis=1, keepdims=True))
        share = tf.cast(largest, gradient.dtype)
        share /= tf.reduce_sum(share, axis=1, keepdims=True)
        return tf.sign(gradient) * share

    def steepest_step_with_bounds(
        self, gradient: tf.Tensor, length: Any, low: Any, high: Any
    ) -> tf.Tensor:
        # Coordinates move as far as they can, in descending order of the gradient.
        size = tf.abs(gradient)
        most = tf.minimum(room(gradient, low, high), length)
        most = tf.where(size > 0, most, tf.zeros_like(size))
        order = tf.argsort(size, axis=1, direction="DESCENDING")
        sorted_most = tf.gather(most, order, batch_dims=1, axis=1)
        left = length - tf.cumsum(sorted_most, axis=1, exclusive=True)
        taken = tf.clip_by_value(left, 0.0, sorted_most)
        places = tf.argsort(order, axis=1)
        return tf.sign(gradient) * tf.gather(taken, places, batch_dims=1, axis=1)

    def ascent_step(
        self, gradient: tf.Tensor, length: Any, low: Any, high: Any
    ) -> tf.Tensor:
        # The steepest step moves a single coordinate, which may already be at a bound.
        return self.steepest_step_with_bounds(gradient, length, low, high)

    def random_start(
        self, shape: tf.Tensor, radius: Any, seed: tf.Tensor, dtype: tf.DType
    ) -> tf.Tensor:
        # Coordinates with density exp(-|x|), divided by the norm of themselves and one
        # more such coordinate: Barthe et al. (2005), corollary 4.
        sizes_seed, signs_seed = tf.unstack(tf.random.split(seed, 2))
        uniform = tf.random.stateless_uniform(wider(shape, 1), sizes_seed, dtype=dtype)
        sizes = -tf.math.log1p(-uniform)
        signs = tf.sign(
            tf.random.stateless_uniform(shape, signs_seed, -1.0, 1.0, dtype=dtype)
        )
        return radius * signs * sizes[:, :-1] / self.length(sizes)
