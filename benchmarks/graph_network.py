"""Few labels by nsl.keras.few_labels, against a graph convolutional network.

Usage: python benchmarks/graph_network.py --data cora_ml.npz [--seeds 10]

Both are trained in the same run on the split of the file (see examples/cora.py for its
format). The graph network is that of Kipf and Welling (2017,
https://arxiv.org/abs/1609.02907): two layers, their optimizer, dropout and decay, 200
epochs; it has the graph when it answers. nsl's network has not. A second time nsl's
is trained without a fifth of the test nodes, and answers both kinds.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import citations
import cora
import keras
import numpy as np
import tensorflow as tf
from cora import CitationGraph
from seeds import Figures, format_table

import nsl

COLUMNS = ("labels alone", "graph network", "nsl")


class GraphConvolution(keras.layers.Layer):
    """Multiplies features by a kernel and by the normalized adjacency matrix."""

    def __init__(self, units: int, adjacency: tf.SparseTensor, decay: float) -> None:
        super().__init__()
        self._dense = keras.layers.Dense(
            units, use_bias=False, kernel_regularizer=keras.regularizers.L2(decay / 2)
        )
        self._bias = self.add_weight((units,), "zeros")
        self._adjacency = adjacency

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Convolves the features of all nodes."""
        return (
            tf.sparse.sparse_dense_matmul(self._adjacency, self._dense(x)) + self._bias
        )


def adjacency(graph: CitationGraph) -> tf.SparseTensor:
    """Returns D^-1/2 (A + I) D^-1/2."""
    nodes = len(graph.labels)
    links = nsl.data.Graph(tuple(graph.edges.T), ids=range(nodes), undirected=True)
    degrees = np.diff(links.row_splits)
    rows = np.concatenate([links.sources, np.arange(nodes)])
    columns = np.concatenate([links.targets, np.arange(nodes)])
    scales = 1 / np.sqrt(degrees + 1)
    values = (scales[rows] * scales[columns]).astype(np.float32)
    matrix = tf.SparseTensor(np.stack([rows, columns], axis=1), values, (nodes, nodes))
    return tf.sparse.reorder(matrix)


def graph_network(graph: CitationGraph, hidden: int, seed: int) -> float:
    """Returns the test accuracy of a graph convolutional network, in percent."""
    keras.utils.set_random_seed(seed)
    matrix = adjacency(graph)
    model = keras.Sequential(
        [
            keras.layers.Dropout(0.5),
            GraphConvolution(hidden, matrix, 5e-4),
            keras.layers.ReLU(),
            keras.layers.Dropout(0.5),
            GraphConvolution(graph.classes, matrix, 0.0),
        ]
    )
    x, train = tf.constant(graph.words), graph.train
    model(x)
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(model.trainable_variables)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def update() -> None:
        with tf.GradientTape() as tape:
            logits = tf.gather(model(x, training=True), train)
            total = tf.add_n([loss(graph.labels[train], logits), *model.losses])
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(total, variables), variables)

    for _ in range(200):
        update()
    answers = model(x).numpy().argmax(axis=1)[graph.test]
    return 100 * float(np.mean(answers == graph.labels[graph.test]))


def measure(graph: CitationGraph, hidden: int, seed: int) -> Figures:
    plain, ours = citations.compare(graph, seed)
    row = f"{graph.name}, {len(graph.train)} labels"
    figures = {row: (plain, graph_network(graph, hidden, seed), ours)}
    for row, (plain, ours) in citations.compare_unseen(graph, seed).items():
        figures[row] = plain, float("nan"), ours
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--hidden", type=int, default=64, help="of the graph network")
    options = parser.parse_args()
    graph, found = cora.load(options.data), []
    for seed in range(options.seeds):
        start = time.process_time()
        found.append(measure(graph, options.hidden, seed))
        seconds = time.process_time() - start
        print(f"seed {seed}: {found[-1]} ({seconds:.0f} s CPU)", flush=True)
    print(format_table(found, "test accuracy in %", columns=COLUMNS))


if __name__ == "__main__":
    main()
