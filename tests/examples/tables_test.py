"""examples/tables.py in small."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tables


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    tables.main(["--quick", f"--output_dir={folder}"])
    return folder


@pytest.mark.arithmetic
def test_the_regularized_network_minds_errors_less(folder: Path) -> None:
    lines = (folder / "tables.txt").read_text().splitlines()
    width = lines[0].index("points") + len("points")
    errors = {line[:width].strip(): line[width:].split() for line in lines}
    for row, gain in (("random errors twice as large", 0.5), ("worst errors", 2)):
        assert float(errors[row][3]) < float(errors[row][0]) - gain
    assert float(errors["as measured"][3]) < 50
    assert (folder / "tables.png").stat().st_size > 20_000


@pytest.mark.arithmetic
def test_the_attack_keeps_to_the_columns_and_their_limits(folder: Path) -> None:
    _, test = tables.load_patients()
    model = keras.models.load_model(folder / "plain.keras")
    attacked = tables.worst_errors(model, test)
    assert list(attacked.x) == list(test.x)
    for name in ("age", "sex"):
        np.testing.assert_array_equal(attacked.x[name], test.x[name])
    for name, error in tables.ERRORS.items():
        moved = np.abs(attacked.x[name] - test.x[name])
        assert moved.max() == pytest.approx(error, rel=1e-3)
    before = np.abs(tables.predict(model, test) - test.y)
    after = np.abs(tables.predict(model, attacked) - test.y)
    assert np.all(after > before)


def test_no_patient_is_trained_and_tested_with() -> None:
    train, test = tables.load_patients()
    assert len(train.y) == 300
    assert len(test.y) == 142
    seen = [
        {tuple(row) for row in zip(*part.x.values(), part.y, strict=True)}
        for part in (train, test)
    ]
    assert not seen[0] & seen[1]
