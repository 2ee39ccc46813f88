"""The report: shares, the printed table, JSON and the plot."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsl.robustness.report import AttackResult, Finding, RobustnessReport


def _bools(*rows: str) -> np.ndarray:
    return np.array([[c == "1" for c in row] for row in rows])


@pytest.fixture
def report() -> RobustnessReport:
    return RobustnessReport(
        norm="infinity",
        epsilons=(0.1, 0.3),
        correct=_bools("11110")[0],
        results={
            "pgd": AttackResult(_bools("11100", "01000"), [1.5, 0.25], [100, 200]),
            "square": AttackResult(
                _bools("10100", "01000"), [2.0, 0.0], [1000, 3000], black_box=True
            ),
        },
        warnings=[Finding("random_model", "Two passes differ.")],
        cascade=False,
    )


def test_shares(report: RobustnessReport) -> None:
    assert report.num_examples == 5
    assert report.clean_accuracy == pytest.approx(0.8)
    assert report.accuracy == {
        "pgd": {0.1: 0.6, 0.3: 0.2},
        "square": {0.1: 0.4, 0.3: 0.2},
    }
    np.testing.assert_array_equal(report.robust, _bools("10100", "01000"))
    assert report.robust_accuracy == {0.1: 0.4, 0.3: 0.2}


def test_without_attacks_what_is_correct_stands() -> None:
    report = RobustnessReport("l2", (1.0,), np.array([True, False]))
    assert report.robust_accuracy == {1.0: 0.5}
    assert "robust accuracy" in str(report)


def test_prints_an_aligned_table(report: RobustnessReport) -> None:
    assert str(report) == (
        "Accuracy of 5 examples against perturbations of L-infinity norm at most "
        "epsilon\n"
        "                   0.1    0.3  seconds  passes\n"
        "clean            80.0%  80.0%\n"
        "pgd              60.0%  20.0%      1.8     300\n"
        "square           40.0%  20.0%      2.0   4,000\n"
        "robust accuracy  40.0%  20.0%\n"
        "Warning: random_model: Two passes differ."
    )


def test_a_cascade_says_that_later_attacks_go_on(report: RobustnessReport) -> None:
    report.cascade = True
    assert "\nthen square " in str(report)
    assert "\npgd " in str(report)


def test_json_round_trip(report: RobustnessReport) -> None:
    restored = RobustnessReport.from_json(report.to_json())
    assert restored == report
    assert restored.robust.dtype == bool
    report.results["pgd"].robust[0, 0] = False
    assert restored != report


def test_assumptions_and_parts_are_printed_and_kept(report: RobustnessReport) -> None:
    report.parts = {"size": RobustnessReport("l2", (0.1, 0.3), _bools("11100")[0])}
    report.assumptions = ["The outputs are treated as logits: rows do not sum to 1."]
    lines = str(report).splitlines()
    assert "size alone (clean 60.0%)  60.0%  60.0%" in lines
    assert f"Assumed: {report.assumptions[0]}" in lines
    restored = RobustnessReport.from_json(report.to_json())
    assert restored == report
    assert restored.parts["size"].norm.value == "l2"


def test_a_radius_of_each_column_is_a_text(
    report: RobustnessReport, tmp_path: Path
) -> None:
    report.epsilons = ("age 5.0, income 100.0", "age 9.0, income 100.0")
    assert list(report.robust_accuracy) == list(report.epsilons)
    assert "age 9.0, income 100.0" in str(report).splitlines()[1]
    assert RobustnessReport.from_json(report.to_json()) == report
    axes = report.plot(tmp_path / "curve.png")
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0", *report.epsilons]


@pytest.mark.parametrize("text", ["[]", '{"a": 1}'])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Expected JSON from RobustnessReport"):
        RobustnessReport.from_json(text)


def test_a_later_version_is_refused(report: RobustnessReport) -> None:
    text = report.to_json().replace('"version": 2', '"version": 99')
    with pytest.raises(ValueError, match=r"version 99.*update nsl"):
        RobustnessReport.from_json(text)


def test_plots_a_line_an_attack_and_robust_accuracy_bold(
    report: RobustnessReport, tmp_path: Path
) -> None:
    axes = report.plot(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines) == ["pgd", "square", "robust accuracy"]
    np.testing.assert_allclose(lines["square"].get_xydata()[:, 0], [0.0, 0.1, 0.3])
    np.testing.assert_allclose(lines["square"].get_xydata()[:, 1], [0.8, 0.4, 0.2])
    widths = {label: line.get_linewidth() for label, line in lines.items()}
    assert widths["robust accuracy"] > 2 * widths["pgd"]


def test_plots_into_given_axes(report: RobustnessReport) -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    assert report.plot(axes) is axes
    assert len(axes.get_lines()) == 3


def test_without_matplotlib_it_says_what_to_install(
    report: RobustnessReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"pip install 'nsl\[plot\]'"):
        report.plot("curve.png")
