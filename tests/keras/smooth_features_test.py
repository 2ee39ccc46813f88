"""nsl.keras.smooth_features: averages over neighborhoods, features of all kinds."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import sparse

import nsl
from nsl.keras import smooth_features as module
from nsl.keras.smooth_features import smooth_features

NODES = 7


@pytest.fixture(scope="module")
def graph() -> nsl.data.Graph:
    edges = {(0, 1): 1.0, (1, 2): 2.0, (2, 3): 0.5, (0, 3): 1.0, (4, 5): 3.0}
    sources, targets = np.array(list(edges)).T
    weights = np.array(list(edges.values()))
    return nsl.data.Graph(
        (sources, targets, weights), ids=range(NODES), undirected=True
    )


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).random((NODES, 600)).astype(np.float32)


@pytest.mark.parametrize("hops", [1, 2])
def test_rows_are_those_of_a_graph_convolution(
    hops: int, graph: nsl.data.Graph, x: np.ndarray
) -> None:
    matrix = np.eye(NODES)
    np.add.at(matrix, (graph.sources, graph.targets), graph.weights)
    root = np.sqrt(matrix.sum(axis=1))
    normalized = matrix / root / root[:, np.newaxis]
    expected = np.linalg.matrix_power(normalized, hops) @ x
    found = smooth_features(x, graph, hops)
    assert found.dtype == np.float32

    def directions(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    np.testing.assert_allclose(directions(found), directions(expected), rtol=1e-4)
    lengths = [np.linalg.norm(rows, axis=1).mean() for rows in (x, found)]
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-5)


def test_constant_features_stay(graph: nsl.data.Graph) -> None:
    ages = np.full(NODES, 30, np.float64)
    np.testing.assert_allclose(smooth_features(ages, graph, 2), ages, rtol=1e-5)
    assert not smooth_features(np.zeros((NODES, 3)), graph, 1).any()


def test_structures_and_sparse_features(graph: nsl.data.Graph, x: np.ndarray) -> None:
    expected = smooth_features(x, graph, 1)
    places = np.arange(NODES)
    found = smooth_features({"words": sparse.csr_matrix(x), "place": places}, graph, 1)
    assert found["place"] is places
    np.testing.assert_allclose(found["words"], expected, rtol=1e-6)
    images, ragged = x.reshape(NODES, 20, 30), tf.ragged.constant([[1.0]] * NODES)
    found = smooth_features((tf.sparse.from_dense(images), ragged), graph, 1)
    assert found[1] is ragged
    np.testing.assert_allclose(found[0].reshape(x.shape), expected, rtol=1e-6)


def test_nothing_to_average(
    graph: nsl.data.Graph, x: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        smooth_features([np.arange(NODES), np.array(["a"] * NODES)], graph, 1) is None
    )
    monkeypatch.setattr(module, "_MOST_VALUES", x.size - 1)
    assert smooth_features(x, graph, 1) is None
