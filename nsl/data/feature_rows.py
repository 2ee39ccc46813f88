"""Dense, sparse and ragged features whose rows are gathered into batches."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from nsl.data.host_tensors import host_tensor
from nsl.data.sparse_matrices import canonical, is_sparse_matrix

_STRINGS, _NUMBERS, _ROWS = "strings", "numbers", "rows"


class SparseRows:
    """A sparse tensor in host memory, with its values grouped by row."""

    def __init__(
        self,
        indices: npt.NDArray[np.integer],
        values: npt.NDArray[Any],
        shape: tuple[int, ...],
    ) -> None:
        """Groups the values of a sparse tensor by row.

        Args:
          indices: The indices of the values, of shape [values, rank], sorted.
          values: The values, of shape [values].
          shape: The dense shape.
        """
        self._row_shape = tf.constant(shape[1:], tf.int64)
        counts = np.bincount(indices[:, 0], minlength=shape[0])
        self._splits = host_tensor(np.concatenate(([0], np.cumsum(counts))))
        self._places = host_tensor(np.ascontiguousarray(indices[:, 1:]))
        self._values = host_tensor(values)

    def gather(self, nodes: tf.Tensor) -> tf.SparseTensor:
        """Gathers the rows of nodes; see the function `gather`."""
        flat = tf.reshape(nodes, [-1])
        entries = tf.ragged.range(
            tf.gather(self._splits, flat), tf.gather(self._splits, flat + 1)
        )
        owners = entries.value_rowids()[:, tf.newaxis]
        if nodes.shape.rank == 2:
            members = nodes.shape[1]
            owners = tf.concat([owners // members, owners % members], axis=1)
        places = tf.gather(self._places, entries.flat_values)
        return tf.SparseTensor(
            tf.concat([owners, tf.cast(places, tf.int64)], axis=1),
            tf.gather(self._values, entries.flat_values),
            tf.concat([tf.shape(nodes, tf.int64), self._row_shape], axis=0),
        )


Rows: TypeAlias = tf.Tensor | tf.RaggedTensor | SparseRows


def is_floating(value: Any) -> bool:
    """Returns whether a feature, dense, sparse or ragged, holds floats."""
    dtype = getattr(value, "dtype", None)
    return tf.as_dtype(np.asarray(value).dtype if dtype is None else dtype).is_floating


def feature_rows(value: Any, what: str, nodes: int) -> Rows:
    """Loads a feature into host memory, without a copy if possible.

    Args:
      value: Numbers or strings of shape [nodes, ...]: anything `plain_array` accepts, a
        tf.RaggedTensor, a tf.SparseTensor, or a SciPy sparse matrix or array.
      what: The name of the feature in error messages.
      nodes: The number of nodes.

    Returns:
      The rows, for `gather`.

    Raises:
      TypeError: If the feature is neither numbers nor strings.
      ValueError: If the feature does not have one row for each node.
    """
    if isinstance(value, tf.RaggedTensor):
        _check_length((value.shape[0], *value.shape[1:]), what, nodes)
        return tf.nest.map_structure(
            lambda part: host_tensor(part.numpy()), value, expand_composites=True
        )
    if isinstance(value, tf.SparseTensor):
        value = tf.sparse.reorder(value)
        shape = tuple(value.dense_shape.numpy().tolist())
        indices, values = value.indices.numpy(), value.values.numpy()
    elif is_sparse_matrix(value):
        shape = tuple(value.shape)
        indices, values = _entries(value)
        _check_dtype(values.dtype, what)
    else:
        array = plain_array(value, what)
        _check_length(array.shape, what, nodes)
        return host_tensor(array)
    _check_length(shape, what, nodes)
    return SparseRows(indices, values, shape)


def gather(rows: Rows, nodes: tf.Tensor) -> Any:
    """Gathers rows, as `tf.gather` does.

    Args:
      rows: A feature of shape [nodes, ...].
      nodes: Rows, an integer tensor of shape [batch] or [batch, m].

    Returns:
      A dense, ragged or sparse tensor of shape [batch, ...] or [batch, m, ...].
    """
    return (
        rows.gather(nodes) if isinstance(rows, SparseRows) else tf.gather(rows, nodes)
    )


def _entries(matrix: Any) -> tuple[npt.NDArray[np.integer], npt.NDArray[Any]]:
    """Returns the sorted indices and the values of a SciPy sparse matrix."""
    if len(matrix.shape) == 2:
        coordinates = canonical(matrix)
        return np.stack((coordinates.row, coordinates.col), axis=1), coordinates.data
    coordinates = matrix.tocoo().copy()
    coordinates.sum_duplicates()
    indices = np.stack(coordinates.coords, axis=1)
    order = np.lexsort(indices.T[::-1])
    return indices[order], coordinates.data[order]


def _check_length(shape: tuple[Any, ...], what: str, nodes: int) -> None:
    if not shape or shape[0] != nodes:
        raise ValueError(
            f"{what} must have one row for each of the {nodes} nodes of the graph, but "
            f"has shape {tuple(shape)}. If the graph lacks nodes without edges, pass "
            "the ids of all nodes to it."
        )


def plain_array(value: Any, what: str) -> npt.NDArray[Any]:
    """Converts numbers or strings to an array that TensorFlow accepts.

    Args:
      value: Numbers or strings: an array, a sequence or a column of a table. Arrays of
        Python objects are accepted.
      what: Its name in error messages.

    Returns:
      An array of a dtype that TensorFlow supports; strings may have dtype object.

    Raises:
      TypeError: If the values are neither all numbers nor all strings.
      ValueError: If the rows differ in length.
    """
    if is_sparse_matrix(value) or isinstance(value, tf.SparseTensor | tf.RaggedTensor):
        raise TypeError(
            f"{what} must be a dense array, but received {type(value).__name__}."
        )
    try:
        array = np.asarray(value)
        if array.dtype.kind in "US" and not hasattr(value, "__array__"):
            # NumPy would convert the numbers of a mixed list to strings.
            array = np.array(value, dtype=object)
        if array.dtype.kind in "OT" and array.ndim:
            array = _unboxed(array, what)
    except ValueError:  # raised by NumPy for rows of different shapes
        raise ValueError(
            f"The rows of {what} differ in length. Pad them, or pass a feature as a "
            "tf.RaggedTensor (tf.ragged.constant)."
        ) from None
    _check_dtype(array.dtype, what)
    return array


def _check_dtype(dtype: np.dtype[Any], what: str) -> None:
    try:
        tf.as_dtype(dtype)
    except TypeError:
        raise TypeError(
            f"{what} must be an array of numbers or strings, but has dtype {dtype}."
        ) from None


def _unboxed(array: npt.NDArray[Any], what: str) -> npt.NDArray[Any]:
    """Converts an array of objects to numbers, if it does not hold strings.

    Raises:
      TypeError: If the objects are not all numbers, all strings or all sequences.
      ValueError: If they are sequences of different shapes.
    """
    values = array.reshape(-1).tolist()
    kinds = [_kind(value) for value in values]
    for place, (value, kind) in enumerate(zip(values, kinds, strict=True)):
        if kind is None or kind != kinds[0]:
            row = place * len(array) // len(values)
            raise TypeError(
                f"{what} must be an array of numbers or strings, but row {row} holds "
                f"{value!r} ({type(value).__name__})"
                + (f" among {kinds[0]}" if kind else "")
                + ". Fill in missing values, and split columns of different types "
                "into separate features."
            )
    if not values or kinds[0] == _STRINGS:
        return array.astype(object)
    if kinds[0] == _NUMBERS:
        return np.array(values).reshape(array.shape)
    rows = np.stack(
        [
            value if isinstance(value, np.ndarray) else np.array(value, dtype=object)
            for value in values
        ]
    )
    rows = rows.reshape(array.shape + rows.shape[1:])
    return _unboxed(rows, what) if rows.dtype.kind in "OT" else rows


def _kind(value: Any) -> str | None:
    if isinstance(value, str | bytes):
        return _STRINGS
    if isinstance(value, bool | int | float | complex | np.number | np.bool_):
        return _NUMBERS
    return _ROWS if isinstance(value, list | tuple | np.ndarray) else None
