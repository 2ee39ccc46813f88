"""Geometry of the L-infinity norm."""

from typing import Any

import tensorflow as tf

from nsl import configs
from nsl.lib.norms.norm import Norm


class Infinity(Norm, norm_type=configs.NormType.INFINITY):
    """The largest absolute value of the coordinates."""

    def length(self, rows: tf.Tensor) -> tf.Tensor:
        return tf.reduce_max(tf.abs(rows), axis=1, keepdims=True)

    def project(self, perturbation: tf.Tensor, radius: Any) -> tf.Tensor:
        return tf.clip_by_value(perturbation, -radius, radius)

    def project_with_bounds(
        self, perturbation: tf.Tensor, radius: Any, low: Any, high: Any
    ) -> tf.Tensor:
        # The ball is a box too, so clipping is exact.
        return tf.clip_by_value(self.project(perturbation, radius), low, high)

    def steepest_step(self, gradient: tf.Tensor) -> tf.Tensor:
        return tf.sign(gradient)

    def random_start(
        self, shape: tf.Tensor, radius: Any, seed: tf.Tensor, dtype: tf.DType
    ) -> tf.Tensor:
        return radius * tf.random.stateless_uniform(shape, seed, -1.0, 1.0, dtype=dtype)
