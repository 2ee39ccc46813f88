"""The program examples/cora.py, on small made-up graphs."""

import dataclasses
from pathlib import Path
from typing import Any

import cora
import cora_data
import cora_picture
import keras
import numpy as np
import pytest
from cora_data import CitationGraph

SMALL = dataclasses.replace(cora.REGULARIZED, steps=40)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graphs") / "made-up.npz"
    cora_data.synthesize(path)
    return path


@pytest.fixture(scope="module")
def graph(path: Path) -> CitationGraph:
    return cora_data.load(path)


def test_a_file_gives_words_and_disjoint_splits(
    path: Path, graph: CitationGraph
) -> None:
    with np.load(path) as file:
        start, end = file["features_indptr"][7:9]
        expected = np.zeros(300)
        expected[file["features_indices"][start:end]] = 1.0
    expected /= np.sqrt(end - start)
    np.testing.assert_allclose(graph.words[7], expected, rtol=1e-6)
    assert graph.classes == 4
    rows = np.concatenate(dataclasses.astuple(graph.public))
    assert len(rows) == len(set(rows))
    assert np.bincount(graph.labels[graph.public.train]).tolist() == [5] * 4
    degrees = np.bincount(graph.edges.ravel(), minlength=600)
    assert (degrees == 0).any()


def test_a_file_without_an_array_is_named(path: Path, tmp_path: Path) -> None:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file if name != "val_idx"}
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(ValueError, match=r"no arrays \['val_idx'\][^$]*planetoid"):
        cora_data.load(tmp_path / "wrong.npz")


def test_random_splits_follow_the_seed(graph: CitationGraph) -> None:
    split = cora_data.random_split(graph, 3)
    assert [len(split.train), len(split.test)] == [480, 120]
    assert set(split.train) | set(split.test) == set(range(600))
    np.testing.assert_array_equal(split.test, cora_data.random_split(graph, 3).test)
    assert set(cora_data.random_split(graph, 4).test) != set(split.test)


def test_few_labels_are_drawn_outside_validation_and_test(
    graph: CitationGraph,
) -> None:
    split = cora_data.few_labels(graph, 7, 0)
    assert np.bincount(graph.labels[split.train]).tolist() == [7] * 4
    assert not set(split.train) & set(split.test)
    assert not set(split.train) & set(split.validation)
    everything = cora_data.few_labels(graph, 10_000, 0).train
    assert len(everything) == 600 - len(split.test) - len(split.validation)


def test_what_is_left_out_leaves_nothing_behind(graph: CitationGraph) -> None:
    unseen = cora_data.choose_unseen(graph, 1)
    assert set(unseen) <= set(graph.public.test)
    rest, split = cora_data.leave_out(graph, unseen)
    kept = np.setdiff1d(np.arange(600), unseen)
    np.testing.assert_array_equal(rest.words, graph.words[kept])
    np.testing.assert_array_equal(kept[split.train], graph.public.train)
    np.testing.assert_array_equal(kept[split.validation], graph.public.validation)
    assert sorted([*kept[split.test], *unseen]) == sorted(graph.public.test)
    among = np.isin(graph.edges, kept).all(axis=1)
    np.testing.assert_array_equal(kept[rest.edges], graph.edges[among])


@pytest.mark.arithmetic
def test_the_graph_helps_and_the_model_needs_words_alone(
    graph: CitationGraph, tmp_path: Path
) -> None:
    split, test = graph.public, graph.public.test
    # Labels that are not to be known are wrong.
    known = dataclasses.replace(graph, labels=np.zeros_like(graph.labels))
    for rows in split.train, split.validation:
        known.labels[rows] = graph.labels[rows]
    alone = cora.accuracy(cora.train(known, split, cora.PLAIN, 0), graph, test)
    model = cora.train(known, split, SMALL, 0)
    assert cora.accuracy(model, graph, test) > alone + 10

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.count_params() == (300 + 1) * 64 + (64 + 1) * 4
    assert cora.accuracy(loaded, graph, test) == cora.accuracy(model, graph, test)


def test_the_program_around_the_training(
    path: Path,
    graph: CitationGraph,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With networks that are not trained, for that would take most of the time."""
    scored: list[np.ndarray] = []
    model = cora.make_model(300, 4, 0.5)

    def train(*_: Any, **__: Any) -> keras.Model:
        return model

    def accuracy(model: keras.Model, graph: CitationGraph, rows: np.ndarray) -> float:
        scored.append(rows)
        return len(scored) / 10

    monkeypatch.setattr(cora, "train", train)
    monkeypatch.setattr(cora, "accuracy", accuracy)
    arguments = [f"--data={path}", f"--output_dir={tmp_path}", "--quick"]
    cora.main(arguments)
    np.testing.assert_array_equal(scored[0], graph.public.test)
    seen, unseen = scored[4], scored[6]
    assert len(unseen) == len(graph.public.test) // 5
    assert sorted([*seen, *unseen]) == sorted(graph.public.test)
    assert len(scored) == 2 * 4 + 2 * 2
    table = (tmp_path / "made-up.txt").read_text()
    assert table in capsys.readouterr().out
    rows = {line[:24].strip(): line[24:].split() for line in table.splitlines()}
    lines = {title: " ".join(cells) for title, cells in rows.items()}
    assert lines["made-up, 20 labels"] == "0.1 ± 0.0 0.2 ± 0.0"
    assert lines["made-up, 480 labels"] == "0.3 ± 0.0 0.4 ± 0.0"
    assert lines["made-up, unseen papers"] == "0.7 ± 0.0 0.8 ± 0.0"
    assert lines["20 labels a class"] == "1.1 ± 0.0 1.2 ± 0.0"
    for name in ("labels", "embeddings"):
        picture = tmp_path / f"made-up_{name}.png"
        assert picture.stat().st_size > 20_000
    # All figures are known now.
    monkeypatch.setattr(cora_picture, "draw_embeddings", lambda *_: None)
    cora.main(arguments)
    assert len(scored) == 2 * 4 + 2 * 2
    assert (tmp_path / "made-up.txt").read_text() == table


def test_missing_data_is_told_with_where_to_get_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cora.main([])
    assert "https://github.com/kimiyoung/planetoid" in capsys.readouterr().err
