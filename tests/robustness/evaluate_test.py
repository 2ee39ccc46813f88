"""evaluate_robustness: closed forms, cascades, resuming, structures, errors."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

import nsl
from nsl.attacks import FAB, FGSM, PGD, Square
from nsl.attacks.model_adapter import adapt
from nsl.robustness import RobustnessReport, evaluate_robustness

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(8, 2)).astype(np.float32)
X = RNG.uniform(0.0, 1.0, (60, 8)).astype(np.float32)


def linear(x: Any) -> tf.Tensor:
    return tf.matmul(x, WEIGHTS)


Y = np.argmax(linear(X), axis=1)
# The way to the hyperplane between the classes in the L-infinity norm.
DIFFERENCE = WEIGHTS[:, 0] - WEIGHTS[:, 1]
DISTANCES = np.abs(X @ DIFFERENCE) / np.abs(DIFFERENCE).sum()
EPSILONS = [0.05, 0.1, 0.2]


class Steepest:
    """The best attack of the linear model, on a share of the examples it is given."""

    def __init__(self, share: float = 1.0) -> None:
        self.share = share
        self.calls: list[tuple[float, int]] = []

    def __call__(
        self, model: Callable[..., Any], x: Any, y: Any, *, epsilon: float, **_: Any
    ) -> Any:
        self.calls.append((epsilon, len(x)))
        sign = np.where(y == 0, -1.0, 1.0)[:, None] * np.sign(DIFFERENCE)
        sign[int(np.ceil(self.share * len(x))) :] = 0.0
        return x + (epsilon * sign).astype(np.float32)


def _evaluate(*args: Any, **kwargs: Any) -> RobustnessReport:
    return evaluate_robustness(*args, **{"check": False, **kwargs})


def test_is_offered_at_the_top() -> None:
    assert nsl.evaluate_robustness is evaluate_robustness
    assert "evaluate_robustness" in dir(nsl)


def test_accuracy_of_a_linear_model_in_closed_form() -> None:
    y = np.where(np.arange(60) < 6, 1 - Y, Y)
    report = _evaluate(linear, X, y, EPSILONS, attacks={"best": Steepest()})
    stands = (np.arange(60) >= 6) & (np.array(EPSILONS)[:, None] < DISTANCES)
    assert report.clean_accuracy == pytest.approx(0.9)
    np.testing.assert_array_equal(report.robust, stands)
    assert list(report.robust_accuracy) == EPSILONS
    assert 0 < report.robust_accuracy[0.2] < report.robust_accuracy[0.05] < 0.9


def test_the_standard_suite_finds_all_that_can_fall() -> None:
    epsilons = [0.05, 0.2]
    with pytest.warns(nsl.robustness.RobustnessWarning, match="too_few_classes"):
        report = evaluate_robustness(linear, X, Y, epsilons, verbose=False)
    assert list(report.results) == ["apgd-ce", "apgd-margin", "fab-t", "square"]
    np.testing.assert_array_equal(
        report.robust, np.array(epsilons)[:, None] < DISTANCES
    )
    assert [finding.name for finding in report.warnings] == ["too_few_classes"]


def test_later_attacks_only_try_what_still_stands() -> None:
    first, second = Steepest(0.5), Steepest()
    report = _evaluate(linear, X, Y, [0.2, 0.1], attacks={"a": first, "b": second})
    assert [epsilon for epsilon, _ in first.calls] == [0.1, 0.2]
    for name, attack, before in (("a", first, None), ("b", second, "a")):
        expected = (
            report.results[before].robust.sum(1) if before else np.array([60, 60])
        )
        found = [count for _, count in attack.calls]
        if before is None:
            # At 0.2 what has fallen at 0.1 is not tried again.
            expected[1] = report.results[name].robust[0].sum()
        assert found[0] == expected[0]
        assert found[1] <= expected[1]


def test_what_falls_at_an_epsilon_falls_at_larger_ones() -> None:
    class OnlySmall(Steepest):
        def __call__(self, *args: Any, epsilon: float, **kwargs: Any) -> Any:
            smaller = 0.1 if epsilon == 0.1 else 0.0
            return super().__call__(*args, epsilon=smaller, **kwargs)

    report = _evaluate(linear, X, Y, [0.05, 0.1, 0.2], attacks=[OnlySmall()])
    np.testing.assert_array_equal(report.robust[2], report.robust[1])
    assert report.robust[0].all()
    assert not report.robust[1].all()


def test_without_cascade_each_attack_tries_all() -> None:
    attacks = {"a": Steepest(0.5), "b": Steepest(0.7)}
    report = _evaluate(linear, X, Y, EPSILONS, attacks=attacks, cascade=False)
    for name, attack in attacks.items():
        assert attack.calls[0] == (0.05, 60)
        for epsilon, share in report.robust_accuracy.items():
            assert share <= report.accuracy[name][epsilon] <= report.clean_accuracy


def test_points_out_of_the_ball_do_not_count() -> None:
    def cheats(model: Any, x: Any, y: Any, **_: Any) -> Any:
        return Steepest()(model, x, y, epsilon=5.0)

    with pytest.warns(nsl.robustness.RobustnessWarning, match="left_the_ball.*cheats"):
        report = _evaluate(linear, X, Y, 0.05, attacks=[cheats])
    assert report.robust_accuracy == {0.05: 1.0}


def test_minimum_norm_attacks_run_once_for_all_epsilons() -> None:
    fab = FAB(steps=10)
    report = _evaluate(linear, X, Y, EPSILONS, attacks=[fab])
    stands = np.array(EPSILONS)[:, None] < DISTANCES
    np.testing.assert_array_equal(report.robust, stands)
    assert report.results["fab"].model_passes[1:] == [0, 0]
    assert report.results["fab"].model_passes[0] > 60


def test_counts_model_passes() -> None:
    report = _evaluate(linear, X, Y, 0.1, attacks={"none": Steepest(0.0)})
    # The attack makes none; each point is checked once.
    assert report.results["none"].model_passes == [60]


def test_clean_examples_go_through_the_model_once() -> None:
    def model(x: Any) -> tf.Tensor:
        return linear(x)

    def loss(y: Any, outputs: Any) -> tf.Tensor:
        return outputs[:, 0]

    for given in ({}, {"loss": loss}):
        passes = adapt(model).passes
        _evaluate(model, X, Y, 0.1, attacks={"none": Steepest(0.0)}, **given)
        # Besides, one example goes for the gradient, and all after the attack.
        assert adapt(model).passes - passes == 60 + 1 + 60


# In how many calls from now on the user interrupts.
INTERRUPTS: list[int] = []


class Interrupted(Steepest):
    """Stops when the user says so."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if INTERRUPTS and INTERRUPTS.pop() == 0:
            raise KeyboardInterrupt
        return super().__call__(*args, **kwargs)


