"""Batches divided among workers: each sample once an epoch, all workers in step."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import nsl
from nsl.data import Graph, neighbor_dataset
from nsl.data.batch_part import BatchPart

NODES = 11
CONFIG = nsl.configs.GraphNeighborConfig(max_neighbors=2)


def context(workers: int, index: int, replicas: int) -> tf.distribute.InputContext:
    return tf.distribute.InputContext(workers, index, replicas)


def make(**options: Any) -> tf.data.Dataset:
    """Batches whose features and labels are the nodes' own numbers."""
    rng = np.random.default_rng(1)
    edges = (*rng.integers(0, NODES - 1, (2, 25)), rng.random(25))
    graph = Graph(edges, ids=range(NODES), undirected=True)
    numbers = np.arange(NODES)
    options = {"neighbor_config": CONFIG, "batch_size": 4, "seed": 5} | options
    labels = options.pop("labels", numbers)
    return neighbor_dataset(graph, numbers, labels, **options)


def read(dataset: tf.data.Dataset) -> list[Any]:
    return list(dataset.as_numpy_iterator())


def by_batch(worker_pieces: list[list[Any]], local: int) -> list[list[Any]]:
    """The pieces of each batch, in the order of the replicas."""
    batches = len(worker_pieces[0]) // local
    return [
        [piece for pieces in worker_pieces for piece in pieces[i * local :][:local]]
        for i in range(batches)
    ]


@given(
    samples=st.integers(1, 40),
    batch_size=st.integers(1, 15),
    workers=st.integers(1, 5),
    local=st.integers(1, 3),
)
def test_pieces_partition_the_epoch(
    samples: int, batch_size: int, workers: int, local: int
) -> None:
    steps = -(-samples // batch_size)
    found = {}
    for index in range(workers):
        part = BatchPart.of(context(workers, index, workers * local))
        assert part.is_whole == (workers == 1)
        indices = tf.range(steps * local, dtype=tf.int64)
        pieces = part.pieces(indices, batch_size, samples)
        for number, start, end in np.stack(pieces, axis=1).tolist():
            found[number] = start, end
    assert sorted(found) == list(range(steps * workers * local))
    ends = [0, *(found[number][1] for number in sorted(found))]
    assert ends[-1] == samples
    for number, (start, end) in found.items():
        assert start == ends[number]
        size = part.piece_size(batch_size)
        if number // (workers * local) < samples // batch_size and size:
            assert end - start == size
        assert 0 <= end - start <= -(-batch_size // (workers * local))


@pytest.mark.parametrize(
    ("workers", "local", "batch_size", "shuffle"),
    [(2, 1, 4, False), (3, 1, 5, True), (2, 2, 4, True), (1, 2, 6, False)],
)
def test_workers_make_the_batches_of_one(
    workers: int, local: int, batch_size: int, shuffle: bool
) -> None:
    options = {"shuffle": shuffle, "batch_size": batch_size}
    whole = make(**options)
    datasets = [
        make(input_context=context(workers, i, workers * local), **options)
        for i in range(workers)
    ]
    orders = []
    for _ in range(2):  # Two epochs: each iteration is another one.
        expected = read(whole)
        pieces = [read(dataset) for dataset in datasets]
        for dataset, worker_pieces in zip(datasets, pieces, strict=True):
            assert len(worker_pieces) == len(expected) * local
            if local == 1:
                assert len(dataset) == len(expected)
        batches = by_batch(pieces, local)
        # The heaviest neighbors are no draw, so that everything must agree.
        for batch, parts in zip(expected, batches, strict=True):
            joined = tf.nest.map_structure(lambda *p: np.concatenate(p), *parts)
            tf.nest.map_structure(np.testing.assert_array_equal, joined, batch)
        orders.append(np.concatenate([batch[1] for batch in expected]).tolist())
        assert sorted(orders[-1]) == list(range(NODES))
    assert (orders[0] == orders[1]) != shuffle


@pytest.mark.parametrize("sampling", ["uniform", "weighted"])
def test_workers_draw_neighbors_of_their_own(sampling: str) -> None:
    options = {"sampling": sampling, "batch_size": 8, "drop_remainder": True}
    neighbors = []
    for index in range(2):
        # The same samples for both workers, so that only chance can tell them apart.
        ids = np.tile(np.arange(4), 2)
        (batch,) = read(
            make(
                input_context=context(2, index, 2),
                sample_ids=ids,
                labels=ids,
                shuffle=False,
                **options,
            )
        )
        assert batch[1].tolist() == [0, 1, 2, 3]
        neighbors.append(batch[0]["NL_nbr_0_x"].tolist())
    assert neighbors[0] != neighbors[1]


def test_pairs() -> None:
    pairs = np.stack([np.arange(NODES), np.roll(np.arange(NODES), 1)], axis=1)
    found = [
        batch[0]["x"]
        for index in range(2)
        for batch in read(
            make(sample_ids=pairs, input_context=context(2, index, 2), batch_size=3)
        )
    ]
    assert sorted(np.concatenate(found).tolist()) == sorted(pairs.tolist())


def test_static_shapes() -> None:
    for batch_size, drop, size in ((4, True, 2), (4, False, None), (5, True, None)):
        dataset = make(
            input_context=context(2, 0, 2), batch_size=batch_size, drop_remainder=drop
        )
        _, label, _ = dataset.element_spec
        assert label.shape.as_list() == [size]


def test_a_strategy_hands_out_the_parts() -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    data = strategy.distribute_datasets_from_function(
        lambda context: make(shuffle=False, input_context=context)
    )
    parts = [
        [part.numpy().tolist() for part in strategy.experimental_local_results(label)]
        for _, label, _ in data
    ]
    assert parts == [
        [[0, 1], [2, 3]],
        [[4, 5], [6, 7]],
        [[8], [9, 10]],
    ]


def test_epochs_by_number() -> None:
    number = tf.Variable(0, dtype=tf.int64)
    counted = make(epoch=number)

    def order(dataset: tf.data.Dataset) -> list[int]:
        return np.concatenate([y for _, y, _ in read(dataset)]).tolist()

    orders = []
    for epoch in (0, 1, 2):
        number.assign(epoch)
        orders.append(order(counted))
        assert order(counted) == orders[-1] == order(make(epoch=epoch))
        # Neither counts what has been drawn elsewhere.
        tf.random.set_seed(epoch)
    assert orders[0] != orders[1] != orders[2]
    assert order(make(epoch=0, seed=6)) != orders[0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"input_context": (0, 2)}, TypeError, "InputContext.*tuple"),
        (
            {"input_context": context(2, 0, 3)},
            ValueError,
            "pipeline 0 of 2 for 3 replicas",
        ),
        (
            {"input_context": context(2, 0, 2), "seed": None},
            ValueError,
            "several workers.*needs a seed",
        ),
        ({"epoch": 1, "seed": None}, ValueError, "an epoch number.*needs a seed"),
        ({"epoch": "one"}, TypeError, "epoch must be an integer"),
    ],
)
def test_wrong_arguments(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(**options)
