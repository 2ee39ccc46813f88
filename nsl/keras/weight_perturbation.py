"""Adversarial weight perturbation.

Wu et al. (2020), https://arxiv.org/abs/2004.05884.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from nsl.lib.replicas import sum_over_replicas
from nsl.lib.rows import joint_dtype


@contextlib.contextmanager
def perturbed_weights(
    weights: Sequence[keras.Variable], gradients: Sequence[Any], factor: Any
) -> Iterator[list[tf.Tensor]]:
    """Runs the body with perturbed values instead of weights.

    A weight w of rank 2 or more becomes w + factor * |w| * g / |g|, where g is its
    gradient and |.| the L2 norm over the whole weight. Weights of lower rank, such as
    biases and scales of normalization, are not perturbed, as in the authors' code; nor
    are weights whose gradient is None or 0. The variables do not change, and what the
    body assigns to variables is discarded.

    Args:
      weights: The weights of a model.
      gradients: This replica's gradient of each weight, or None. All replicas use the
        sum of their gradients.
      factor: The norm of the perturbation, in units of the norm of the weight.

    Yields:
      The values of the weights, for gradients with respect to them.
    """
    values = []
    for weight, gradient in zip(weights, gradients, strict=True):
        value = tf.convert_to_tensor(weight.value)
        if gradient is not None and value.shape.rank > 1:
            # At least float32: the squares of scaled half-precision values overflow.
            w, g = (
                tf.cast(v, joint_dtype([v]))
                for v in (value, sum_over_replicas(tf.convert_to_tensor(gradient)))
            )
            length = tf.cast(factor, g.dtype) * tf.cast(tf.norm(w), g.dtype)
            perturbation = tf.math.divide_no_nan(length, tf.norm(g)) * g
            value += tf.cast(perturbation, value.dtype)
        values.append(tf.identity(value))
    mapping = list(zip(weights, values, strict=True))
    with keras.StatelessScope(state_mapping=mapping, collect_losses=True):
        yield values
