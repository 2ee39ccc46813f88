"""What a report certifies: closed forms, all that limits a ball, and no more."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import nsl
from nsl.robustness import RobustnessReport
from tests.robustness.evaluate_test import (
    DISTANCES,
    EPSILONS,
    WEIGHTS,
    Steepest,
    X,
    Y,
)


def linear(activation: str | None = None) -> keras.Model:
    layer = keras.layers.Dense(2, use_bias=False, activation=activation)
    model = keras.Sequential([keras.Input((8,)), layer])
    model.set_weights([WEIGHTS])
    return model


def evaluate(model: Any, epsilons: Any = EPSILONS, **settings: Any) -> RobustnessReport:
    none = {"none": Steepest(share=0.0)}
    settings = {"attacks": none, "check": False, "certify": True, **settings}
    return nsl.evaluate_robustness(model, X, settings.pop("y", Y), epsilons, **settings)


class TestALinearModel:
    @pytest.mark.parametrize("activation", [None, "softmax"])
    def test_is_certified_up_to_its_distance(self, activation: str | None) -> None:
        report = evaluate(linear(activation))
        expected = np.array(EPSILONS)[:, None] < DISTANCES
        np.testing.assert_array_equal(report.certified, expected)
        shares = dict(zip(EPSILONS, expected.mean(1), strict=True))
        assert report.certified_accuracy == pytest.approx(shares)

    def test_of_one_probability(self) -> None:
        sigmoid = keras.layers.Dense(1, use_bias=False, activation="sigmoid")
        model = keras.Sequential([keras.Input((8,)), sigmoid])
        model.set_weights([WEIGHTS[:, 1:] - WEIGHTS[:, :1]])
        expected = np.array(EPSILONS)[:, None] < DISTANCES
        np.testing.assert_array_equal(evaluate(model).certified, expected)

    def test_within_bounds_masks_and_a_radius_per_column(self) -> None:
        mask, low, high = np.arange(8) % 2, 0.2, 0.7
        radius = np.linspace(0.05, 0.4, 8).astype(np.float32)
        limits = {"bounds": (low, high), "feature_mask": mask.astype(np.float32)}
        report = evaluate(linear(), radius[None], **limits)
        down = np.maximum(X - mask * radius, np.minimum(X, low))
        up = np.minimum(X + mask * radius, np.maximum(X, high))
        way = np.where(Y[:, None] == 0, 1, -1) * (WEIGHTS[:, 0] - WEIGHTS[:, 1])
        least = np.where(way > 0, down, up)
        np.testing.assert_array_equal(report.certified[0], (least * way).sum(1) > 1e-4)

    def test_in_other_norms_the_box_around_the_ball_counts(self) -> None:
        report, box = evaluate(linear(), norm="l2"), evaluate(linear())
        np.testing.assert_array_equal(report.certified, box.certified)


class TestOutputs:
    def test_several_are_certified_each_and_jointly(self) -> None:
        keras.utils.set_random_seed(0)
        inputs = keras.Input((8,))
        outputs = {n: keras.layers.Dense(2, name=n)(inputs) for n in ("a", "b")}
        model = keras.Model(inputs, outputs)
        report = evaluate(model, y={"a": Y, "b": Y})
        parts = [part.certified for part in report.parts.values()]
        np.testing.assert_array_equal(report.certified, parts[0] & parts[1])
        chosen = evaluate(model, output="b")
        np.testing.assert_array_equal(chosen.certified, parts[1])

    def test_a_function_of_outputs_has_no_bounds(self) -> None:
        with pytest.raises(ValueError, match="of another kind"):
            evaluate(linear(), output=lambda outputs: outputs)


class TestReports:
    def test_attacks_leave_out_what_is_certified(self) -> None:
        attack = Steepest()
        evaluate(linear(), attacks={"steepest": attack})
        assert attack.calls[0] == (EPSILONS[0], np.sum(EPSILONS[0] >= DISTANCES))
        attack = Steepest()
        evaluate(linear(), attacks={"steepest": attack}, cascade=False)
        assert attack.calls[0] == (EPSILONS[0], len(X))

    def test_say_what_is_certified(self, tmp_path: Path) -> None:
        report = evaluate(linear(), attacks={"steepest": Steepest()})
        assert report.certified_accuracy == report.robust_accuracy
        assert "certified" in str(report)
        assert "interval bounds prove" in str(report)
        assert RobustnessReport.from_json(report.to_json()) == report
        report.to_html(tmp_path / "report.html")
        assert "certified, radius" in (tmp_path / "report.html").read_text()

    def test_say_nothing_without_being_asked(self) -> None:
        report = evaluate(linear(), certify=False)
        assert report.certified is None
        assert report.certified_accuracy == {}
        assert "certified" not in str(report)

    def test_warn_of_a_certificate_that_an_attack_broke(self) -> None:
        class Wrong(keras.layers.Layer):
            def call(self, x: Any) -> Any:
                return x

            def interval_bounds(self, lower: Any, upper: Any) -> Any:
                middle = (lower + upper) / 2
                return middle, middle + 1e-6

        model = keras.Sequential([keras.Input((8,)), Wrong(), *linear().layers])
        with pytest.warns(nsl.robustness.RobustnessWarning, match="certificate_broken"):
            report = evaluate(
                model, attacks={"steepest": Steepest()}, cascade=False, check=True
            )
        assert "certificate_broken" in [found.name for found in report.warnings]


class Spread(keras.Model):
    def call(self, x: Any) -> Any:
        return tf.matmul(x, WEIGHTS)


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a function": (lambda x: tf.matmul(x, WEIGHTS), {}, "functional Keras model"),
    "a subclass": (Spread(), {}, "functional Keras model"),
    "a layer": (linear(), {"layer": "dense"}, "of another kind"),
    "a loss": (
        linear(),
        {"criterion": nsl.robustness.Within(1.0), "y": X[:, :2]},
        "of another kind",
    ),
}


@pytest.mark.parametrize(
    ("model", "settings", "message"), REFUSED.values(), ids=REFUSED
)
def test_refuses(model: Any, settings: dict[str, Any], message: str) -> None:
    if "layer" in settings:
        settings = {"layer": model.layers[0].name}
    with pytest.raises(ValueError, match=message):
        evaluate(model, **settings)
