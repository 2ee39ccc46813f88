"""Each warning is given for a model that deserves it, and for no sound one."""

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from nsl.attacks import PGD, Square
from nsl.robustness import RobustnessReport, RobustnessWarning, evaluate_robustness

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(12, 4)).astype(np.float32)
X = RNG.uniform(0.0, 1.0, (80, 12)).astype(np.float32)
CENTERED = X - 0.5


def sound(x: Any) -> tf.Tensor:
    return tf.matmul(x - 0.5, WEIGHTS)


Y = np.argmax(sound(X), axis=1)


def probabilities(x: Any) -> tf.Tensor:
    return tf.nn.softmax(sound(x))


def quantized(x: Any) -> tf.Tensor:
    return sound(tf.round(x * 32.0) / 32.0)


def saturated(x: Any) -> tf.Tensor:
    return tf.nn.softmax(1e4 * sound(x))


def noisy(x: Any) -> tf.Tensor:
    logits = sound(x)
    return logits + 0.1 * tf.random.normal(tf.shape(logits))


def steep(x: Any) -> tf.Tensor:
    # The root of nearly zero: almost nothing, with a gradient of 5e7.
    zero = x[:, :4] - tf.stop_gradient(x[:, :4])
    return sound(x) + tf.sqrt(zero + 1e-16)


def broken(x: Any) -> tf.Tensor:
    return sound(x) + tf.sqrt(x[:, :4] - tf.stop_gradient(x[:, :4]))


def constant(x: Any) -> tf.Tensor:
    return sound(tf.zeros_like(x) + tf.reduce_mean(x) * 0.0)


def normalized(x: Any) -> tf.Tensor:
    logits = sound(x)
    return logits - tf.reduce_mean(logits, axis=0) + tf.reduce_mean(sound(X), axis=0)


def purified(x: Any) -> tf.Tensor:
    with tf.GradientTape() as tape:
        tape.watch(x)
        energy = tf.reduce_sum(tf.square(x - 0.5))
    return sound(x - 0.01 * tape.gradient(energy, x))


def one_output(x: Any) -> tf.Tensor:
    return tf.sigmoid(sound(x)[:, :1])


def two_classes(x: Any) -> tf.Tensor:
    return sound(x)[:, :2]


def _names(model: Callable[[Any], Any], **given: Any) -> list[str]:
    arguments = {"epsilons": 0.05, "attacks": "quick", "bounds": (0.0, 1.0), "y": Y}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RobustnessWarning)
        report = evaluate_robustness(model, **{"x": X, **arguments, **given})
    told = [w for w in caught if w.category is RobustnessWarning]
    assert [str(w.message) for w in told] == [str(f) for f in report.warnings]
    return [finding.name for finding in report.warnings]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"from_logits": True},
        {"attacks": [PGD(steps=20), Square(steps=50)]},
        {"bounds": None},
        {"norm": "l2"},
        {"norm": "l1"},
    ],
)
def test_a_sound_model_gets_no_warning(given: dict[str, Any]) -> None:
    assert _names(sound, **given) == []


def test_a_sound_model_with_probabilities_gets_no_warning() -> None:
    assert _names(probabilities) == []
    assert _names(probabilities, from_logits=False) == []


def test_probabilities_as_logits() -> None:
    assert "probabilities_as_logits" in _names(probabilities, from_logits=True)


def test_logits_as_probabilities() -> None:
    assert "logits_as_probabilities" in _names(sound, from_logits=False)


def test_masked_gradients_are_uncovered_by_square() -> None:
    y = np.argmax(quantized(X), axis=1)
    attacks = [PGD(steps=10), Square(steps=300)]
    names = _names(quantized, y=y, attacks=attacks, epsilons=0.1)
    assert names == ["zero_gradients", "black_box_beats_white_box"]


