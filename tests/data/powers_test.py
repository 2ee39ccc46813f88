"""Powers of the normalized adjacency matrix."""

from typing import Any

import numpy as np
import pytest

from nsl.data import Graph, powers


def _dense(graph: Graph) -> np.ndarray[Any, Any]:
    result = np.zeros((graph.num_nodes, graph.num_nodes))
    result[graph.sources, graph.targets] = graph.weights
    return result


@pytest.fixture
def graph() -> Graph:
    rng = np.random.default_rng(3)
    edges = (*rng.integers(0, 18, (2, 40)), rng.random(40))
    return Graph(edges, ids=range(20), undirected=True)


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_the_power_is_that_of_the_matrix(
    graph: Graph, hops: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loops = _dense(graph) + np.eye(20)
    scale = np.diag(loops.sum(1) ** -0.5)
    expected = np.linalg.matrix_power(scale @ loops @ scale, hops)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(_dense(graph.power(hops)), expected, rtol=1e-5)
    # In many blocks just as in one.
    monkeypatch.setattr(powers, "_BLOCK_WALKS", 30)
    np.testing.assert_allclose(_dense(graph.power(hops)), expected, rtol=1e-5)


def test_the_heaviest_neighbors_are_kept(graph: Graph) -> None:
    whole, some = graph.power(2), graph.power(2, max_neighbors=3)
    for row in range(20):
        start, end = whole.row_splits[row : row + 2]
        kept = slice(*some.row_splits[row : row + 2])
        assert some.targets[kept].tolist() == whole.targets[start:end][:3].tolist()
        weights = whole.weights[start:end]
        assert (np.diff(weights) <= 0).all()
        assert some.weights[kept].tolist() == weights[:3].tolist()


def test_wrong_arguments(graph: Graph) -> None:
    with pytest.raises(ValueError, match="hops must be at least 1, but is 0"):
        graph.power(0)
    with pytest.raises(TypeError, match=r"hops must be an integer, but is 1\.5"):
        graph.power(1.5)
    with pytest.raises(ValueError, match="max_neighbors must be at least 1"):
        graph.power(2, max_neighbors=0)
    with pytest.raises(ValueError, match=r"not negative, but the smallest is -1\.0"):
        Graph(([0], [1], [-1.0])).power(2)
