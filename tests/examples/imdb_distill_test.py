"""examples/imdb_taught.py in small."""

from pathlib import Path

import imdb_taught
import pytest


@pytest.mark.arithmetic
def test_the_whole_program_in_small(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imdb_taught.main(["--quick", "--adversarial", f"--output_dir={tmp_path}"])
    table = (tmp_path / "imdb_taught.txt").read_text()
    assert table in capsys.readouterr().out
    row = next(line for line in table.splitlines() if line.startswith("24 labels"))
    teacher, taught = (float(row.split()[place]) for place in (5, 8))
    assert taught > teacher - 15


def test_missing_data_is_told_with_where_to_get_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        imdb_taught.main([])
    assert "https://ai.stanford.edu/~amaas/data/sentiment" in capsys.readouterr().err
