"""Averages features over the neighborhoods of nodes, for `nsl.keras.few_labels`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from nsl.data import Graph, propagate
from nsl.data.feature_rows import is_floating
from nsl.data.sparse_matrices import is_sparse_matrix

_MOST_VALUES, _COLUMNS = 1 << 27, 256


def smooth_features(features: Any, graph: Graph, hops: int) -> Any | None:
    """Averages float features over the nodes that are at most `hops` edges away.

    This is the input of a simplified graph convolution, S^hops X with the normalized
    adjacency matrix S = D^-1/2 (A + I) D^-1/2 (Wu et al., 2019,
    https://arxiv.org/abs/1902.07153), except for the lengths of rows: here each row is
    a weighted mean of rows of X, and the result is scaled to the mean length of these.

    Args:
      features: Arrays, SciPy sparse matrices, sparse or ragged tensors of shape
        [nodes, ...], or a dict, tuple or list of them.
      graph: The graph, with weights that are not negative.
      hops: The number of hops.

    Returns:
      The features, in the same structure, where floats that are not ragged are averaged
      and dense; other features stay. None if there is nothing to average: no floats, or
      only features of more than 2^27 values, which would take more than 512 MB.
    """
    values = tf.nest.flatten(features)
    means = [_mean(value, graph, hops) if _fits(value) else None for value in values]
    if all(mean is None for mean in means):
        return None
    pairs = zip(values, means, strict=True)
    return tf.nest.pack_sequence_as(
        features, [value if mean is None else mean for value, mean in pairs]
    )


def _fits(value: Any) -> bool:
    """Returns whether a feature holds floats and is small enough."""
    if isinstance(value, tf.RaggedTensor) or not is_floating(value):
        return False
    size = np.prod([int(length) for length in np.shape(value)], dtype=float)
    return bool(size <= _MOST_VALUES)


def _mean(value: Any, graph: Graph, hops: int) -> npt.NDArray[np.floating]:
    if isinstance(value, tf.SparseTensor):
        value = tf.sparse.to_dense(tf.sparse.reorder(value))
    dense = value.toarray() if is_sparse_matrix(value) else np.asarray(value)
    rows = dense.reshape(len(dense), -1)
    sums = np.concatenate(([0.0], np.cumsum(graph.weights, dtype=np.float64)))
    root = np.sqrt(1 + np.diff(sums[graph.row_splits]))[:, np.newaxis]

    def spread(columns: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return propagate(graph, columns / root, teleport=0.0, hops=hops)

    totals = spread(np.ones_like(root))
    means = np.empty_like(rows)
    for first in range(0, rows.shape[1], _COLUMNS):
        part = slice(first, first + _COLUMNS)
        means[:, part] = spread(rows[:, part]) / totals
    lengths = [np.sqrt(np.square(each).sum(axis=1)).mean() for each in (rows, means)]
    if lengths[1]:
        means *= lengths[0] / lengths[1]
    return means.reshape(dense.shape)
