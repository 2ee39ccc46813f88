"""The program examples/cora.py, on small made-up graphs."""

import dataclasses
import functools
import subprocess
import sys
from pathlib import Path

import cora
import cora_data
import keras
import numpy as np
import pytest
from cora_data import CitationGraph, Split

ROOT = Path(__file__).parents[2]
SMALL = dataclasses.replace(cora.GRAPH, hidden=32, steps=30)


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
    np.testing.assert_array_equal(graph.words[7], expected)
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


def test_random_splits_follow_the_seed_and_leave_the_test_papers(
    graph: CitationGraph,
) -> None:
    split = cora_data.random_split(graph, 3)
    assert [len(split.train), len(split.test)] == [480, 120]
    again = cora_data.random_split(graph, 3, validate=True)
    np.testing.assert_array_equal(split.test, again.test)
    assert set(again.train) | set(again.validation) == set(split.train)
    assert not set(again.train) & set(again.validation)
    other = cora_data.random_split(graph, 4)
    assert set(other.test) != set(split.test)


def test_few_labels_are_drawn_outside_validation_and_test(
    graph: CitationGraph,
) -> None:
    split = cora_data.few_labels(graph, 7, 0)
    assert np.bincount(graph.labels[split.train]).tolist() == [7] * 4
    assert not set(split.train) & set(split.test)
    assert not set(split.train) & set(split.validation)
    everything = cora_data.few_labels(graph, 10_000, 0).train
    assert len(everything) == 600 - len(split.test) - len(split.validation)


def test_batches_hold_all_papers_and_no_label_that_is_not_to_be_known(
    graph: CitationGraph,
) -> None:
    config = cora.nsl.configs.make_graph_reg_config(max_neighbors=SMALL.neighbors)
    [(x, y, weight)] = cora.all_batches(
        graph, graph.public.train, SMALL, config, seed=0
    ).as_numpy_iterator()
    assert len(y) == 600
    assert weight.sum() == 20
    assert not y[weight == 0].any()
    degrees = np.zeros(600)
    for i in range(SMALL.neighbors):
        assert set(np.unique(x[f"NL_nbr_{i}_weight"])) <= {0.0, 1.0}
        degrees += x[f"NL_nbr_{i}_weight"][:, 0]
    assert (degrees == 0).any()
    assert degrees.max() == SMALL.neighbors


def test_the_graph_helps_and_the_model_needs_words_alone(
    graph: CitationGraph, tmp_path: Path
) -> None:
    plain = dataclasses.replace(SMALL, multiplier=0.0)
    rows, test = graph.public.train, graph.public.test
    alone = cora.accuracy(cora.train(graph, rows, plain, 0), graph, test)
    model = cora.train(graph, rows, SMALL, 0)
    assert cora.accuracy(model, graph, test) > alone + 0.1

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.count_params() == (300 + 1) * 32 + 2 * 32 + (32 + 1) * 4
    answers = loaded(graph.words[test], training=False)
    np.testing.assert_allclose(
        answers, model(graph.words[test], training=False), atol=1e-6
    )


def test_search_leaves_a_graph_alone_that_does_not_help(
    graph: CitationGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Split] = []
    tried: list[cora.Settings] = []

    def train(
        graph: CitationGraph, labeled: np.ndarray, settings: cora.Settings, seed: int
    ) -> cora.Settings:
        tried.append(settings)
        return settings

    def splits(seed: int) -> Split:
        seen.append(dataclasses.replace(graph.public, test=np.array([-1])))
        return seen[-1]

    def score(
        helpful: bool, model: cora.Settings, graph: CitationGraph, rows: np.ndarray
    ) -> float:
        np.testing.assert_array_equal(rows, graph.public.validation)
        gain = 0.1 * (model.hops == 2) if model.multiplier else 0.0
        return 0.5 + (gain if helpful else -gain) + 0.01 * model.word_dropout

    monkeypatch.setattr(cora, "train", train)
    task = cora.Task("made-up", splits, splits)
    monkeypatch.setattr(cora, "accuracy", functools.partial(score, False))
    plain, best = cora.search(graph, task, range(1), steps=5)
    assert best == plain
    assert plain.multiplier == 0
    assert plain.word_dropout == 0.5
    monkeypatch.setattr(cora, "accuracy", functools.partial(score, True))
    plain, best = cora.search(graph, task, range(1), steps=5)
    assert plain.multiplier == 0
    assert best.multiplier > 0
    assert best.hops == 2
    assert {settings.steps for settings in tried} == {5}


def test_the_whole_program_in_small(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cora, "GRAPH", SMALL)
    monkeypatch.setattr(cora, "QUICK_STEPS", 3)
    monkeypatch.setattr(cora, "QUICK_PER_CLASS", (5,))
    cora.main([f"--data={path}", f"--output_dir={tmp_path}", "--quick", "--seeds=1"])
    table = (tmp_path / "made-up.txt").read_text()
    public, random = (line for line in table.splitlines() if "made-up" in line)
    assert public.split()[3] == "20"
    assert random.split()[2] == "480"
    for name in ("labels", "embeddings"):
        picture = tmp_path / f"made-up_{name}.png"
        assert picture.stat().st_size > 20_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quick", "--seeds=0"], "--seeds must be at least 1, received 0"),
        ([], "https://github.com/kimiyoung/planetoid"),
    ],
)
def test_command_line(arguments: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "examples/cora.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr
