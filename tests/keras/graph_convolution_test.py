"""nsl.keras.graph_convolution: a graph network on features of all kinds."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from scipy import sparse

import nsl
from nsl.keras import graph_convolution as module
from nsl.keras.graph_convolution import graph_convolution
from nsl.keras.node_labels import NodeLabels

NODES, CLASSES = 60, 3


@pytest.fixture(scope="module")
def y() -> np.ndarray:
    return np.arange(NODES) % CLASSES


@pytest.fixture(scope="module")
def graph(y: np.ndarray) -> nsl.data.Graph:
    rng = np.random.default_rng(0)
    sources, targets = rng.integers(NODES, size=(2, 600))
    same = y[sources] == y[targets]
    return nsl.data.Graph((sources[same], targets[same]), ids=range(NODES))


@pytest.fixture(scope="module")
def labels(y: np.ndarray) -> NodeLabels:
    return NodeLabels.of(y, np.arange(NODES) < 6, None, NODES, CLASSES)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    """Features that say nothing but who is who."""
    x = np.random.default_rng(1).normal(size=(NODES, 40))
    return np.where(x > 0.5, x, 0).astype(np.float32)


@pytest.fixture(scope="module")
def found(
    x: np.ndarray, graph: nsl.data.Graph, labels: NodeLabels
) -> np.ndarray | None:
    return graph_convolution(x, graph, labels, seed=0)


def test_classes_are_learned_from_the_graph(found: np.ndarray, y: np.ndarray) -> None:
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, rtol=1e-5)
    assert np.mean(found.argmax(axis=1) == y) > 0.9


@pytest.mark.parametrize(
    "form",
    [
        sparse.csr_matrix,
        lambda x: tf.sparse.from_dense(x),
        lambda x: {"left": x[:, :30].reshape(NODES, 5, 6), "right": x[:, 30:]},
        lambda x: (x.astype(np.float64), np.arange(NODES)),
    ],
    ids=["scipy", "sparse", "dict", "integers"],
)
def test_features_of_all_kinds(
    form: Any,
    x: np.ndarray,
    graph: nsl.data.Graph,
    labels: NodeLabels,
    found: np.ndarray,
) -> None:
    same = graph_convolution(form(x), graph, labels, seed=0)
    np.testing.assert_allclose(same, found, atol=1e-3)


def test_the_adjacency_matrix_is_normalized(graph: nsl.data.Graph) -> None:
    matrix = np.eye(NODES)
    np.add.at(matrix, (graph.sources, graph.targets), graph.weights)
    root = np.sqrt(matrix.sum(axis=1))
    np.testing.assert_allclose(
        tf.sparse.to_dense(module._normalized(graph)),
        matrix / root / root[:, np.newaxis],
        rtol=1e-5,
    )


def test_what_cannot_be_read_is_left_out(
    graph: nsl.data.Graph, labels: NodeLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert graph_convolution(np.arange(NODES), graph, labels, seed=0) is None
    ragged = tf.ragged.constant([[1.0]] * NODES)
    assert graph_convolution(ragged, graph, labels, seed=0) is None
    rare, ones = np.eye(NODES, dtype=np.float32), np.ones((NODES, 1), np.float32)
    assert isinstance(module._concatenated(rare), tf.SparseTensor)
    assert isinstance(module._concatenated(ones), tf.Tensor)
    for name in "_MOST_EDGES", "_MOST_SPARSE":
        with monkeypatch.context() as patch:
            patch.setattr(module, name, NODES - 1)
            assert graph_convolution(rare, graph, labels, seed=0) is None
    monkeypatch.setattr(module, "_MOST_DENSE", NODES - 1)
    assert isinstance(module._concatenated(ones), tf.SparseTensor)
