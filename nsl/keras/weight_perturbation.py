"""Adversarial weight perturbation: weights that are moved to where the loss is larger.

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
    """Runs the body with perturbed values in the place of weights.

    Each weight w of two axes or more is w + factor * |w| * g / |g| for its gradient g,
    with the L2 norm over the whole weight. Biases and the scales of normalization stay
    as they are, as in the authors' program, and so does a weight without a gradient, or
    with one of 0. Nothing is written to a variable, and all that the body writes to one
    is dropped at the end.

    Args:
      weights: The weights of a model.
      gradients: This replica's gradient of each, or None. All replicas perturb alike,
        along the sum of their gradients.
      factor: The norm of the perturbation, in units of the norm of the weight.

    Yields:
      What stands in the place of the weights, to be differentiated by.
    """
    values = []
    for weight, gradient in zip(weights, gradients, strict=True):
        value = tf.convert_to_tensor(weight.value)
        if gradient is not None and value.shape.rank > 1:
            # In float32 at least: squares of scaled half-precision numbers overflow.
            w, g = (
                tf.cast(v, joint_dtype([v]))
                for v in (value, sum_over_replicas(tf.convert_to_tensor(gradient)))
            )
            length = tf.cast(factor, g.dtype) * tf.cast(tf.norm(w), g.dtype)
            move = tf.math.divide_no_nan(length, tf.norm(g)) * g
            value += tf.cast(move, value.dtype)
        values.append(tf.identity(value))
    mapping = list(zip(weights, values, strict=True))
    with keras.StatelessScope(state_mapping=mapping, collect_losses=True):
        yield values
