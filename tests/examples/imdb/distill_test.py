"""examples/imdb/distill.py in small."""

import distill
import pytest


@pytest.mark.arithmetic
def test_the_whole_program_in_small(capsys: pytest.CaptureFixture[str]) -> None:
    distill.main(["--quick", "--adversarial"])
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.startswith("24 labels"))
    teacher, taught = (float(row.split()[place]) for place in (5, 8))
    assert taught > teacher - 15


def test_missing_data_is_told_with_where_to_get_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        distill.main([])
    assert "https://ai.stanford.edu/~amaas/data/sentiment" in capsys.readouterr().err
