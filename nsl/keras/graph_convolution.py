"""A graph convolutional network that reads all nodes, for `nsl.keras.few_labels`."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from nsl.data import Graph
from nsl.data.feature_rows import is_floating
from nsl.data.sparse_matrices import canonical, is_sparse_matrix
from nsl.keras.node_labels import NodeLabels
from nsl.keras.node_model import dropout
from nsl.progress import Progress

_HIDDEN, _DROPOUT, _DECAY = 64, 0.5, 5e-4
_EPOCHS, _LEARNING_RATE = 200, 0.01
# They bound the time to some minutes. Products of sparse features take longer.
_MOST_EDGES, _MOST_SPARSE, _MOST_DENSE = 1 << 20, 1 << 21, 1 << 24
_DENSE_SHARE = 0.08

Matrix = tf.Tensor | tf.SparseTensor


def graph_convolution(
    features: Any, graph: Graph, labels: NodeLabels, seed: int
) -> npt.NDArray[np.float32] | None:
    """Trains a graph convolutional network on the labeled nodes.

    It has two layers, S ReLU(S X U + b) V + c with S = D^-1/2 (A + I) D^-1/2, and the
    settings of Kipf and Welling (2017, https://arxiv.org/abs/1609.02907), but 64 hidden
    units: dropout 0.5, weight decay 5e-4 in the first layer, and 200 updates by Adam
    with learning rate 0.01, each on all nodes.

    Args:
      features: Arrays, SciPy sparse matrices or sparse tensors of shape [nodes, ...],
        or a dict, tuple or list of them. The network reads those of floats.
      graph: The graph, with weights that are not negative.
      labels: The labels of the nodes.
      seed: The seed of initial weights and dropout.

    Returns:
      The log-probabilities of all nodes, float32 of shape [nodes, classes]. None if
      there are no features of floats, or training would take longer than a few minutes:
      if there are more than 2^20 directed edges, or more than 2^21 values that are not
      zero, and more than 2^24 in all or less than 8% not zero.
    """
    x = _concatenated(features) if len(graph.targets) <= _MOST_EDGES else None
    if x is None:
        return None
    spread = _normalized(graph)
    glorot = keras.initializers.GlorotUniform(seed)
    sizes = [int(tf.shape(x)[1]), _HIDDEN, labels.classes]
    kernels = [tf.Variable(glorot(sizes[i : i + 2])) for i in (0, 1)]
    biases = [tf.Variable(tf.zeros(size)) for size in sizes[1:]]
    rows = tf.constant(labels.labeled)
    weight = labels.weight[labels.labeled, np.newaxis]
    targets = tf.constant(weight / weight.sum() * labels.one_hot[labels.labeled])

    def dropped(values: Any, seed: tf.Tensor | None) -> Any:
        return values if seed is None else dropout(values, _DROPOUT, seed)

    def logits(seeds: Any = (None, None)) -> tf.Tensor:
        hidden = _product(spread, _product(dropped(x, seeds[0]), kernels[0]))
        kept = dropped(tf.nn.relu(hidden + biases[0]), seeds[1])
        return _product(spread, _product(kept, kernels[1])) + biases[1]

    variables = [*kernels, *biases]
    optimizer = keras.optimizers.Adam(_LEARNING_RATE)

    @tf.function(autograph=False)
    def update(step: tf.Tensor) -> None:
        seeds = tf.random.split(tf.stack([tf.constant(seed, tf.int64), step]), 2)
        with tf.GradientTape() as tape:
            logs = tf.nn.log_softmax(tf.gather(logits(tf.unstack(seeds)), rows))
            loss = _DECAY * tf.nn.l2_loss(kernels[0]) - tf.reduce_sum(targets * logs)
        optimizer.apply(tape.gradient(loss, variables), variables)

    with Progress("Convolving", _EPOCHS, "steps") as progress:
        for step in range(_EPOCHS):
            update(tf.constant(step, tf.int64))
            progress.advance(1)
    return tf.nn.log_softmax(logits()).numpy()


def _concatenated(features: Any) -> Matrix | None:
    """Returns the features of floats, of shape [nodes, columns], or None."""
    values = [
        value
        for value in tf.nest.flatten(features)
        if is_floating(value) and not isinstance(value, tf.RaggedTensor)
    ]
    size = sum(np.prod(np.shape(value), dtype=float) for value in values)
    count = sum(map(_count_nonzero, values))
    dense = size <= _MOST_DENSE and count >= _DENSE_SHARE * size
    if not values or not (dense or count <= _MOST_SPARSE):
        return None
    matrix = tf.sparse.concat(1, [_columns(value) for value in values])
    return tf.sparse.to_dense(matrix) if dense else matrix


def _count_nonzero(value: Any) -> int:
    """Returns how many values `_columns` takes from a feature."""
    if is_sparse_matrix(value):
        return int(value.nnz)
    if isinstance(value, tf.SparseTensor):
        return int(tf.size(value.values))
    return int(np.count_nonzero(value))


def _columns(value: Any) -> tf.SparseTensor:
    """Returns a feature as a float32 matrix of shape [nodes, columns]."""
    if is_sparse_matrix(value):
        entries = canonical(value)
        indices = np.stack([entries.row, entries.col], axis=1)
        value = tf.SparseTensor(indices, entries.data, value.shape)
    elif isinstance(value, tf.SparseTensor):
        value = tf.sparse.reorder(value)
    else:
        value = tf.sparse.from_dense(value)
    value = tf.sparse.reshape(value, [value.shape[0], -1])
    return tf.cast(value, tf.float32)


def _normalized(graph: Graph) -> tf.SparseTensor:
    """Returns D^-1/2 (A + I) D^-1/2."""
    nodes = np.arange(graph.num_nodes)
    weights = np.concatenate([graph.weights, np.ones(len(nodes), np.float32)])
    rows = np.concatenate([graph.sources, nodes])
    columns = np.concatenate([graph.targets, nodes])
    scales = 1 / np.sqrt(np.bincount(rows, weights))
    weights *= (scales[rows] * scales[columns]).astype(np.float32)
    indices = np.stack([rows, columns], axis=1)
    matrix = tf.SparseTensor(indices, weights, [len(nodes)] * 2)
    return tf.sparse.reorder(matrix)


def _product(matrix: Matrix, dense: tf.Tensor) -> tf.Tensor:
    if isinstance(matrix, tf.SparseTensor):
        return tf.sparse.sparse_dense_matmul(matrix, dense)
    return matrix @ dense