def test_a_model_that_no_gradient_attack_moves_robust_at_huge_epsilon() -> None:
    def brightness(x: Any) -> tf.Tensor:
        steps = tf.round(tf.reduce_mean(x, axis=1, keepdims=True) * 10) / 10
        return tf.concat([0.5 - steps, steps - 0.5], axis=1)

    y = np.arange(80) % 2
    x = RNG.uniform(0.0, 0.1, (80, 200)).astype(np.float32) + 0.9 * y[:, None]
    names = _names(brightness, x=x.astype(np.float32), y=y)
    assert names == ["zero_gradients", "robust_at_huge_epsilon"]


def test_saturated_outputs_have_no_gradient() -> None:
    assert "zero_gradients" in _names(saturated)


def test_a_random_model() -> None:
    assert "random_model" in _names(noisy)


@pytest.mark.parametrize("model", [steep, broken])
def test_exploding_gradients(model: Callable[[Any], Any]) -> None:
    assert "exploding_gradients" in _names(model)


def test_a_model_that_depends_on_the_batch() -> None:
    names = _names(normalized, bounds=None)
    assert "batch_dependent" in names
    assert "random_model" not in names


def test_batch_normalization_that_goes_on_training_depends_on_the_batch() -> None:
    layer = keras.layers.BatchNormalization()

    class Model(keras.Model):
        def __init__(self, training: bool) -> None:
            super().__init__()
            self.normalize, self.mode = layer, training

        def call(self, x: Any) -> Any:
            return sound(self.normalize(x, training=self.mode))

    y = np.argmax(Model(True)(X), axis=1)
    assert "batch_dependent" in _names(Model(True), y=y)
    assert "batch_dependent" not in _names(Model(False))


def test_a_model_that_optimizes_while_it_answers() -> None:
    assert _names(purified) == ["optimizes"]


def test_one_output_that_may_be_a_logit() -> None:
    y = (one_output(X).numpy()[:, 0] > 0.5).astype(int)
    guessed = _names(lambda x: tf.identity(one_output(x)), y=y)
    assert guessed == ["guessed_outputs"]
    assert _names(lambda x: tf.identity(one_output(x)), y=y, from_logits=False) == []
    # What leaves [0, 1] is a logit.
    assert _names(lambda x: sound(x)[:, :1], y=y) == []


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_what_keras_says_of_its_outputs_is_no_guess(activation: str) -> None:
    units = 1 if activation == "sigmoid" else 4
    layer = keras.layers.Dense(units, activation)
    model = keras.Sequential([keras.Input((12,)), layer])
    weights, bias = WEIGHTS[:, :units], -0.5 * WEIGHTS[:, :units].sum(axis=0)
    model.set_weights([weights, bias])
    outputs = model(X).numpy()
    y = outputs.argmax(1) if units > 1 else (outputs[:, 0] > 0.5).astype(int)
    assert _names(model, y=y) == []


def test_a_sound_model_of_arrays_gets_no_warning_of_gradients() -> None:
    def arrays(x: np.ndarray) -> np.ndarray:
        return np.asarray(sound(x), np.float64)

    names = _names(arrays, attacks=[Square(steps=20)])
    assert not {"random_model", "batch_dependent", "optimizes"} & set(names)


def test_inputs_out_of_bounds() -> None:
    assert "inputs_out_of_bounds" in _names(sound, bounds=(0.25, 0.75))


def test_a_model_at_chance() -> None:
    assert "model_at_chance" in _names(constant)
    assert "model_at_chance" in _names(sound, y=RNG.permutation(Y))


def test_too_few_classes() -> None:
    y = np.argmax(two_classes(X), axis=1)
    assert _names(two_classes, y=y, attacks=["apgd-t"]) == ["too_few_classes"]
    assert _names(sound, attacks=["apgd-t"]) == []


def test_checks_can_be_left_out() -> None:
    assert _names(noisy, check=False) == []


def test_the_report_prints_them() -> None:
    with pytest.warns(RobustnessWarning):
        report = evaluate_robustness(noisy, X, Y, 0.05, attacks="quick")
    assert isinstance(report, RobustnessReport)
    assert "\nWarning: random_model: Two forward passes" in str(report)
