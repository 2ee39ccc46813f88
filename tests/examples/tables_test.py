"""examples/tables.py in small."""

import numpy as np
import pytest
import tables


@pytest.mark.arithmetic
def test_the_regularized_network_minds_errors_less(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tables.main(["--seeds=1"])
    lines = capsys.readouterr().out.splitlines()
    errors = {line[:31].strip(): line[31:].split() for line in lines}
    for row, gain in (("random errors twice as large", 0.5), ("worst errors", 2)):
        assert float(errors[row][3]) < float(errors[row][0]) - gain
    assert float(errors["as measured"][3]) < 50


@pytest.mark.arithmetic
def test_the_attack_keeps_to_the_columns_and_their_limits() -> None:
    patients, test = tables.load_patients()
    model = tables.train(patients, seed=0, **tables.PLAIN)
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
