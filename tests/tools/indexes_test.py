"""Every index finds what comparing all pairs finds, or tells how much of it."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsl.configs import GraphBuilderConfig
from nsl.tools import build_graph, indexes
from nsl.tools.build_graph import main
from nsl.tools.embeddings import Embeddings
from nsl.tools.indexes import AllPairs, Index
from nsl.tools.inverted_lists import InvertedLists
from nsl.tools.lsh import Buckets
from nsl.tools.similar_pairs import nearest_pairs, sample_pairs, similar_pairs
from nsl.tools.similarity import NumpyProduct, Pairs
from tests.tools.build_graph_test import (
    cosines,
    grouped_vectors,
    read_edges,
    write_vectors,
)

INDEXES = (
    "all pairs",
    "hashing",
    "lists",
    "lists within a gap",
    "lists that are all probed",
)
ALL = {"index": "ivf", "recall": 1.0, "random_seed": 0}


def embeddings_of(vectors: np.ndarray) -> Embeddings:
    return Embeddings([b"%d" % i for i in range(len(vectors))], vectors)


def make(
    kind: str, embeddings: Embeddings, seed: int, probes: int = 1, least: int = 0
) -> Index:
    if kind == "all pairs":
        return AllPairs(len(embeddings))
    if kind == "hashing":
        return Buckets.of(embeddings, 2, 3, seed)
    lists = InvertedLists(embeddings, seed)
    if kind == "lists that are all probed":
        probes = len(embeddings)
    lists.probe(probes, least, 0.2 if kind == "lists within a gap" else math.inf)
    return lists


@st.composite
def vectors(draw: st.DrawFn) -> np.ndarray:
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    nodes, dimensions = draw(st.integers(1, 80)), draw(st.integers(1, 4))
    if draw(st.booleans()):  # many equal ones, and zeros
        return random.integers(-1, 2, (nodes, dimensions)).astype(np.float32)
    return random.standard_normal((nodes, dimensions)).astype(np.float32)


def pairs_once(parts: Iterator[Pairs]) -> list[tuple[int, int]]:
    return [
        (min(pair), max(pair))
        for part in parts
        for pair in zip(part.sources.tolist(), part.targets.tolist(), strict=True)
    ]


@pytest.mark.parametrize("kind", INDEXES)
@settings(max_examples=40, deadline=None)
@given(
    values=vectors(),
    seed=st.integers(0, 3),
    probes=st.integers(0, 4),
    threshold=st.sampled_from([-0.6, 0.3, 0.9]),
)
def test_pairs_above_a_threshold(
    kind: str, values: np.ndarray, seed: int, probes: int, threshold: float
) -> None:
    embeddings = embeddings_of(values)
    index = make(kind, embeddings, seed, probes)
    found = pairs_once(
        similar_pairs(embeddings, index.searches(), NumpyProduct(), threshold)
    )
    first, second = np.triu_indices(len(values), 1)
    similar = embeddings.similarities(first, second) >= threshold
    first, second = first[similar], second[similar]
    compared = index.compares(first, second)
    assert np.array_equal(compared, index.compares(second, first))
    assert sorted(found) == sorted(
        zip(first[compared].tolist(), second[compared].tolist(), strict=True)
    )
    if kind in ("all pairs", "lists that are all probed"):
        assert compared.all()


@pytest.mark.parametrize("kind", INDEXES)
@settings(max_examples=40, deadline=None)
@given(
    values=vectors(),
    seed=st.integers(0, 3),
    probes=st.integers(0, 4),
    k=st.integers(1, 12),
    threshold=st.sampled_from([-1.0, 0.3]),
)
def test_nearest_neighbors(
    kind: str, values: np.ndarray, seed: int, probes: int, k: int, threshold: float
) -> None:
    embeddings = embeddings_of(values)
    index = make(kind, embeddings, seed, probes, k)
    pairs = Pairs.joined(
        nearest_pairs(embeddings, index.searches(), NumpyProduct(), threshold, k)
    )
    count = len(values)
    sources, targets = np.divmod(np.arange(count * count), count)
    similarities = embeddings.similarities(sources, targets)
    wanted = (sources != targets) & (similarities >= threshold)
    wanted &= index.compares(sources, targets)
    sources, targets = sources[wanted], targets[wanted]
    similarities = similarities[wanted]
    order = np.lexsort((-embeddings.id_ranks[targets], -similarities, sources))
    sources, targets = sources[order], targets[order]
    best = np.arange(len(order)) - np.searchsorted(sources, sources) < k
    assert pairs.sources.tolist() == sources[best].tolist()
    assert pairs.targets.tolist() == targets[best].tolist()
    assert pairs.similarities.tolist() == similarities[order][best].tolist()
    if threshold == -1.0 and kind != "hashing":
        # Exactly opposite vectors may come out just below -1.
        others = np.bincount(pairs.sources, minlength=count)
        opposite = np.bincount(
            np.argwhere(cosines(values) < -1 + 1e-12)[:, 0], minlength=count
        )
        assert (others + opposite >= min(k, count - 1)).all()


@pytest.mark.parametrize("equal", [1, 70, 1500])
@pytest.mark.parametrize("kind", INDEXES)
def test_nearest_among_equal_ones_are_the_larger_ids(kind: str, equal: int) -> None:
    values = np.repeat(grouped_vectors(1500 // equal, 6), equal, axis=0)
    embeddings = embeddings_of(values)
    pairs = Pairs.joined(
        nearest_pairs(
            embeddings,
            make(kind, embeddings, 0, 1, 3).searches(),
            NumpyProduct(),
            1.0,
            3,
        )
    )
    expected = []
    for node in range(len(values)):
        group = range(node - node % equal, node - node % equal + equal)
        others = sorted((f"{other}" for other in group if other != node), reverse=True)
        expected += [(node, int(other)) for other in others[:3]]
    assert list(zip(pairs.sources.tolist(), pairs.targets.tolist(), strict=True)) == (
        expected
    )


@pytest.mark.parametrize("k", [None, 4])
def test_a_sample_is_compared_to_all(k: int | None) -> None:
    values = grouped_vectors(300, 8)
    embeddings = embeddings_of(values)
    found = sample_pairs(embeddings, 40, NumpyProduct(), 0.5, k)
    similarities = cosines(values)
    np.fill_diagonal(similarities, -np.inf)
    nodes = np.unique(found.sources)
    assert 20 < len(nodes) <= 40
    for node in nodes:
        row = similarities[node]
        expected = np.flatnonzero(row >= 0.5)
        expected = expected[np.argsort(-row[expected])][:k]
        assert set(found.targets[found.sources == node]) == set(expected)
    assert len(
        set(zip(found.sources.tolist(), found.targets.tolist(), strict=True))
    ) == (len(found.sources))


def test_probes_as_few_lists_as_the_recall_needs() -> None:
    values = np.random.default_rng(0).standard_normal((4000, 8)).astype(np.float32)
    embeddings = embeddings_of(values)
    product = NumpyProduct()
    exact = sample_pairs(embeddings, 4000, product, -1.0, 4)
    sample = sample_pairs(embeddings, 500, product, -1.0, 4)
    lists = InvertedLists(embeddings, 0)
    comparisons = []
    for recall in (0.5, 0.9, 0.99):
        lists.tune(sample, recall, 4)
        comparisons.append(lists.comparisons())
        pairs = Pairs.joined(
            nearest_pairs(embeddings, lists.searches(), product, -1.0, 4)
        )
        both = {*zip(pairs.sources.tolist(), pairs.targets.tolist(), strict=True)}
        both &= {*zip(exact.sources.tolist(), exact.targets.tolist(), strict=True)}
        # The sample of 2000 edges is one of all; four standard errors.
        assert len(both) / len(exact.sources) > recall - 4 * np.sqrt(0.25 / 2000)
    assert comparisons == sorted(set(comparisons))
    assert lists.comparisons() < 0.3 * 4000 * 4000 / 2


@pytest.mark.parametrize("gap", [0.0, 0.1, 0.5, math.inf])
@pytest.mark.parametrize("most", [0, 1, 6])
def test_probes_the_nearest_lists_within_a_gap(most: int, gap: float) -> None:
    values = np.random.default_rng(0).standard_normal((400, 5), np.float32)
    lists = InvertedLists(embeddings_of(values), 0)
    lists.probe(most, 0, gap)
    sources, targets = np.triu_indices(len(values), 1)
    ranks, gaps = lists.probes_needed(sources, targets)
    compared = lists.compares(sources, targets)
    # Products of another shape may be rounded differently.
    inner, outer = (
        ((ranks <= most) & (gaps <= gap + error)).any(axis=0) for error in (-1e-5, 1e-5)
    )
    inner |= (ranks == 0).any(axis=0)
    assert (inner <= compared).all()
    assert (compared <= outer).all()


def test_nodes_at_the_edge_of_a_list_probe_more() -> None:
    random = np.random.default_rng(0)
    values = random.standard_normal((40, 16), np.float32)[
        random.integers(40, size=3000)
    ]
    values += 0.5 * random.standard_normal(values.shape, np.float32)
    embeddings = embeddings_of(values)
    sample = sample_pairs(embeddings, 1000, NumpyProduct(), -1.0, 5)
    lists = InvertedLists(embeddings, 0, lists=60)
    lists.tune(sample, 0.9, 5)
    found = lists.compares(sample.sources, sample.targets).mean()
    comparisons = lists.comparisons()
    ranks, _ = lists.probes_needed(sample.sources, sample.targets)
    lists.probe(int(np.quantile(ranks.min(axis=0), found)), 5)
    assert found > 0.9
    assert comparisons < 0.7 * lists.comparisons()


def test_the_sample_does_not_train_centroids_with_any_seed() -> None:
    random = np.random.default_rng(5)
    embeddings = embeddings_of(random.standard_normal((3000, 16), np.float32))
    product = NumpyProduct()
    some = sample_pairs(embeddings, 500, product, -1.0, 5)
    searches = AllPairs(3000).searches()
    every = Pairs.joined(nearest_pairs(embeddings, searches, product, -1.0, 5))
    for seed in range(2):
        lists = InvertedLists(embeddings, seed, lists=40)
        sampled, true = (
            lists.probes_needed(pairs.sources, pairs.targets)[0].min(axis=0).mean()
            for pairs in (some, every)
        )
        # 1.51 for 1.85 if the seed draws the sample as training vectors.
        assert sampled == pytest.approx(true, rel=0.1)


def test_vectors_far_from_all_others_have_neighbors() -> None:
    values = np.full((3000, 30), 0.01, np.float32)
    values[:, :4] += grouped_vectors(3000, 4)
    values[:25] = 0
    values[np.arange(25), np.arange(4, 29)] = 1
    embeddings = embeddings_of(values)
    product = NumpyProduct()
    lists = InvertedLists(embeddings, 0)
    lists.tune(sample_pairs(embeddings, 100, product, -1.0, 5), 0.9, 5)
    pairs = Pairs.joined(nearest_pairs(embeddings, lists.searches(), product, -1.0, 5))
    assert (np.bincount(pairs.sources) == 5).all()
    assert lists.comparisons() < 0.2 * 3000 * 3000 / 2


@pytest.mark.parametrize("threads", [2, 5])
@pytest.mark.parametrize("k", [None, 6])
def test_threads_give_what_one_gives(threads: int, k: int | None) -> None:
    embeddings = embeddings_of(grouped_vectors(5000, 12))

    def found(workers: int) -> list[list[float]]:
        product = NumpyProduct(workers)
        lists = InvertedLists(embeddings, 0, workers)
        lists.probe(3, 0)
        if k is None:
            parts = similar_pairs(embeddings, lists.searches(), product, 0.8)
        else:
            parts = nearest_pairs(embeddings, lists.searches(), product, -1.0, k)
        return [column.tolist() for column in Pairs.joined(parts)]

    assert found(threads) == found(1)


def built(folder: Path, values: np.ndarray, **settings: Any) -> tuple[Any, Any]:
    embeddings = write_vectors(folder / "e.tfr", values)
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
@pytest.mark.parametrize(
    "index",
    [ALL, {"lsh_splits": 1, "lsh_rounds": 30, "random_seed": 0}],
    ids=["ivf", "hashing"],
)
def test_the_graph_is_that_of_all_pairs(
    tmp_path: Path, settings: dict[str, Any], index: dict[str, Any]
) -> None:
    values = grouped_vectors(400, 16)
    exact_report, exact = built(tmp_path, values, **settings)
    report, edges = built(tmp_path, values, **settings, **index)
    assert report.pop("estimated_recall") == 1.0
    assert report == exact_report
    assert sorted(edges) == sorted(exact)


def test_the_report_tells_the_recall(tmp_path: Path) -> None:
    settings = {"num_neighbors": 10, "similarity_threshold": -1.0, "random_seed": 0}
    values = np.random.default_rng(0).standard_normal((2000, 12)).astype(np.float32)
    exact = set(built(tmp_path, values, **settings)[1])
    for index in ({"index": "ivf", "recall": 0.8}, {"lsh_splits": 2, "lsh_rounds": 2}):
        report, edges = built(tmp_path, values, **settings, **index)
        recall = len(exact.intersection(edges)) / len(exact)
        assert recall < 0.98
        # Half of the sample of 1000 nodes, 10 edges each: four standard errors.
        assert abs(recall - report["estimated_recall"]) < 4 * np.sqrt(0.25 / 5000)


def test_equally_similar_neighbors_are_as_good(tmp_path: Path) -> None:
    values = grouped_vectors(1500, 8)
    values[::3] = 0
    report, edges = built(
        tmp_path, values, index="ivf", num_neighbors=3, similarity_threshold=-1.0
    )
    assert report["estimated_recall"] > 0.95
    assert report["edges"] == len(edges) == 4500


def test_a_seed_gives_the_same_graph(tmp_path: Path) -> None:
    settings = {"num_neighbors": 3, "similarity_threshold": -1.0}
    values = grouped_vectors(300, 8)
    first = built(tmp_path, values, index="ivf", random_seed=3, **settings)
    assert built(tmp_path, values, index="ivf", random_seed=3, **settings) == first


def test_auto_compares_all_pairs_of_few(tmp_path: Path) -> None:
    settings = {"num_neighbors": 3, "similarity_threshold": -1.0}
    values = grouped_vectors(100, 8)
    report, edges = built(tmp_path, values, index="auto", **settings)
    assert "estimated_recall" not in report
    assert built(tmp_path, values, **settings)[1] == edges


def test_auto_of_many_searches_lists_unless_it_would_be_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "_EXACT_NODES", 100)
    settings = {"num_neighbors": 3, "similarity_threshold": -1.0, "random_seed": 0}
    values = grouped_vectors(1000, 8)
    assert "estimated_recall" in built(tmp_path, values, index="auto", **settings)[0]
    noise = np.random.default_rng(0).normal(size=(1000, 64)).astype(np.float32)
    report, edges = built(tmp_path, noise, index="auto", **settings)
    assert "estimated_recall" not in report
    assert edges == built(tmp_path, noise, **settings)[1]


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("settings", [{}, {"num_neighbors": 2}], ids=str)
def test_lists_of_hardly_any(
    tmp_path: Path, count: int, settings: dict[str, Any]
) -> None:
    report, edges = built(tmp_path, np.ones((count, 2)), index="ivf", **settings)
    assert report["nodes"] == count
    assert len(edges) == (2 if count == 2 else 0)


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
