"""Which neighbors a sample gets."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from nsl.data import Graph, Sampling
from nsl.data.sampling import choose_neighbors


def _choose(
    graph: Graph, rows: Any, count: int, sampling: Sampling, seed: int = 0
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    neighbors, weights = choose_neighbors(
        tf.constant(graph.row_splits),
        tf.constant(graph.targets),
        tf.constant(graph.weights),
        tf.constant(rows, tf.int32),
        count,
        sampling,
        tf.constant([seed, 1], tf.int64),
    )
    return neighbors.numpy(), weights.numpy()


@pytest.fixture
def graph() -> Graph:
    return Graph(
        {0: {1: 1.0, 2: 3.0, 3: 2.0, 4: 6.0}, 1: {0: 0.5}, 3: {4: 4.0, 0: 1.0}},
        ids=range(5),
    )


def test_the_heaviest(graph: Graph) -> None:
    neighbors, weights = _choose(graph, [[0], [1], [2], [3]], 3, Sampling.TOP)
    assert neighbors[..., 0].tolist() == [[4, 2, 3], [0, 1, 1], [2, 2, 2], [4, 0, 3]]
    assert weights.tolist() == [[6, 3, 2], [0.5, 0, 0], [0, 0, 0], [4, 1, 0]]


@pytest.mark.parametrize("sampling", Sampling.all())
@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_no_neighbor_comes_twice_and_none_is_left_out(
    graph: Graph, sampling: Sampling, count: int
) -> None:
    rows = [[3], [0], [2], [0], [1]]
    edges = [
        dict(zip(graph.targets[a:b].tolist(), graph.weights[a:b], strict=True))
        for a, b in zip(graph.row_splits[:-1], graph.row_splits[1:], strict=True)
    ]
    for seed in range(5):
        neighbors, weights = _choose(graph, rows, count, sampling, seed)
        for (row,), found, weight in zip(rows, neighbors, weights, strict=True):
            there = min(count, len(edges[row]))
            chosen = found[:there, 0].tolist()
            assert len(set(chosen)) == there
            assert [edges[row][node] for node in chosen] == weight[:there].tolist()
            assert (found[there:] == row).all()
            assert (weight[there:] == 0).all()


@pytest.mark.parametrize(
    ("sampling", "first"),
    [
        (Sampling.UNIFORM, [0.25, 0.25, 0.25, 0.25]),
        (Sampling.WEIGHTED, [1 / 12, 3 / 12, 2 / 12, 6 / 12]),
    ],
)
def test_the_chances(graph: Graph, sampling: Sampling, first: list[float]) -> None:
    draws = 20_000
    neighbors, _ = _choose(graph, [[0]] * draws, 2, sampling)
    found = neighbors[:, :, 0]
    np.testing.assert_allclose(
        np.bincount(found[:, 0], minlength=5)[1:] / draws, first, atol=0.015
    )
    # Of the three that are left, the second is drawn by the same rule.
    second = np.array(first)[[0, 1, 2]]
    after_4 = found[found[:, 0] == 4, 1]
    np.testing.assert_allclose(
        np.bincount(after_4, minlength=5)[1:4] / len(after_4),
        second / second.sum(),
        atol=0.025,
    )


def test_edges_of_weight_0_are_drawn_last() -> None:
    graph = Graph({0: {1: 0.0, 2: 1e-30, 3: 0.0}}, ids=range(4))
    neighbors, weights = _choose(graph, [[0]] * 200, 2, Sampling.WEIGHTED)
    assert (neighbors[:, 0, 0] == 2).all()
    assert (weights[:, 1] == 0).all()


@pytest.mark.parametrize("count", [32, 33])
def test_many_neighbors_are_drawn_like_few(count: int) -> None:
    """More than 32 are drawn by another algorithm."""
    graph = Graph((np.zeros(40, int), np.arange(1, 41)), ids=range(41))
    drawn = _choose(graph, [[0]] * 4000, count, Sampling.UNIFORM)[0][:, :, 0]
    assert (np.diff(np.sort(drawn), axis=1) > 0).all()
    for place in (0, 1, count - 1):
        counts = np.bincount(drawn[:, place], minlength=41)
        assert counts[0] == 0
        assert np.abs(counts[1:] - 100).max() < 50


@pytest.mark.parametrize("sampling", Sampling.all())
@pytest.mark.parametrize("count", [3, 40])
def test_degrees_of_all_sizes(sampling: Sampling, count: int) -> None:
    """Samples are grouped by similar degrees; each result keeps its place."""
    degrees = np.array([0, 1, 7, 8, 9, 12, 13, 50, 3000, 20_000])
    sources = np.repeat(np.arange(len(degrees)), degrees)
    targets = len(degrees) + np.concatenate([np.arange(degree) for degree in degrees])
    graph = Graph((sources, targets), ids=range(len(degrees) + degrees.max()))
    nodes = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 3))
    neighbors, weights = _choose(graph, nodes[:, np.newaxis], count, sampling)
    for node, found, weight in zip(nodes, neighbors[..., 0], weights, strict=True):
        there = min(count, degrees[node])
        assert weight.tolist() == [1] * there + [0] * (count - there)
        assert (found[there:] == node).all()
        drawn = found[:there] - len(degrees)
        assert len(set(drawn.tolist())) == there
        assert ((drawn >= 0) & (drawn < degrees[node])).all()


def test_chance_follows_the_seed(graph: Graph) -> None:
    rows = [[0]] * 20
    draw = [_choose(graph, rows, 2, Sampling.UNIFORM, seed)[0] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(draw[0], draw[1])
    assert (draw[0] != draw[2]).any()


def test_a_neighbor_of_a_pair_differs_at_one_end(graph: Graph) -> None:
    neighbors, weights = _choose(graph, [[0, 3], [2, 1], [2, 4]], 4, Sampling.TOP)
    assert neighbors[0].tolist() == [[4, 3], [0, 4], [2, 3], [3, 3]]
    assert weights[0].tolist() == [6, 4, 3, 2]
    assert neighbors[1].tolist() == [[2, 0], [2, 1], [2, 1], [2, 1]]
    assert weights[1].tolist() == [0.5, 0, 0, 0]
    assert (neighbors[2] == [2, 4]).all()
    assert (weights[2] == 0).all()


def test_pairs_choose_among_the_neighbors_of_both(graph: Graph) -> None:
    draws = 12_000
    neighbors, _ = _choose(graph, [[0, 3]] * draws, 1, Sampling.UNIFORM)
    pairs, counts = np.unique(neighbors[:, 0], axis=0, return_counts=True)
    assert pairs.tolist() == [[0, 0], [0, 4], [1, 3], [2, 3], [3, 3], [4, 3]]
    np.testing.assert_allclose(counts / draws, 1 / 6, atol=0.02)


@pytest.mark.parametrize("sampling", Sampling.all())
def test_a_graph_without_edges(sampling: Sampling) -> None:
    graph = Graph(([], []), ids=range(2))
    neighbors, weights = _choose(graph, [[1], [0]], 2, sampling)
    assert neighbors[..., 0].tolist() == [[1, 1], [0, 0]]
    assert not weights.any()
