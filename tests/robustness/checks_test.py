"""Each check finds what deserves it, and only that, at its threshold."""

import sys
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from nsl.attacks.model_adapter import ModelAdapter, are_probabilities
from nsl.robustness import checks
from nsl.robustness.report import AttackResult, Finding, RobustnessReport

LOGITS = np.array([[2.0, -1.0, 0.5], [0.3, 0.3, 0.4]])
PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])


def _name(finding: Finding | None) -> str | None:
    return None if finding is None else finding.name


def test_probabilities_as_logits() -> None:
    name = "probabilities_as_logits"
    assert _name(checks.wrong_kind_of_outputs(PROBABILITIES, True)) == name
    assert checks.wrong_kind_of_outputs(PROBABILITIES, False) is None
    assert checks.wrong_kind_of_outputs(LOGITS, True) is None


def test_logits_as_probabilities() -> None:
    found = checks.wrong_kind_of_outputs(LOGITS, False)
    assert found is not None
    assert found.name == "logits_as_probabilities"
    assert "from -1 to 2" in found.message
    assert checks.wrong_kind_of_outputs(LOGITS, True) is None
    assert checks.wrong_kind_of_outputs(PROBABILITIES, False) is None


def test_rounded_probabilities_are_probabilities() -> None:
    assert are_probabilities(PROBABILITIES + 3e-4)
    assert not are_probabilities(PROBABILITIES + 1e-3)


@pytest.mark.parametrize(("zeros", "found"), [(5, False), (6, True)])
def test_zero_gradients(zeros: int, found: bool) -> None:
    gradients = np.ones((100, 3))
    gradients[:, 0] = 0.0
    gradients[:zeros] = 0.0
    assert (checks.zero_gradients(gradients) is not None) == found


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_exploding_gradients(value: float) -> None:
    gradients = np.ones((10, 3))
    assert checks.exploding_gradients(gradients, 0.1) is None
    gradients[3, 1] = value
    found = checks.exploding_gradients(gradients, 0.1)
    assert _name(found) == "exploding_gradients"
    assert "10.0% of the examples" in found.message or "10.0% so large" in found.message


def test_random_model() -> None:
    assert checks.random_model(LOGITS, LOGITS + 1e-4) is None
    found = checks.random_model(LOGITS, LOGITS + 0.1)
    assert _name(found) == "random_model"
    assert "0.05 of the largest" in found.message


def test_batch_dependent() -> None:
    assert checks.batch_dependent(LOGITS, LOGITS + 1e-4) is None
    found = checks.batch_dependent(LOGITS, LOGITS - 0.1)
    assert _name(found) == "batch_dependent"
    assert "0.05 of the largest" in found.message


def test_guessed_outputs() -> None:
    assert checks.guessed_outputs(False, False) is None
    found = checks.guessed_outputs(True, False)
    assert _name(found) == "guessed_outputs"
    assert "treated as probabilities" in found.message
    assert "Pass from_logits=False if it is right, from_logits=True" in found.message


def _adapted(model: Any) -> ModelAdapter:
    adapter = ModelAdapter(model)
    adapter.examine(tf.ones((2, 3)))
    return adapter


def test_optimizes() -> None:
    def plain(x: Any) -> Any:
        return 2 * x

    def tape(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(x**2)
        return x - 0.1 * tape.gradient(loss, x)

    x = tf.ones((2, 3))
    assert checks.optimizes(_adapted(plain), x) is None
    for model in (tape, tf.function(tf.autograph.experimental.do_not_convert(tape))):
        assert _name(checks.optimizes(_adapted(model), x)) == "optimizes"
    # The tape of whoever calls is no matter.
    adapter = _adapted(plain)
    with tf.GradientTape() as outer:
        outer.watch(x)
        assert checks.optimizes(adapter, x) is None
    assert sys.getprofile() is None


def test_inputs_out_of_bounds() -> None:
    assert checks.inputs_out_of_bounds(1e-7, (0, 1)) is None
    found = checks.inputs_out_of_bounds(254.0, (0, 1))
    assert _name(found) == "inputs_out_of_bounds"
    assert "up to 254 outside bounds=(0, 1)" in found.message


def test_model_at_chance() -> None:
    labels = np.arange(100) % 4
    better, chance = np.arange(100) % 2 == 0, np.arange(100) % 4 == 1
    assert checks.model_at_chance(better, labels) is None
    assert _name(checks.model_at_chance(chance, labels)) == "model_at_chance"
    mostly_one = np.where(np.arange(100) < 90, 1, 0)
    assert checks.model_at_chance(mostly_one == 1, mostly_one) is not None


def test_too_few_classes() -> None:
    assert checks.too_few_classes(10, []) is None
    found = checks.too_few_classes(2, ["apgd-t"])
    assert _name(found) == "too_few_classes"
    assert "apgd-t needs at least 4 classes" in found.message


def test_robust_at_huge_epsilon() -> None:
    assert checks.robust_at_huge_epsilon(0.1, 10, 1.0) is None
    found = checks.robust_at_huge_epsilon(0.11, 10, 1.0)
    assert _name(found) == "robust_at_huge_epsilon"


def test_left_the_ball() -> None:
    assert checks.left_the_ball("mine", 0.0, 0.1) is None
    found = checks.left_the_ball("mine", 0.25, 0.1)
    assert _name(found) == "left_the_ball"
    assert "25.0% of the points that mine returned" in found.message


def _report(
    white: int, black: int, cascade: bool = True, black_first: bool = False
) -> RobustnessReport:
    """Of 100 examples, those from `white` (`black`) on stand after each attack."""
    number = np.arange(100)
    results = {
        "pgd": AttackResult((number >= white)[np.newaxis], [0.0], [0]),
        "square": AttackResult((number >= black)[np.newaxis], [0.0], [0], True),
    }
    if black_first:
        results = dict(reversed(results.items()))
    return RobustnessReport(
        "infinity", (0.1,), np.ones(100, bool), results, cascade=cascade
    )


def test_black_box_beats_white_box() -> None:
    found = checks.black_box_beats_white_box(_report(50, 53))
    assert _name(found) == "black_box_beats_white_box"
    assert "square" in found.message
    assert "3.0% of the examples at epsilon 0.1" in found.message


def test_black_box_may_win_a_few() -> None:
    assert checks.black_box_beats_white_box(_report(50, 52)) is None


def test_in_a_cascade_a_first_black_box_proves_nothing() -> None:
    report = _report(80, 50, black_first=True)
    assert checks.black_box_beats_white_box(report) is None


def test_alone_the_order_does_not_matter() -> None:
    for black_first in (False, True):
        report = _report(50, 60, cascade=False, black_first=black_first)
        assert checks.black_box_beats_white_box(report) is not None
        report = _report(60, 50, cascade=False, black_first=black_first)
        assert checks.black_box_beats_white_box(report) is None
