"""Tests of `nsl.tools.neighbor_lists`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

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
    ("ids", "indices", "similarities", "message"),
    [
        (["a", "b"], [[1]], [[1.0]], "one row for each id"),
        (["a", "b"], [[1], [0]], [[1.0]], "must have the shape of indices"),
        (["a", "b"], [[1.0], [0.0]], [[1.0], [1.0]], "must be integers"),
        (["a", "b"], [[1], [2]], [[1.0], [1.0]], "from 0 to 1"),
        (["a", "b"], [[1], [-2]], [[1.0], [1.0]], "from -2"),
        (["a", "b"], [[1], [0]], [[1.0], [np.nan]], "must be finite"),
        (["a", "a"], [[1], [0]], [[1.0], [1.0]], "one stands twice"),
        (["a", ""], [[1], [0]], [[1.0], [1.0]], "empty"),
        (["a", "b\n"], [[1], [0]], [[1.0], [1.0]], "line break"),
    ],
)
def test_refuses(
    ids: list[str], indices: Any, similarities: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        write_neighbors(ids, indices, similarities, tmp_path / "g")
    assert list(tmp_path.iterdir()) == []