def test_a_resumed_evaluation_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    def run(second: Any, resume: Path | None) -> RobustnessReport:
        attacks = {"pgd": PGD(steps=3), "second": second, "fab": FAB(steps=3)}
        report = _evaluate(linear, X, Y, EPSILONS, attacks=attacks, resume=resume)
        for result in report.results.values():
            result.seconds = [0.0] * len(EPSILONS)
        return report

    path = tmp_path / "resume.json"
    expected = run(Interrupted(0.3), None)
    INTERRUPTS[:] = [0, 1]
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(0.3), path)
    assert not INTERRUPTS
    resumed = Interrupted(0.3)
    assert run(resumed, path) == expected
    assert [epsilon for epsilon, _ in resumed.calls] == EPSILONS[1:]
    again = Interrupted(0.3)
    assert run(again, path) == expected
    assert again.calls == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": lambda x: linear(x) + 0.1}, "model"),
        ({"x": X + 0.01}, "x, model"),
        ({"y": 1 - Y}, "Differences: y"),
        ({"epsilons": 0.2}, r"epsilons \(then '\[0.1\]', now '\[0.2\]'\)"),
        ({"attacks": [FGSM(), PGD(steps=2)]}, "attacks"),
        ({"bounds": (0, 1)}, "limits"),
        ({"seed": 3}, "seed"),
    ],
)
def test_another_evaluation_is_not_resumed(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    given = {"model": linear, "x": X, "y": Y, "epsilons": 0.1, "attacks": [FGSM()]}
    path = tmp_path / "resume.json"
    _evaluate(**given, resume=path)
    with pytest.raises(ValueError, match=f"another evaluation.*{message}"):
        _evaluate(**{**given, **change}, resume=path)


def test_structures_of_features() -> None:
    def model(x: Any) -> tf.Tensor:
        return linear(tf.concat([x["a"], x["b"]], axis=1))

    x = {"a": X[:, :3], "b": X[:, 3:], "id": np.arange(60)}
    report = _evaluate(model, x, Y, EPSILONS, attacks=["fgsm"])
    stands = np.array(EPSILONS)[:, None] < DISTANCES
    np.testing.assert_array_equal(report.robust, stands)


def test_a_mask_keeps_features() -> None:
    mask = np.zeros(8, np.float32)
    report = _evaluate(linear, X, Y, 0.2, attacks=["pgd-10"], feature_mask=mask)
    assert report.robust_accuracy == {0.2: 1.0}


def test_a_keras_model_with_one_output_for_two_classes() -> None:
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(1, activation="sigmoid")]
    )
    model.set_weights([-DIFFERENCE[:, None], np.zeros(1)])
    report = _evaluate(model, X, Y[:, None], EPSILONS, attacks=["fgsm"])
    stands = np.array(EPSILONS)[:, None] < DISTANCES
    np.testing.assert_array_equal(report.robust, stands)


