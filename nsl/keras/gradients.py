"""Sums of gradients of the same variables."""

from typing import TypeAlias

import tensorflow as tf

Gradient: TypeAlias = tf.Tensor | tf.IndexedSlices | None


def add_gradients(
    left: list[Gradient],
    right: list[Gradient],
) -> list[Gradient]:
    """Adds gradients variable by variable.

    Args:
      left: Gradients of variables; None counts as zero.
      right: Gradients of the same variables.

    Returns:
      The sums. Those of two `tf.IndexedSlices`, as of embeddings, stay sparse.
    """
    total = []
    for a, b in zip(left, right, strict=True):
        if a is None or b is None:
            total.append(b if a is None else a)
        elif isinstance(a, tf.IndexedSlices) and isinstance(b, tf.IndexedSlices):
            total.append(
                tf.IndexedSlices(
                    tf.concat([a.values, b.values], 0),
                    tf.concat([a.indices, b.indices], 0),
                    a.dense_shape,
                )
            )
        else:
            total.append(tf.convert_to_tensor(a) + tf.convert_to_tensor(b))
    return total
