"""examples/pipeline.py in small."""

from pathlib import Path

import numpy as np
import pipeline
import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    pipeline.main(["--quick", f"--output_dir={folder}"])
    return folder


@pytest.mark.arithmetic
def test_a_process_without_nsl_gives_the_answers_of_the_trained_model(
    folder: Path,
) -> None:
    table = (folder / "pipeline.txt").read_text()
    assert "169 predictions; nsl was not imported" in table
    [cells] = [line.split() for line in table.splitlines() if line.startswith("all ")]
    assert min(float(cells[1]), float(cells[4])) > 75
    answers = np.loadtxt(folder / "seed-0" / "answers.csv", delimiter=",")
    trained = np.load(folder / "seed-0" / "predictions.npy")
    np.testing.assert_allclose(answers, trained, atol=1e-5)
    assert (folder / "pipeline.png").stat().st_size > 20_000


def test_answers_that_differ_are_an_error(folder: Path) -> None:
    path = folder / "seed-0" / "predictions.npy"
    trained = np.load(path)
    np.save(path, trained + 0.01)
    with pytest.raises(RuntimeError, match=r"differ by 0\.01"):
        pipeline.largest_difference(folder / "seed-0")
    np.save(path, trained)


def test_the_raw_file_tells_few_labels(folder: Path) -> None:
    samples = pipeline.read_raw_file(folder / "seed-0" / "train.csv")
    assert np.bincount(samples.labels + 1).tolist() == [380, 10, 10]
    assert samples.raw.shape == (400, 30)
    assert len(set(samples.ids)) == 400


def test_records_of_all_samples_hold_neighbors_in_raw_units(folder: Path) -> None:
    samples = pipeline.read_raw_file(folder / "seed-0" / "train.csv")
    [(features, labels, weights)] = (
        pipeline.records.read_packed(
            folder / "seed-0" / "packed.tfr", "raw", 30, 5, 400, seed=0
        )
        .take(1)
        .as_numpy_iterator()
    )
    assert np.count_nonzero(weights) == 20
    assert weights.mean() == pytest.approx(1.0)
    assert set(labels[weights > 0]) == {0, 1}
    known = {row.tobytes() for row in samples.raw}
    assert {row.tobytes() for row in features["raw"]} == known
    present = features["NL_nbr_0_weight"][:, 0] > 0
    assert present.all()
    assert {row.tobytes() for row in features["NL_nbr_0_raw"]} <= known
