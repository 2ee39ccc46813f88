"""Tests of `nsl.tools.neighbor_lists`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from sklearn.neighbors import NearestNeighbors

from nsl.data import Graph
from nsl.tools import read_tsv_graph, write_neighbors


def test_written_text(tmp_path: Path) -> None:
    indices = [[0, 1, 2], [2, -1, 0], [1, 2, -1]]
    similarities = [[1.0, 0.5, 0.25], [0.75, np.nan, 0.125], [0.5, 1.0, -np.inf]]
    count = write_neighbors(["a", "é", "c"], indices, similarities, tmp_path / "g")
    assert count == 5
    assert (tmp_path / "g").read_text() == (
        "a\té\t0.500000\na\tc\t0.250000\né\tc\t0.750000\né\ta\t0.125000\nc\té\t0.500000\n"
    )


def test_from_scikit_learn(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((5000, 3))
    distances, indices = (
        NearestNeighbors(n_neighbors=3, metric="cosine").fit(vectors).kneighbors()
    )
    ids = [f"n{i}" for i in range(5000)]
    write_neighbors(ids, indices, 1 - distances, tmp_path / "g")
    graph = read_tsv_graph(tmp_path / "g")
    assert list(graph) == ids
    assert list(graph["n4711"]) == [ids[i] for i in indices[4711]]


@pytest.mark.parametrize(
    "ids",
    [
        range(3),
        np.arange(3),
        ["0", "1", "2"],
        [b"0", b"1", b"2"],
        np.array(list("012")),
    ],
)
def test_ids_are_those_that_a_graph_takes(ids: Any, tmp_path: Path) -> None:
    assert write_neighbors(ids, [[1], [2], [0]], [[1], [2], [3]], tmp_path / "g") == 3
    edges = {("0", "1"): 1.0, ("1", "2"): 2.0, ("2", "0"): 3.0}
    read = read_tsv_graph(tmp_path / "g")
    assert {(a, b): w for a, row in read.items() for b, w in row.items()} == edges
    assert Graph(tmp_path / "g", ids=ids).num_edges == 3


def rows_of_unequal_lengths() -> list[Any]:
    rows, values = [[1, 2], [], [0]], [[0.5, 0.25], [], [1.0]]
    arrays, array_values = np.empty(3, object), np.empty(3, object)
    for i in range(3):
        arrays[i], array_values[i] = np.array(rows[i], np.int64), np.array(values[i])
    return [
        (rows, values),
        (list(map(tuple, rows)), values),
        (arrays, array_values),
        (list(arrays), list(array_values)),
        (tf.ragged.constant(rows), tf.ragged.constant(values)),
    ]


@pytest.mark.parametrize(("indices", "similarities"), rows_of_unequal_lengths())
def test_rows_of_unequal_lengths(
    indices: Any, similarities: Any, tmp_path: Path
) -> None:
    assert write_neighbors(list("abc"), indices, similarities, tmp_path / "g") == 3
    text = "a\tb\t0.500000\na\tc\t0.250000\nc\ta\t1.000000\n"
    assert (tmp_path / "g").read_text() == text


def test_all_within_a_radius(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((50, 2))
    index = NearestNeighbors(radius=0.5).fit(vectors)
    distances, indices = index.radius_neighbors(vectors)
    similarities = [np.exp(-row) for row in distances]
    count = write_neighbors(range(50), indices, similarities, tmp_path / "g")
    assert count == index.radius_neighbors_graph().nnz
    # Written and read, no node is its own neighbor.
    assert Graph(tmp_path / "g", ids=range(50)).num_edges == count


@pytest.mark.parametrize(
    ("ids", "indices", "similarities", "message"),
    [
        (["a", "b"], [[1]], [[1.0]], "one row for each id"),
        (["a", "b"], [[1], [0]], [[1.0]], "similarities must have one row for each id"),
        (
            list("ab"),
            [[1], []],
            [[1.0], [1.0]],
            "shape of indices, but row 1 has 1 .* for 0",
        ),
        (
            list("ab"),
            [[1], 0],
            [[1.0], [1.0]],
            r"row 1 of indices must be one-dimensional.*\(\)",
        ),
        (
            list("ab"),
            [[1], [[0], 1]],
            [[1.0], [1.0]],
            "row 1 of indices must be one-dimensional",
        ),
        (
            list("ab"),
            [[], [None]],
            [[], [1.0]],
            "row 1 of indices must be integers.*object",
        ),
        (
            list("ab"),
            [[1], [0]],
            [[1.0], ["x"]],
            "row 1 of similarities must be numbers",
        ),
        (list("ab"), 3, 4, "indices must have one row for each id, but are .*3"),
        ([["a", "b"]], [[0]], [[1.0]], "ids must have shape .*, but have"),
        (["a", "b"], [[1.0], [0.0]], [[1.0], [1.0]], "must be integers"),
        (["a", "b"], [[1], [2]], [[1.0], [1.0]], "from 0 to 1.*row 1 has 2"),
        (["a", "b"], [[1], [-2]], [[1.0], [1.0]], "row 1 has -2"),
        (["a", "b"], [[1], [0]], [[1.0], [np.nan]], "must be finite.*row 1 has nan"),
        (
            ["a", "a"],
            [[1], [0]],
            [[1.0], [1.0]],
            "'a' is duplicated: in row 0 and in row 1",
        ),
        (["a", ""], [[1], [0]], [[1.0], [1.0]], "empty"),
        (["a", "b\n"], [[1], [0]], [[1.0], [1.0]], "line break"),
    ],
)
def test_refuses(
    ids: Any, indices: Any, similarities: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        write_neighbors(ids, indices, similarities, tmp_path / "g")
    assert list(tmp_path.iterdir()) == []