def test_the_model_is_left_as_it_was() -> None:
    model = keras.Sequential(
        [
            keras.Input((4, 2)),
            keras.layers.GRU(5),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3),
        ]
    )
    before = [v.numpy() for v in model.variables]
    x = X.reshape(-1, 4, 2)
    y = np.argmax(model(x), axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nsl.robustness.RobustnessWarning)
        report = evaluate_robustness(model, x, y, 0.1, attacks="quick", batch_size=25)
    assert report.clean_accuracy == 1.0
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_digits_attacks_grow_stronger() -> None:
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    model.fit(images[:1000], labels[:1000], epochs=15, verbose=0)
    report = evaluate_robustness(
        model,
        images[1000:1150],
        labels[1000:1150],
        [0.05, 0.1],
        attacks=["fgsm", "pgd", Square(steps=100)],
        bounds=(0, 1),
        cascade=False,
    )
    assert report.warnings == []
    assert report.clean_accuracy > 0.85
    for epsilon, worst in report.robust_accuracy.items():
        accuracy = {name: report.accuracy[name][epsilon] for name in report.results}
        assert report.clean_accuracy > accuracy["fgsm"] >= accuracy["pgd"] - 0.02
        assert accuracy["pgd"] >= worst
        assert accuracy["square"] >= worst


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilons": 0.0}, "epsilons must be a number greater than 0"),
        ({"epsilons": []}, "epsilons must be"),
        ({"epsilons": [0.1, np.inf]}, "epsilons must be"),
        ({"attacks": []}, "attacks must name at least one attack"),
        ({"attacks": "pdg"}, r"'pdg', but the attacks.*'pgd'.*'standard'"),
        ({"attacks": ["pgd", PGD()]}, "Two attacks are named 'pgd'"),
        ({"attacks": [PGD(norm="l2")]}, "'pgd' has norm='l2'.*has norm='infinity'"),
        ({"attacks": {"mine": 3}}, "'mine' must be an nsl.attacks object"),
        ({"y": Y[:5]}, "y must have one entry for each of the 60 examples"),
        ({"norm": "l3"}, "l3"),
    ],
)
def test_errors_name_the_mistake(change: dict[str, Any], message: str) -> None:
    given = {"model": linear, "x": X, "y": Y, "epsilons": 0.1, "attacks": "quick"}
    with pytest.raises(ValueError, match=message):
        _evaluate(**{**given, **change})
