"""nsl.data.propagate and the walks whose ends it is the mean over."""

import numpy as np
import pytest
import tensorflow as tf

import nsl
from nsl.data import propagation
from nsl.data.walks import Walks, teleport_of_size


def random_graph(nodes: int = 12, seed: int = 0) -> nsl.data.Graph:
    rng = np.random.default_rng(seed)
    edges = rng.integers(0, nodes - 1, (2, 2 * nodes))  # The last one has none.
    weights = rng.uniform(0.2, 2, 2 * nodes)
    return nsl.data.Graph((*edges, weights), ids=range(nodes))


def steps_of(graph: nsl.data.Graph) -> np.ndarray:
    matrix = np.eye(graph.num_nodes)
    for row, (first, last) in enumerate(
        zip(graph.row_splits[:-1], graph.row_splits[1:], strict=True)
    ):
        matrix[row, graph.targets[first:last]] += graph.weights[first:last]
    return matrix / matrix.sum(axis=1, keepdims=True)


def expected(graph: nsl.data.Graph, teleport: float, hops: int) -> np.ndarray:
    steps, powers = steps_of(graph), np.eye(graph.num_nodes)
    total = np.zeros_like(powers)
    for _ in range(hops):
        total += teleport * powers
        powers = (1 - teleport) * powers @ steps
    return total + powers


@pytest.mark.parametrize(("teleport", "hops"), [(0.1, 10), (0.5, 2), (0.0, 1)])
def test_values_are_means_over_walks(teleport: float, hops: int) -> None:
    graph = random_graph()
    values = np.random.default_rng(1).normal(size=(12, 3))
    found = nsl.data.propagate(graph, values, teleport=teleport, hops=hops)
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found, expected(graph, teleport, hops) @ values, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(found[-1], values[-1], rtol=1e-6)


def test_with_a_teleport_of_one_nothing_is_mixed() -> None:
    values = np.arange(12.0).reshape(12, 1)
    found = nsl.data.propagate(random_graph(), values, teleport=1)
    np.testing.assert_array_equal(found, values)


def test_many_hops_solve_the_linear_system() -> None:
    graph, teleport = random_graph(), 0.3
    values = np.eye(12)
    inverse = np.linalg.inv(np.eye(12) - (1 - teleport) * steps_of(graph))
    found = nsl.data.propagate(graph, values, teleport=teleport, hops=80)
    np.testing.assert_allclose(found, teleport * inverse, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_blocks_of_edges_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, values = random_graph(40), np.random.default_rng(0).normal(size=(40, 2))
    whole = nsl.data.propagate(graph, values)
    monkeypatch.setattr(propagation, "_BLOCK_EDGES", 5)
    np.testing.assert_array_equal(nsl.data.propagate(graph, values), whole)


def test_weights_that_differ_by_direction_give_rows_that_sum_to_one() -> None:
    # The matrix A + I of scikit-learn#31872, which is not symmetric.
    edges = [0, 1, 1, 2], [1, 0, 2, 1], [1.0, 2.0, 1.0, 0.25]
    graph = nsl.data.Graph(edges, ids=range(3))
    found = nsl.data.propagate(graph, np.eye(3), teleport=0, hops=1)
    np.testing.assert_allclose(
        found, [[0.5, 0.5, 0], [0.5, 0.25, 0.25], [0, 0.2, 0.8]], rtol=1e-6
    )


def test_numbers_that_underflow_are_no_error() -> None:
    values = np.full((12, 2), 1e-38, np.float32)
    with np.errstate(all="raise"):
        found = nsl.data.propagate(random_graph(), values, teleport=1e-5, hops=40)
    assert np.isfinite(found).all()


def test_a_graph_without_edges_keeps_values() -> None:
    values = np.ones((3, 2))
    graph = nsl.data.Graph({}, ids=range(3))
    np.testing.assert_allclose(nsl.data.propagate(graph, values), values, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"values": np.ones((5, 2))}, ValueError, r"\[12, columns\].*\(5, 2\)"),
        ({"values": np.ones(12)}, ValueError, r"\(12,\)"),
        ({"values": np.full((12, 1), "a")}, TypeError, "must be numbers"),
        ({"teleport": 1.5}, ValueError, "teleport must be in .*1.5"),
        ({"hops": 0}, ValueError, "hops must be at least 1"),
        ({"hops": 2.5}, TypeError, "hops must be an integer"),
        (
            {"graph": nsl.data.Graph(([0], [1], [-1.0]), ids=range(12))},
            ValueError,
            "negative.*-1",
        ),
    ],
)
def test_wrong_arguments_are_named(changes: dict, error: type, message: str) -> None:
    arguments = {"graph": random_graph(), "values": np.ones((12, 2))} | changes
    graph, values = arguments.pop("graph"), arguments.pop("values")
    with pytest.raises(error, match=message):
        nsl.data.propagate(graph, values, **arguments)


class TestWalks:
    def test_ends_are_drawn_from_what_propagation_computes(self) -> None:
        graph, count = random_graph(), 40_000
        starts = tf.repeat(tf.constant([0, 3, 11]), count)
        ends = Walks(graph, 0.2, 4).ends(starts, tf.constant([1, 2], tf.int64))
        shares = np.stack(
            [np.bincount(row, minlength=12) for row in ends.numpy().reshape(3, -1)]
        )
        wanted = nsl.data.propagate(graph, np.eye(12), teleport=0.2, hops=4)
        # Five standard errors of a share.
        np.testing.assert_allclose(
            shares / count, wanted[[0, 3, 11]], atol=5 * 0.5 / np.sqrt(count)
        )

    def test_the_seed_decides(self) -> None:
        walks, starts = Walks(random_graph(), 0.1, 5), tf.range(12)
        first, again, other = (
            walks.ends(starts, tf.constant([seed, 0], tf.int64)).numpy()
            for seed in (0, 0, 1)
        )
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()

    def test_negative_weights_are_refused(self) -> None:
        graph = nsl.data.Graph(([0], [1], [-1.0]), ids=range(2))
        with pytest.raises(ValueError, match=r"negative.*-1"):
            Walks(graph, 0.1, 2)

    def test_walks_in_a_dense_graph_stop_sooner(self) -> None:
        ring = np.arange(300)
        sparse = nsl.data.Graph((ring, (ring + 1) % 300), undirected=True)
        far = [(ring + step) % 300 for step in range(1, 40)]
        edges = np.tile(ring, 39), np.concatenate(far)
        dense = nsl.data.Graph(edges, undirected=True)
        assert teleport_of_size(sparse, 10) == 0.1
        assert 0.2 < teleport_of_size(dense, 10) < 0.9
        assert teleport_of_size(nsl.data.Graph({}, ids=range(3)), 10) == 0.1
