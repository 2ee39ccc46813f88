"""examples/pipeline.py in small."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pipeline
import pipeline_serve
import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline") / "seed-0"
    figures = pipeline.compare(folder, seed=0, quick=True)
    assert min(figures["all"]) > 75
    return folder


@pytest.mark.arithmetic
def test_a_process_without_nsl_gives_the_answers_of_the_trained_model(
    folder: Path,
) -> None:
    command = [sys.executable, pipeline_serve.__file__, folder]
    printed = subprocess.check_output(command, text=True)
    assert "169 predictions; nsl was not imported; largest difference" in printed
    answers = np.loadtxt(folder / "answers.csv", delimiter=",")
    trained = np.load(folder / "predictions.npy")
    np.testing.assert_allclose(answers, trained, atol=1e-5)


def test_answers_that_differ_are_an_error(folder: Path) -> None:
    trained = np.load(folder / "predictions.npy")
    np.savetxt(folder / "answers.csv", trained + 0.01, delimiter=",")
    with pytest.raises(RuntimeError, match=r"differ by 0\.01"):
        pipeline_serve.largest_difference(folder)


def test_the_raw_file_tells_few_labels(folder: Path) -> None:
    ids, labels, raw = pipeline.read_raw_file(folder / "train.csv")
    assert np.bincount(labels + 1).tolist() == [380, 10, 10]
    assert raw.shape == (400, 30)
    assert len(set(ids)) == 400


def test_records_of_all_samples_hold_neighbors_in_raw_units(folder: Path) -> None:
    _, _, raw = pipeline.read_raw_file(folder / "train.csv")
    data = pipeline.read_packed(folder / "packed.tfr", batch_size=400, seed=0)
    [(features, labels, weights)] = data.take(1).as_numpy_iterator()
    assert np.count_nonzero(weights) == 20
    assert weights.mean() == pytest.approx(1.0)
    assert set(labels[weights > 0]) == {0, 1}
    known = {row.tobytes() for row in raw}
    assert {row.tobytes() for row in features["raw"]} == known
    present = features["NL_nbr_0_weight"][:, 0] > 0
    assert present.all()
    assert {row.tobytes() for row in features["NL_nbr_0_raw"]} <= known
