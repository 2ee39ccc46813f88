"""The program examples/cora.py, on small made-up graphs."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import cora
import cora_data
import cora_distillation
import cora_picture
import cora_search
import keras
import numpy as np
import pytest
from cora_data import CitationGraph
from progress import Progress

import nsl

SMALL = dataclasses.replace(
    cora.REGULARIZED,
    sharpening_temperature=0.4,
    hops=4,
    hidden=32,
    steps=20,
    distilled=True,
)


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


@pytest.mark.arithmetic
def test_the_graph_helps_and_the_model_needs_words_alone(
    graph: CitationGraph, tmp_path: Path
) -> None:
    rows, test = graph.public.train, graph.public.test
    # Labels that are not to be known are wrong.
    known = dataclasses.replace(graph, labels=np.zeros_like(graph.labels))
    known.labels[rows] = graph.labels[rows]
    known.labels[-1] = graph.labels.max()
    plain = dataclasses.replace(SMALL, multiplier=0.0)
    alone = cora.accuracy(cora.train(known, rows, plain, 0), graph, test)
    model = cora.train(known, rows, SMALL, 0)
    assert cora.accuracy(model, graph, test) > alone + 10

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.count_params() == (300 + 1) * 32 + 2 * 32 + (32 + 1) * 4
    assert cora.accuracy(loaded, graph, test) == cora.accuracy(model, graph, test)


def test_soft_labels_are_a_mean_over_walks_along_citations() -> None:
    sources, targets = np.array([0, 1, 2]), np.array([1, 2, 3])
    citations = nsl.data.Graph((sources, targets), ids=range(5), undirected=True)
    answers = np.random.default_rng(0).dirichlet([1.0, 1.0, 1.0], 5)
    labels = np.array([0, 0, 0, 2, 1])
    found = cora_distillation.soft_labels(answers, citations, labels, np.array([3]))
    steps = np.zeros((5, 5))
    steps[sources, targets] = steps[targets, sources] = 1
    steps[:4] /= steps[:4].sum(axis=1, keepdims=True)
    walks = [np.linalg.matrix_power(steps, k) @ answers for k in range(11)]
    expected = sum(0.1 * 0.9**k * walks[k] for k in range(10)) + 0.9**10 * walks[10]
    np.testing.assert_allclose(found[:3], expected[:3], rtol=1e-6)
    assert found[3].tolist() == [0, 0, 1]
    # Nobody cites the last one.
    np.testing.assert_allclose(found[4], answers[4])


class TestSearch:
    def test_more_seeds_tell_the_best_apart(self, tmp_path: Path) -> None:
        asked: list[tuple[int, int]] = []

        def score(settings: int, seed: int) -> float:
            asked.append((settings, seed))
            return settings - (50 if settings == 9 and seed else 0)

        path = tmp_path / "scores.json"
        best = cora_search.best(range(10), score, path, Progress())
        assert best == 8
        assert len(asked) == len(set(asked)) == 10 + 4 * 2 + 2 * 2
        assert {settings for settings, seed in asked if seed == 4} == {7, 8}
        asked.clear()
        assert cora_search.best(range(10), score, path, Progress()) == 8
        assert not asked
        assert len(json.loads(path.read_text())) == 22

    @pytest.mark.parametrize("gain", [-10, 10])
    def test_a_graph_that_does_not_help_is_left_alone(
        self, gain: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def score(settings: cora.Settings, seed: int) -> float:
            of_graph = gain * (settings.hops == 2) - 1 if settings.multiplier else 0
            return 50 + of_graph + settings.word_dropout

        path = tmp_path / "scores.json"
        plain, best = cora_search.search(cora.Settings, score, path, Progress())
        assert plain.multiplier == 0
        assert plain.word_dropout == 0.8
        assert "validation 50.80%" in capsys.readouterr().out
        if gain < 0:
            assert best == plain
        else:
            assert best.multiplier > 0
            assert best.hops == 2


def test_the_program_around_the_training(
    path: Path,
    graph: CitationGraph,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With networks that are not trained, for that would take most of the time."""
    scored: list[np.ndarray] = []
    model = cora.make_model(300, 4, SMALL)

    def train(*_: Any, **__: Any) -> keras.Model:
        return model

    def accuracy(model: keras.Model, graph: CitationGraph, rows: np.ndarray) -> float:
        scored.append(rows)
        return len(scored) / 10

    def search(make: Any, score: Any, *_: Any) -> tuple[cora.Settings, cora.Settings]:
        score(cora.PLAIN, 0)
        return cora.PLAIN, SMALL

    monkeypatch.setattr(cora, "train", train)
    monkeypatch.setattr(cora, "accuracy", accuracy)
    monkeypatch.setattr(cora_search, "search", search)
    arguments = [f"--data={path}", f"--output_dir={tmp_path}", "--quick", "--search"]
    cora.main(arguments)
    np.testing.assert_array_equal(scored[0], graph.public.validation)
    np.testing.assert_array_equal(scored[1], graph.public.test)
    assert len(scored) == 1 + 2 * 4
    table = (tmp_path / "made-up.txt").read_text()
    assert table in capsys.readouterr().out
    rows = {line[:19].strip(): line[19:].split() for line in table.splitlines()}
    lines = {title: " ".join(cells) for title, cells in rows.items()}
    assert lines["made-up, 20 labels"] == "0.2 ± 0.0 0.3 ± 0.0"
    assert lines["made-up, 480 labels"] == "0.4 ± 0.0 0.5 ± 0.0"
    assert lines["20 labels a class"] == "0.8 ± 0.0 0.9 ± 0.0"
    for name in ("labels", "embeddings"):
        picture = tmp_path / f"made-up_{name}.png"
        assert picture.stat().st_size > 20_000
    # All figures are known now.
    monkeypatch.setattr(cora_picture, "draw_embeddings", lambda *_: None)
    cora.main(arguments)
    assert len(scored) == 2 + 2 * 4
    assert (tmp_path / "made-up.txt").read_text() == table


def test_missing_data_is_told_with_where_to_get_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cora.main([])
    assert "https://github.com/kimiyoung/planetoid" in capsys.readouterr().err
