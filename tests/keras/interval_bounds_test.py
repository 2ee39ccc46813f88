"""Training on interval bounds: the weights by hand, and what is certified after it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

import nsl
from nsl.lib import interval_bounds
from tests.keras.contract.base import assert_weights_equal

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RATE, RADIUS, MULTIPLIER = 0.1, 0.2, 0.5
X = np.random.default_rng(0).uniform(size=[16, 4]).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, 16)
BOUNDS = {
    "objective": "interval_bounds",
    "multiplier": MULTIPLIER,
    "adv_grad_norm": "infinity",
    "pgd_epsilon": RADIUS,
    "clip_value_min": 0.0,
    "clip_value_max": 1.0,
}
ASCENT = {"mode": "replace", "adv_step_size": 0.15, "pgd_iterations": 2}


def network(activation=None, outputs=3, *layers):
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(6, activation="relu")
    last = keras.layers.Dense(outputs, activation=activation)
    return keras.Sequential([keras.Input((4,)), hidden, *layers, last])


def compiled(base, loss=LOSS, compile_args=None, **config):
    config = nsl.configs.make_adv_reg_config(**{**BOUNDS, **config})
    model = nsl.keras.AdversarialRegularization(base, adv_config=config)
    model.compile(keras.optimizers.SGD(RATE), loss, **(compile_args or {}))
    return model


def fitted(base, y=Y, **settings):
    model = compiled(base, **settings)
    model.fit(X, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    return base.get_weights()


def batches():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).repeat(2)


def box(x):
    return tf.maximum(x - RADIUS, 0.0), tf.minimum(x + RADIUS, 1.0)


def climbed(base, x, y):
    moved = x
    for _ in range(2):
        with tf.GradientTape() as tape:
            tape.watch(moved)
            loss = LOSS(y, base(moved))
        moved = moved + 0.15 * tf.sign(tape.gradient(loss, moved))
        moved = tf.clip_by_value(moved, *box(x))
    return moved


class TestWeights:
    @pytest.mark.parametrize("mode", ["add", "replace"])
    def test_are_those_by_hand(self, mode):
        base = network()
        weights = base.trainable_variables
        for x, y in batches():
            at = climbed(base, x, y) if mode == "replace" else x
            with tf.GradientTape() as tape:
                worst = interval_bounds(base, *box(x)).worst_case_logits(y)
                loss = LOSS(y, base(at)) + MULTIPLIER * LOSS(y, worst)
            gradients = tape.gradient(loss, weights)
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.assign_sub(RATE * gradient)
        ascent = ASCENT if mode == "replace" else {}
        assert_weights_equal(fitted(network(), **ascent), base.get_weights())

    @pytest.mark.parametrize("ascent", [{}, ASCENT], ids=["add", "replace"])
    @pytest.mark.parametrize("how", [{"jit_compile": True}, {"run_eagerly": True}])
    def test_are_the_same_under(self, how, ascent):
        same = fitted(network(), compile_args=how, **ascent)
        assert_weights_equal(same, fitted(network(), **ascent))

    def test_of_probabilities_are_those_of_logits(self):
        loss = keras.losses.SparseCategoricalCrossentropy()
        assert_weights_equal(fitted(network("softmax"), loss=loss), fitted(network()))

    def test_of_one_yes_or_no_are_those_of_two_classes(self):
        binary = keras.losses.BinaryCrossentropy(from_logits=True)
        one, two = network(outputs=1), network(outputs=2)
        kernel, bias = one.layers[-1].get_weights()
        halves = np.concatenate([-kernel / 2, kernel / 2], axis=1)
        two.set_weights([*one.get_weights()[:-2], halves, np.append(-bias, bias) / 2])
        of_one = compiled(one, loss=binary).evaluate(X, Y % 2, verbose=0)
        of_two = compiled(two).evaluate(X, Y % 2, verbose=0)
        np.testing.assert_allclose(of_one, of_two, rtol=1e-5)

    @pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
    def test_of_errors_are_those_at_the_farther_end(self, loss):
        base, y = network(outputs=1), np.random.default_rng(2).normal(size=16)
        model = compiled(base, loss=loss)
        found = model.evaluate(X, y, verbose=0, return_dict=True)
        output = interval_bounds(base, *box(X))
        ends = output.lower[:, 0], output.upper[:, 0]
        error = keras.losses.get(loss)
        errors = [
            [error(y[i : i + 1], end[i : i + 1]) for i in range(16)] for end in ends
        ]
        np.testing.assert_allclose(
            found["scaled_adversarial_loss"],
            MULTIPLIER * np.max(errors, axis=0).mean(),
            rtol=1e-5,
        )

    def test_masked_features_do_not_vary(self):
        free = compiled(network(), feature_mask=0.0)
        loss = free.evaluate(X, Y, verbose=0, return_dict=True)
        plain = loss["loss"] - loss["scaled_adversarial_loss"]
        np.testing.assert_allclose(
            loss["scaled_adversarial_loss"], MULTIPLIER * plain, rtol=1e-5
        )

    def test_a_schedule_lets_radius_and_multiplier_grow(self):
        schedule = keras.optimizers.schedules.PolynomialDecay
        model = compiled(
            network(),
            pgd_epsilon=schedule(0.0, 10, 0.2),
            multiplier=schedule(0.0, 10, 1.0),
        )
        history = model.fit(X, Y, batch_size=16, epochs=12, verbose=0).history
        terms = history["scaled_adversarial_loss"]
        assert terms[0] == 0.0
        assert terms[5] < terms[10]

    def test_saved_and_loaded_goes_on_alike(self, tmp_path):
        model = compiled(network(), **ASCENT)
        model.fit(X, Y, batch_size=8, verbose=0)
        keras.saving.save_model(model, tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        results = [m.evaluate(X, Y, verbose=0) for m in (model, loaded)]
        np.testing.assert_allclose(*results, rtol=1e-6)

    def test_evaluation_tells_the_loss(self):
        model = compiled(network())
        found = model.evaluate(X, Y, verbose=0, return_dict=True)
        worst = interval_bounds(model, *box(X)).worst_case_logits(Y)
        np.testing.assert_allclose(
            found["scaled_adversarial_loss"], MULTIPLIER * LOSS(Y, worst), rtol=1e-5
        )


REFUSED = {
    "norm": ({"adv_grad_norm": "l2"}, "adv_grad_norm='infinity'"),
    "radius": ({"pgd_epsilon": None}, "pgd_epsilon"),
    "layer": ({"embedding_layer": "dense"}, "no embedding_layer"),
    "free": ({"mode": "free", "pgd_iterations": 2}, "mode='free'"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_a_config_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        nsl.configs.make_adv_reg_config(**{**BOUNDS, **changes})


class TestErrors:
    def test_a_loss_of_which_nothing_is_known(self):
        with pytest.raises(ValueError, match="whose maximum over an interval is known"):
            fitted(network(outputs=1), loss="poisson")

    def test_probabilities_of_an_unknown_kind(self):
        normalized = keras.layers.Dense(3, activation="relu")
        base = keras.Sequential([keras.Input((4,)), normalized])
        with pytest.raises(ValueError, match="ends with its softmax"):
            fitted(base, loss="sparse_categorical_crossentropy")

    def test_a_layer_without_bounds(self):
        attention = keras.layers.UnitNormalization()
        with pytest.raises(ValueError, match=r"unit_normalization.*UnitNorm"):
            fitted(network(None, 3, attention))


def test_digits_are_certified():
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    keras.utils.set_random_seed(0)
    base = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(100, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    config = nsl.keras.presets.interval_bounds(0.1, warmup_steps=300)
    model = nsl.keras.AdversarialRegularization(base, adv_config=config)
    model.compile("adam", LOSS, metrics=["accuracy"])
    model.fit(x[:1400], y[:1400], epochs=20, verbose=0)
    report = nsl.evaluate_robustness(
        model, x[1400:], y[1400:], 0.1, attacks="quick", bounds=(0, 1), certify=True
    )
    [certified], [robust] = (
        report.certified_accuracy.values(),
        report.robust_accuracy.values(),
    )
    # A plain network has none; seeds differ by 2 points.
    assert 0.3 < certified <= robust < report.clean_accuracy
