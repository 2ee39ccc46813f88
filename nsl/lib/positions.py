"""Lays out structures of tensors as one matrix, with one row per position.

A position is an index into all axes but the last, such as a token of a text. The norm
of a row is then the norm of one token. The functions mirror those of `nsl.lib.rows`.
"""

from typing import Any

import tensorflow as tf

from nsl.lib.rows import formed_like, joint_dtype


def to_rows(structure: Any) -> tf.Tensor:
    """Stacks the positions of all tensors as rows.

    Args:
      structure: A structure of floating tensors of shape [batch, ..., d] or [batch].

    Returns:
      A tensor of shape [positions, width], where the width is the largest d; rows of
      tensors with smaller d are padded with zeros. float64 if one of the tensors is,
      otherwise float32.
    """
    tensors = [tf.convert_to_tensor(t) for t in tf.nest.flatten(structure)]
    dtype = joint_dtype(tensors)
    width = _width(tensors)
    rows = [_padded(tf.cast(t, dtype), width, 0.0) for t in tensors]
    return rows[0] if len(rows) == 1 else tf.concat(rows, axis=0)


def from_rows(rows: tf.Tensor, structure: Any) -> Any:
    """Inverts `to_rows`.

    Args:
      rows: A tensor of shape [positions, width].
      structure: The structure that `to_rows` received.

    Returns:
      The rows in the structure, shapes and dtypes of `structure`.
    """
    tensors = [tf.convert_to_tensor(t) for t in tf.nest.flatten(structure)]
    counts = [tf.size(t) // _last(t) for t in tensors]
    parts = [rows] if len(tensors) == 1 else tf.split(rows, counts, axis=0)
    restored = [
        formed_like(part[:, : _last(tensor)], tensor)
        for part, tensor in zip(parts, tensors, strict=True)
    ]
    return tf.nest.pack_sequence_as(structure, restored)


def spread_rows(
    values: list[tf.Tensor | None], tensors: list[tf.Tensor], missing: float
) -> tf.Tensor | None:
    """Lays out one value per tensor like the coordinates of `to_rows(tensors)`.

    Args:
      values: For each tensor a value that broadcasts to it, or None.
      tensors: Floating tensors of shape [batch, ..., d] or [batch].
      missing: The value to use for None.

    Returns:
      A tensor that broadcasts to `to_rows(tensors)`; None if all values are None.
    """
    if all(value is None for value in values):
        return None
    dtype, width = joint_dtype(tensors), _width(tensors)
    rows = []
    for value, tensor in zip(values, tensors, strict=True):
        value = tf.cast(missing if value is None else value, dtype)
        if len(tensors) == 1 and value.shape.num_elements() == 1:
            return tf.reshape(value, [1, 1])
        value = tf.broadcast_to(value, tf.shape(tensor))
        rows.append(_padded(tf.ensure_shape(value, tensor.shape), width, missing))
    return tf.concat(rows, axis=0)


def _last(tensor: tf.Tensor) -> Any:
    """Returns the number of coordinates of a position."""
    if tensor.shape.rank == 1:
        return 1
    size = tensor.shape[-1]
    return tf.shape(tensor)[-1] if size is None else size


def _width(tensors: list[tf.Tensor]) -> Any:
    widths = [_last(t) for t in tensors]
    if all(isinstance(width, int) for width in widths):
        return max(widths)
    return tf.reduce_max(tf.stack(widths))


def _padded(tensor: tf.Tensor, width: Any, value: float) -> tf.Tensor:
    last = _last(tensor)
    rows = tf.reshape(tensor, [-1, last])
    if isinstance(width, int) and width == last:
        return rows
    return tf.pad(rows, [[0, 0], [0, width - last]], constant_values=value)
