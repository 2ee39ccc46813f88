"""examples/cora.py in small, and benchmarks/citations.py."""

from dataclasses import replace
from pathlib import Path

import citations
import cora
import keras
import numpy as np
import pytest
from cora import CitationGraph


@pytest.fixture(scope="module")
def graph() -> CitationGraph:
    return cora.make_up()


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """A file of four papers, the words of which are 0 and 2, 1, none, and 1."""
    return {
        "features_data": np.ones(4, np.float32),
        "features_indices": np.array([0, 2, 1, 1]),
        "features_indptr": np.array([0, 2, 3, 3, 4]),
        "features_shape": np.array([4, 3]),
        "labels": np.array([0, 1, -1, 1]),
        "edges": np.array([[0, 1], [3, 1]]),
        "train_idx": np.array([0]),
        "val_idx": np.array([1]),
        "test_idx": np.array([3]),
    }


def test_a_file_gives_words_of_length_one_and_splits(
    arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    np.savez(tmp_path / "four.npz", **arrays)
    graph = cora.load(tmp_path / "four.npz")
    half = np.sqrt(0.5)
    words = [[half, 0, half], [0, 1, 0], [0, 0, 0], [0, 1, 0]]
    np.testing.assert_allclose(graph.words, words, rtol=1e-6)
    assert (graph.name, graph.classes) == ("four", 2)
    assert [graph.train, graph.validation, graph.test] == [0, 1, 3]


def test_a_file_without_an_array_is_named(
    arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    del arrays["val_idx"]
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(ValueError, match=r"no arrays \['val_idx'\]"):
        cora.load(tmp_path / "wrong.npz")


def test_a_made_up_graph_has_disjoint_splits(graph: CitationGraph) -> None:
    assert graph.classes == 4
    rows = np.concatenate([graph.train, graph.validation, graph.test])
    assert len(rows) == len(set(rows)) == 600
    assert np.bincount(graph.labels[graph.train]).tolist() == [5] * 4
    degrees = np.bincount(graph.edges.ravel(), minlength=600)
    assert (degrees == 0).any()


def test_random_splits_follow_the_seed(graph: CitationGraph) -> None:
    split = citations.random_split(graph, 3)
    assert [len(split.train), len(split.test)] == [480, 120]
    assert set(split.train) | set(split.test) == set(range(600))
    np.testing.assert_array_equal(split.test, citations.random_split(graph, 3).test)
    assert set(citations.random_split(graph, 4).test) != set(split.test)


def test_few_labels_are_drawn_outside_validation_and_test(
    graph: CitationGraph,
) -> None:
    graph = replace(graph, test=graph.test[:200])
    split = citations.few_labels(graph, 7, 0)
    assert np.bincount(graph.labels[split.train]).tolist() == [7] * 4
    assert not set(split.train) & set(split.test)
    assert not set(split.train) & set(split.validation)
    everything = citations.few_labels(graph, 10_000, 0).train
    assert len(everything) == 600 - len(split.test) - len(split.validation)


def test_what_is_left_out_leaves_nothing_behind(graph: CitationGraph) -> None:
    unseen = citations.choose_unseen(graph, 1)
    assert set(unseen) <= set(graph.test)
    assert len(unseen) == len(graph.test) // 5
    rest = citations.leave_out(graph, unseen)
    kept = np.setdiff1d(np.arange(600), unseen)
    np.testing.assert_array_equal(rest.words, graph.words[kept])
    np.testing.assert_array_equal(kept[rest.train], graph.train)
    np.testing.assert_array_equal(kept[rest.validation], graph.validation)
    assert sorted([*kept[rest.test], *unseen]) == sorted(graph.test)
    among = np.isin(graph.edges, kept).all(axis=1)
    np.testing.assert_array_equal(kept[rest.edges], graph.edges[among])


@pytest.mark.arithmetic
def test_the_graph_helps_and_the_model_needs_words_alone(
    graph: CitationGraph, tmp_path: Path
) -> None:
    # Labels that are not to be known are wrong.
    known = replace(graph, labels=np.zeros_like(graph.labels))
    for rows in graph.train, graph.validation:
        known.labels[rows] = graph.labels[rows]
    alone = cora.accuracy(cora.train(known, 0, False), graph, graph.test)
    model = cora.train(known, 0, True, steps=40)
    assert cora.accuracy(model, graph, graph.test) > alone + 10

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.count_params() == (300 + 1) * 64 + (64 + 1) * 4
    assert cora.accuracy(loaded, graph, graph.test) == cora.accuracy(
        model, graph, graph.test
    )


def test_the_comparisons_around_the_training(
    graph: CitationGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With networks that are not trained, for that would take most of the time."""
    scored: list[np.ndarray] = []

    def accuracy(model: object, graph: CitationGraph, rows: np.ndarray) -> float:
        scored.append(rows)
        return len(scored)

    monkeypatch.setattr(cora, "train", lambda *_: None)
    monkeypatch.setattr(cora, "accuracy", accuracy)
    assert citations.compare_splits(graph, 0) == {
        "made-up, 20 labels": [1, 2],
        "made-up, 480 labels": [3, 4],
        "made-up, seen papers": [5, 6],
        "made-up, unseen papers": [7, 8],
    }
    np.testing.assert_array_equal(scored[0], graph.test)
    assert sorted([*scored[4], *scored[6]]) == sorted(graph.test)


def test_missing_data_is_told_with_where_to_get_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cora.main([])
    assert "https://github.com/kimiyoung/planetoid" in capsys.readouterr().err
