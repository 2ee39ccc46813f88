"""examples/robust_table.py in small."""

import numpy as np
import pytest
import robust_table


@pytest.mark.arithmetic
def test_robust_training_withstands_errors_that_change_the_plain_diagnosis(
    capsys: pytest.CaptureFixture[str],
) -> None:
    robust_table.main(["--quick"])
    lines = capsys.readouterr().out.splitlines()
    [cells] = [line.split() for line in lines if line.startswith("within 1.0 ")]
    plain, pgd, trades = (float(cell) for cell in cells[-9::3])
    assert min(pgd, trades) > plain + 6
    [cells] = [line.split() for line in lines if line.startswith("as measured")]
    assert min(float(cell) for cell in cells[-9::3]) > 88


def test_radii_are_standard_errors_of_the_same_columns() -> None:
    train, test, radii = robust_table.load_patients()
    assert train.x.shape == (400, 10)
    assert test.x.shape == (169, 10)
    share = radii / train.x.std(axis=0)
    assert np.all((share > 0.05) & (share < 0.7))
    assert not {tuple(row) for row in train.x} & {tuple(row) for row in test.x}
