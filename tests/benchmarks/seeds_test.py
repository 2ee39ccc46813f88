"""benchmarks/seeds.py: what the comparisons over seeds share."""

from pathlib import Path

import pytest
import seeds


class Measure:
    """Gives figures and counts the seeds it ran; fails on one seed if told to."""

    def __init__(self, fails_on: int | None = None) -> None:
        self.ran: list[int] = []
        self._fails_on = fails_on

    def __call__(self, seed: int) -> seeds.Figures:
        if seed == self._fails_on:
            raise KeyboardInterrupt
        self.ran.append(seed)
        return {"clean": (50.0 + seed, 60.0 + seed), "attacked": (1.0, 2.0)}


def test_an_interrupted_comparison_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "made" / "figures.json"
    with pytest.raises(KeyboardInterrupt):
        seeds.over_seeds(Measure(fails_on=2), range(3), path, "as ever")
    measure = Measure()
    figures = seeds.over_seeds(measure, range(3), path, "as ever")
    assert measure.ran == [2]
    assert [tuple(found["clean"]) for found in figures] == [
        (50.0, 60.0),
        (51.0, 61.0),
        (52.0, 62.0),
    ]


def test_figures_of_other_settings_are_measured_anew(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    seeds.over_seeds(Measure(), range(2), path, "before")
    measure = Measure()
    seeds.over_seeds(measure, range(2), path, "after")
    assert measure.ran == [0, 1]


def test_the_table_holds_mean_and_standard_deviation(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    figures = seeds.over_seeds(Measure(), range(3), path, "as ever")
    table = seeds.format_table(figures, "test accuracy in %").splitlines()
    assert table[0].split() == ["test", "accuracy", "in", "%", "plain", "regularized"]
    assert table[2].split() == ["clean", "51.0", "±", "0.8", "61.0", "±", "0.8"]
    assert table[3].split() == ["attacked", "1.0", "±", "0.0", "2.0", "±", "0.0"]
    assert table[-1] == "mean ± standard deviation of 3 seeds"


def test_rows_may_be_shorter_and_end_after_the_first_seeds() -> None:
    figures = [{"few": (1.0, 2.0), "all": (8.0,)}, {"few": (3.0, 4.0)}]
    table = seeds.format_table(figures, "%").splitlines()
    assert table[2].split() == ["few", "2.0", "±", "1.0", "3.0", "±", "1.0"]
    assert table[3].split() == ["all", "8.0", "±", "0.0"]


def test_published_figures_stand_beside_the_rows_they_belong_to(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    figures = seeds.over_seeds(Measure(), range(1), path, None)
    beside = ("published", {"attacked": "3.0 / 4.0"})
    table = seeds.format_table(figures, "%", beside=beside).splitlines()
    assert table[0].split() == ["%", "plain", "regularized", "published"]
    assert table[2].split() == ["clean", "50.0", "±", "0.0", "60.0", "±", "0.0"]
    assert table[3].split()[-3:] == ["3.0", "/", "4.0"]
    assert len(table[3]) == len(table[1]) == len(table[0])
