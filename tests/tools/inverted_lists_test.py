"""Inverted lists find what comparing all pairs finds, or tell how much of it."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_graph_test import cosines, grouped_vectors, read_edges, write_vectors
from hypothesis import given
from hypothesis import strategies as st

from nsl.configs import GraphBuilderConfig
from nsl.tools import build_graph
from nsl.tools.build_graph import main
from nsl.tools.embeddings import Embeddings
from nsl.tools.inverted_lists import InvertedLists
from nsl.tools.nearest_neighbors import sample_pairs

# The function of the same name hides the module.
PROGRAM = sys.modules["nsl.tools.build_graph"]
ALL = {"index": "ivf", "recall": 1.0, "random_seed": 0}


def built(folder: Path, vectors: np.ndarray, **settings: Any) -> tuple[Any, Any]:
    embeddings = write_vectors(folder / "e.tfr", vectors)
    report = build_graph([embeddings], folder / "graph.tsv", **settings)
    return report, read_edges(folder / "graph.tsv")


@pytest.mark.parametrize(
    "settings",
    [
        {"num_neighbors": 5, "similarity_threshold": -1.0},
        {"num_neighbors": 5, "similarity_threshold": 0.6},
        {"num_neighbors": 5, "similarity_threshold": 0.2, "mutual": True},
        {"similarity_threshold": 0.7},
    ],
    ids=str,
)
def test_the_graph_is_that_of_all_pairs(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    vectors = grouped_vectors(400, 16)
    exact_report, exact = built(tmp_path, vectors, **settings)
    report, edges = built(tmp_path, vectors, **settings, **ALL)
    assert report.pop("estimated_recall") == 1.0
    assert report == exact_report
    assert sorted(edges) == sorted(exact)


@given(seed=st.integers(0, 1000), nodes=st.integers(2, 60), k=st.integers(1, 5))
def test_neighbors_of_small_sets(seed: int, nodes: int, k: int) -> None:
    random = np.random.default_rng(seed)
    # Some are equal, and some are zero.
    vectors = random.integers(-1, 2, (nodes, 3)).astype(np.float32)
    embeddings = Embeddings([b"%d" % i for i in range(nodes)], vectors)
    lists = InvertedLists(embeddings, seed)
    lists.tune(sample_pairs(embeddings, nodes, -1.0, k), 1.0, k)
    pairs = lists.nearest_pairs(-1.0, k)
    similarities = cosines(vectors)
    np.fill_diagonal(similarities, -np.inf)
    count = min(k, nodes - 1)
    best = -np.sort(-similarities, axis=1)[:, :count]
    assert np.all(np.bincount(pairs.sources, minlength=nodes) <= count)
    if lists.share == 1.0:
        np.testing.assert_allclose(
            pairs.similarities.reshape(nodes, count), best, atol=1e-12
        )


def test_searches_as_few_lists_as_the_recall_needs() -> None:
    vectors = grouped_vectors(4000, 16)
    embeddings = Embeddings([b"%d" % i for i in range(4000)], vectors)
    sample = sample_pairs(embeddings, 500, -1.0, 4)
    lists = InvertedLists(embeddings, 0)
    shares, found = [], []
    for recall in (0.5, 0.9, 0.99):
        found.append(lists.tune(sample, recall, 4))
        shares.append(lists.share)
    assert shares == sorted(shares)
    assert shares[-1] < 1.0
    assert found[-1] > 0.95
    pairs = lists.nearest_pairs(-1.0, 4)
    exact = sample_pairs(embeddings, 4000, -1.0, 4)
    both = set(zip(pairs.sources.tolist(), pairs.targets.tolist(), strict=True))
    both &= set(zip(exact.sources.tolist(), exact.targets.tolist(), strict=True))
    # The estimate is of a sample: four standard errors.
    assert abs(len(both) / len(exact.sources) - found[-1]) < 0.03


def test_a_seed_gives_the_same_graph(tmp_path: Path) -> None:
    settings = {"num_neighbors": 3, "similarity_threshold": -1.0}
    vectors = grouped_vectors(300, 8)
    first = built(tmp_path, vectors, index="ivf", random_seed=3, **settings)
    assert built(tmp_path, vectors, index="ivf", random_seed=3, **settings) == first


def test_auto_compares_all_pairs_of_few(tmp_path: Path) -> None:
    settings = {"num_neighbors": 3, "similarity_threshold": -1.0}
    vectors = grouped_vectors(100, 8)
    report, edges = built(tmp_path, vectors, index="auto", **settings)
    assert "estimated_recall" not in report
    assert built(tmp_path, vectors, **settings)[1] == edges


def test_auto_of_many_searches_lists_unless_it_would_be_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PROGRAM, "_AS_QUICK_NODES", 100)
    settings = {"num_neighbors": 3, "similarity_threshold": -1.0, "random_seed": 0}
    vectors = grouped_vectors(1000, 8)
    assert "estimated_recall" in built(tmp_path, vectors, index="auto", **settings)[0]
    noise = np.random.default_rng(0).normal(size=(1000, 64)).astype(np.float32)
    report, edges = built(tmp_path, noise, index="auto", **settings)
    assert "estimated_recall" not in report
    assert edges == built(tmp_path, noise, **settings)[1]


class TestWithoutFaiss:
    @pytest.fixture(autouse=True)
    def _hide(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "faiss", None)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    def test_ivf_says_what_to_install_and_leaves_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ImportError, match=r"nsl\[ann\].*index='exact'"):
            built(tmp_path, grouped_vectors(20, 4), index="ivf", num_neighbors=2)
        assert not (tmp_path / "graph.tsv").exists()

    def test_auto_compares_all_pairs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(PROGRAM, "_AS_QUICK_NODES", 10)
        report, _ = built(
            tmp_path, grouped_vectors(20, 4), index="auto", num_neighbors=2
        )
        assert "estimated_recall" not in report


def test_hashing_and_an_index_are_not_both_taken() -> None:
    with pytest.raises(ValueError, match="lsh_splits=2 selects hashing"):
        GraphBuilderConfig(lsh_splits=2, index="ivf")


def test_from_the_shell(tmp_path: Path) -> None:
    embeddings = write_vectors(tmp_path / "e.tfr", grouped_vectors(100, 8))
    flags = ["--num_neighbors=3", "--index=ivf", "--recall=1.0", "--random_seed=1"]
    graph = tmp_path / "graph.tsv"
    assert main([*flags, embeddings, str(graph)]) == 0
    by_flags = sorted(read_edges(graph))
    build_graph([embeddings], graph, num_neighbors=3)
    assert sorted(read_edges(graph)) == by_flags
