"""Batches of samples and neighbors, and models trained on them."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import nsl
from nsl.data import Graph, Sampling, neighbor_dataset

NODES, FEATURES, NEIGHBORS = 12, 3, 2
CONFIG = nsl.configs.GraphNeighborConfig(max_neighbors=NEIGHBORS)


@pytest.fixture
def graph() -> Graph:
    rng = np.random.default_rng(1)
    edges = (*rng.integers(0, NODES - 1, (2, 25)), rng.random(25))
    return Graph(edges, ids=range(NODES), undirected=True)


@pytest.fixture
def x() -> Any:
    return np.random.default_rng(2).normal(size=(NODES, FEATURES)).astype(np.float32)


@pytest.fixture
def y() -> Any:
    return np.arange(NODES) % 2


def make(graph: Graph, *arrays: Any, **options: Any) -> tf.data.Dataset:
    options = {"neighbor_config": CONFIG, "batch_size": 4, "seed": 5} | options
    return neighbor_dataset(graph, *arrays, **options)


def read(dataset: tf.data.Dataset) -> list[Any]:
    return list(dataset.as_numpy_iterator())


def packed(graph: Graph, x: Any) -> dict[str, Any]:
    """Packs the heaviest neighbors of all nodes by hand."""
    features = {"x": x}
    for i in range(NEIGHBORS):
        found, weights = x.copy(), np.zeros((len(x), 1), np.float32)
        for row in range(len(x)):
            edge = graph.row_splits[row] + i
            if edge < graph.row_splits[row + 1]:
                found[row] = x[graph.targets[edge]]
                weights[row] = graph.weights[edge]
        features[f"NL_nbr_{i}_x"] = found
        features[f"NL_nbr_{i}_weight"] = weights
    return features


def test_a_batch(graph: Graph, x: Any, y: Any) -> None:
    expected = packed(graph, x)
    batches = read(make(graph, x, y, shuffle=False, batch_size=5))
    assert [len(batch[1]) for batch in batches] == [5, 5, 2]
    for name, values in expected.items():
        found = np.concatenate([batch[0][name] for batch in batches])
        np.testing.assert_array_equal(found, values)
    assert batches[0][0].keys() == expected.keys()
    assert np.concatenate([batch[1] for batch in batches]).tolist() == y.tolist()
    assert all((batch[2] == 1).all() for batch in batches)


def test_shapes_are_static(graph: Graph, x: Any, y: Any) -> None:
    for batch_size, drop, size, steps in (
        (4, False, 4, 3),
        (5, True, 5, 2),
        (5, False, None, 3),
    ):
        dataset = make(graph, x, y, batch_size=batch_size, drop_remainder=drop)
        features, label, weight = dataset.element_spec
        assert features["x"].shape == features["NL_nbr_1_x"].shape
        assert features["x"].shape.as_list() == [size, FEATURES]
        assert features["NL_nbr_0_weight"].shape.as_list() == [size, 1]
        assert label.shape.as_list() == weight.shape.as_list() == [size]
        assert len(dataset) == len(read(dataset)) == steps


def test_each_epoch_has_its_order_and_neighbors(graph: Graph, x: Any, y: Any) -> None:
    x = np.arange(NODES)[:, np.newaxis]
    dataset = make(graph, x, sampling="uniform", batch_size=NODES)
    epochs = [read(dataset)[0] for _ in range(3)]
    orders = [epoch["x"].ravel().tolist() for epoch in epochs]
    assert [sorted(order) for order in orders] == [list(range(NODES))] * 3
    assert orders[0] != orders[1] != orders[2]
    neighbors = [
        dict(zip(order, epoch["NL_nbr_0_x"].ravel().tolist(), strict=True))
        for order, epoch in zip(orders, epochs, strict=True)
    ]
    assert neighbors[0] != neighbors[1] != neighbors[2]
    # The same seed gives the same epochs, and another seed others.
    again = make(graph, x, sampling="uniform", batch_size=NODES)
    for epoch in epochs:
        tf.nest.map_structure(np.testing.assert_array_equal, read(again)[0], epoch)
    other = read(make(graph, x, sampling="uniform", batch_size=NODES, seed=6))[0]
    assert other["x"].ravel().tolist() != orders[0]
    repeated = read(make(graph, x, sampling="uniform", batch_size=NODES).repeat(2))
    assert repeated[0]["x"].tolist() != repeated[1]["x"].tolist()


def test_without_a_seed_keras_gives_it(graph: Graph, x: Any) -> None:
    runs = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        runs.append(read(make(graph, x, seed=None))[0]["x"].tolist())
    assert runs[0] == runs[1] != runs[2]


def test_unlabeled_samples_keep_their_label_to_themselves(graph: Graph, x: Any) -> None:
    labels = {"a": np.full(NODES, -1), "b": np.full((NODES, 2), np.nan)}
    is_labeled = np.arange(NODES) < 3
    labels["a"][:3], labels["b"][:3] = 7, 0.5
    options = {"shuffle": False, "batch_size": NODES}
    for weight in (is_labeled, is_labeled[:, np.newaxis].astype(int)):
        _, found, weights = read(make(graph, x, labels, weight, **options))[0]
        assert found["a"].tolist() == [7] * 3 + [0] * 9
        assert found["b"].tolist() == [[0.5, 0.5]] * 3 + [[0, 0]] * 9
        assert weights.tolist() == is_labeled.tolist()
    assert (labels["a"][3:] == -1).all()


def test_chosen_samples_with_string_ids(x: Any) -> None:
    graph = Graph({"b": {"a": 2.0}, "é": {"b": 3.0}}, ids=["b", "é", "a"])
    (batch,) = read(
        make(graph, x[:3], [5, 6], sample_ids=["é", "b"], shuffle=False, batch_size=2)
    )
    np.testing.assert_array_equal(batch[0]["x"], x[[1, 0]])
    np.testing.assert_array_equal(batch[0]["NL_nbr_0_x"], x[[0, 2]])
    assert batch[0]["NL_nbr_0_weight"].tolist() == [[3], [2]]
    assert batch[0]["NL_nbr_1_weight"].tolist() == [[0], [0]]
    assert batch[1].tolist() == [5, 6]


@pytest.mark.parametrize("sampling", ["top", "uniform", "weighted"])
def test_no_sample_is_its_own_neighbor(x: Any, sampling: str) -> None:
    edges = {i: {(i + 1) % NODES: 1.0, (i + 2) % NODES: 0.5} for i in range(NODES)}
    with_self = {i: {i: 9.0, **row} for i, row in edges.items()}
    for samples in (None, [[0, 1], [2, 2]]):
        options = {"sampling": sampling, "sample_ids": samples, "batch_size": 2}
        found, expected = (
            read(make(Graph(graph), x, **options)) for graph in (with_self, edges)
        )
        tf.nest.map_structure(np.testing.assert_array_equal, found, expected)


def test_pairs(x: Any) -> None:
    graph = Graph({0: {1: 2.0}, 2: {3: 3.0}}, ids=range(4))
    (batch,) = read(make(graph, x[:4], sample_ids=[[0, 2]], batch_size=1))
    np.testing.assert_array_equal(batch["x"], x[[[0, 2]]])
    np.testing.assert_array_equal(batch["NL_nbr_0_x"], x[[[0, 3]]])
    np.testing.assert_array_equal(batch["NL_nbr_1_x"], x[[[1, 2]]])
    assert batch["NL_nbr_1_weight"].tolist() == [[2]]


def test_several_features_some_of_them_on_the_disk(
    graph: Graph, x: Any, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", x)
    features = {
        "mapped": np.load(tmp_path / "x.npy", mmap_mode="r"),
        "text": [f"node {i}" for i in range(NODES)],
    }
    config = nsl.configs.GraphNeighborConfig("N", "/w", max_neighbors=1)
    options = {"neighbor_config": config, "shuffle": False, "batch_size": NODES}
    (batch,) = read(make(graph, features, **options))
    assert batch.keys() == {"mapped", "text", "N0_mapped", "N0_text", "N0/w"}
    np.testing.assert_array_equal(batch["N0_mapped"], packed(graph, x)["NL_nbr_0_x"])
    assert batch["text"][3] == b"node 3"


@pytest.mark.parametrize(("batch_size", "jit_compile"), [(4, True), (5, False)])
def test_training_equals_that_on_neighbors_packed_by_hand(
    graph: Graph, x: Any, y: Any, batch_size: int, jit_compile: bool
) -> None:
    is_labeled = (np.arange(NODES) % 3 == 0).astype(np.float32)

    def train(*data: Any, **options: Any) -> tuple[list[Any], Any]:
        keras.utils.set_random_seed(4)
        base = keras.Sequential([keras.Input((FEATURES,), name="x")])
        base.add(keras.layers.Dense(4, "tanh"))
        base.add(keras.layers.Dense(2))
        config = nsl.configs.make_graph_reg_config(
            max_neighbors=NEIGHBORS, multiplier=0.5
        )
        model = nsl.keras.GraphRegularization(base, config)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.5), loss, jit_compile=jit_compile)
        history = model.fit(*data, epochs=3, verbose=0, shuffle=False, **options)
        return base.get_weights(), history.history

    dataset = make(graph, x, y, is_labeled, shuffle=False, batch_size=batch_size)
    weights, history = train(dataset)
    by_hand, history_by_hand = train(
        packed(graph, x), y, sample_weight=is_labeled, batch_size=batch_size
    )
    for ours, theirs in zip(weights, by_hand, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert min(history["scaled_graph_loss"]) > 0
    for name, values in history.items():
        np.testing.assert_allclose(values, history_by_hand[name], rtol=1e-5)


def test_several_replicas_share_a_batch(graph: Graph, x: Any) -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    labels = np.arange(NODES)
    dataset = make(graph, x, labels, shuffle=False, batch_size=4)
    parts = [
        [part.numpy().tolist() for part in strategy.experimental_local_results(label)]
        for _, label, _ in strategy.experimental_distribute_dataset(dataset)
    ]
    assert parts == [[[a, a + 1], [a + 2, a + 3]] for a in (0, 4, 8)]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"graph": {0: {1: 1.0}}}, TypeError, "graph must be a Graph.*dict"),
        ({"neighbor_config": 3}, TypeError, "must be a GraphNeighborConfig.*int"),
        (
            {"neighbor_config": nsl.configs.GraphNeighborConfig()},
            ValueError,
            "max_neighbors must be at least 1.*is 0",
        ),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, but is 0"),
        ({"batch_size": 2.0}, TypeError, "batch_size must be an integer"),
        ({"sampling": "best"}, ValueError, "'best' is not a valid Sampling"),
        ({"features": np.ones((3, 2))}, ValueError, r"12 nodes.*\(3, 2\).*ids of all"),
        ({"features": {}}, ValueError, "features must not be an empty"),
        ({"features": {3: np.ones(12)}}, TypeError, "name of a feature"),
        ({"features": {"NL_nbr_": np.ones(12)}}, ValueError, "rename it"),
        ({"features": {"weight": np.ones(12)}}, ValueError, "rename it"),
        ({"features": [None] * 12}, TypeError, "numbers or strings.*row 0 holds None"),
        ({"labels": np.ones(3)}, ValueError, r"12 samples.*\(3,\)"),
        ({"sample_weight": np.ones(3)}, ValueError, r"\(12,\).*\(3,\)"),
        ({"sample_weight": np.full(12, np.nan)}, ValueError, "finite"),
        ({"sample_weight": ["a"] * 12}, TypeError, "must be numbers"),
        (
            {"labels": None, "sample_weight": np.ones(12)},
            ValueError,
            "sample_weight needs labels",
        ),
        ({"sample_ids": [0, 12]}, ValueError, "sample_ids have ids .*: 12"),
        ({"sample_ids": ["0"]}, TypeError, "sample_ids are strings"),
        ({"sample_ids": np.ones(12, bool)}, TypeError, "bool"),
        ({"sample_ids": []}, ValueError, "no samples"),
        ({"sample_ids": [[[0]]]}, ValueError, r"\[samples, m\].*\(1, 1, 1\)"),
        (
            {"drop_remainder": True, "batch_size": 13},
            ValueError,
            "12 samples, fewer than batch_size=13",
        ),
        ({"seed": "one"}, TypeError, "seed must be an integer"),
    ],
)
def test_wrong_arguments(
    graph: Graph,
    x: Any,
    y: Any,
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    arguments = {"graph": graph, "features": x, "labels": y} | changes
    with pytest.raises(error, match=message):
        make(arguments.pop("graph"), **arguments)


def test_weighted_sampling_refuses_negative_weights(x: Any) -> None:
    graph = Graph({0: {1: -1.0}})
    with pytest.raises(ValueError, match=r"Sampling.WEIGHTED.*not negative.* -1\.0"):
        make(graph, x[:2], sampling=Sampling.WEIGHTED)
