"""Lays out structures of tensors as one matrix, with one row per example.

A joint norm over all features of an example is then the norm of a row.
"""

from typing import Any

import tensorflow as tf


def joint_dtype(tensors: list[Any]) -> tf.DType:
    """Returns the dtype of the tensors' rows: float64 if a tensor is, else float32."""
    wide = any(t.dtype == tf.float64 for t in tensors)
    return tf.float64 if wide else tf.float32


def width(tensor: tf.Tensor) -> Any:
    """Returns the number of coordinates per example in `tensor`."""
    size = tensor.shape[1:].num_elements()
    return tf.reduce_prod(tf.shape(tensor)[1:]) if size is None else size


def to_rows(structure: Any) -> tf.Tensor:
    """Concatenates all coordinates of each example.

    Args:
      structure: A structure of floating tensors of shape [batch, ...].

    Returns:
      A tensor of shape [batch, coordinates], float64 if one of the tensors is,
      otherwise float32.
    """
    tensors = [tf.convert_to_tensor(t) for t in tf.nest.flatten(structure)]
    dtype = joint_dtype(tensors)
    rows = [
        tf.reshape(tf.cast(t, dtype), tf.stack([tf.shape(t)[0], width(t)]))
        for t in tensors
    ]
    return rows[0] if len(rows) == 1 else tf.concat(rows, axis=1)


def from_rows(rows: tf.Tensor, structure: Any) -> Any:
    """Inverts `to_rows`.

    Args:
      rows: A tensor of shape [batch, coordinates].
      structure: The structure that `to_rows` received.

    Returns:
      The rows in the structure, shapes and dtypes of `structure`.
    """
    tensors = [tf.convert_to_tensor(t) for t in tf.nest.flatten(structure)]
    widths = [width(t) for t in tensors]
    parts = [rows] if len(tensors) == 1 else tf.split(rows, widths, axis=1)
    restored = map(formed_like, parts, tensors)
    return tf.nest.pack_sequence_as(structure, list(restored))


def formed_like(rows: tf.Tensor, tensor: tf.Tensor) -> tf.Tensor:
    """Reshapes and casts rows to the shape, static shape and dtype of a tensor."""
    formed = tf.cast(tf.reshape(rows, tf.shape(tensor)), tensor.dtype)
    return tf.ensure_shape(formed, tensor.shape)


def spread_rows(
    values: list[tf.Tensor | None], tensors: list[tf.Tensor], missing: float
) -> tf.Tensor | None:
    """Lays out one value per tensor like the coordinates of `to_rows(tensors)`.

    Args:
      values: For each tensor a value that broadcasts to it, or None.
      tensors: Floating tensors of shape [batch, ...].
      missing: The value to use for None.

    Returns:
      A tensor that broadcasts to `to_rows(tensors)`; None if all values are None.
    """
    if all(value is None for value in values):
        return None
    dtype = joint_dtype(tensors)
    rows = [
        _spread(tf.cast(missing if value is None else value, dtype), tensor)
        for value, tensor in zip(values, tensors, strict=True)
    ]
    if len(rows) == 1:
        return rows[0]
    batch = tf.shape(tensors[0])[0] if any(r.shape[0] != 1 for r in rows) else 1
    widths = [width(t) for t in tensors]
    return tf.concat(
        [
            tf.broadcast_to(row, tf.stack([batch, columns]))
            for row, columns in zip(rows, widths, strict=True)
        ],
        axis=1,
    )


def _spread(value: tf.Tensor, tensor: tf.Tensor) -> tf.Tensor:
    """Converts a value that broadcasts to a tensor into one that fits its rows."""
    if value.shape.num_elements() == 1:
        return tf.reshape(value, [1, 1])
    of_example = tf.shape(tensor)[1:]
    if value.shape.rank < tensor.shape.rank:
        return tf.reshape(tf.broadcast_to(value, of_example), [1, width(tensor)])
    examples = tf.shape(value)[:1]
    value = tf.broadcast_to(value, tf.concat([examples, of_example], axis=0))
    rows = tf.reshape(value, tf.stack([examples[0], width(tensor)]))
    return tf.ensure_shape(rows, [1, None]) if value.shape[0] == 1 else rows
