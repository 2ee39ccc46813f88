"""Tests of how the model is called, and that its state is left alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nsl import attacks
from nsl.attacks.model import AttackedModel, fixed_batch_size, state_kept
from nsl.keras.recurrent_state import recurrent_states
from tests.attacks.linear import Linear, inputs

PGD = attacks.PGD(steps=4)


def state(model):
    return [tf.identity(v).numpy() for v in model.variables + recurrent_states(model)]


def unchanged(model, before):
    after = state(model)
    assert len(after) == len(before)
    return all(np.array_equal(a, b) for a, b in zip(after, before, strict=True))


def test_batch_statistics_dropout_and_seeds_are_left_alone():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input([12]),
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3),
        ]
    )
    before = state(model)
    x = inputs()
    found = PGD(model, x, epsilon=0.3)
    assert unchanged(model, before)
    # Dropout is off: the attack is as good as can be in spite of it.
    np.testing.assert_array_equal(found, PGD(model, x, epsilon=0.3))


class Noisy(keras.Model):
    """Adds noise even when it predicts."""

    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(1)
        self.dense = keras.layers.Dense(3)

    def call(self, x):
        noise = keras.random.normal(keras.ops.shape(x), seed=self.seeds)
        return self.dense(x + 0.1 * noise)


def test_a_model_that_is_random_by_itself_goes_on_where_it_was():
    keras.utils.set_random_seed(0)
    model, x = Noisy(), inputs()
    model(x)
    before = state(model)
    PGD(model, x, epsilon=0.3)
    assert unchanged(model, before)


def test_a_stateful_layer_starts_each_pass_where_it_was():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input(batch_shape=[3, 4, 2]),
            keras.layers.LSTM(5, stateful=True),
            keras.layers.Dense(3),
        ]
    )
    x = np.random.default_rng(0).normal(size=[7, 4, 2]).astype(np.float32)
    model.predict(x[:3], verbose=0)
    before = state(model)
    assert fixed_batch_size(model) == 3
    attack = attacks.PGD(steps=4, random_start=False)
    found = attack(model, x, epsilon=0.3, batch_size=64)
    assert unchanged(model, before)
    # No batch and no step leaves its state to another one.
    alone = attack(model, x[3:6], epsilon=0.3)
    np.testing.assert_allclose(found[3:6], alone, atol=1e-6)


def test_state_is_left_alone_when_the_attack_fails():
    model = keras.Sequential([keras.Input([12]), keras.layers.BatchNormalization()])
    mean = model.layers[0].moving_mean
    before = state(model)

    class Fails:
        variables = model.variables

        def __call__(self, x):
            mean.assign(mean + 1.0)
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        PGD(Fails(), inputs(), epsilon=0.1)
    assert unchanged(model, before)


def test_state_kept_restores_and_takes_what_has_no_variables():
    variable = tf.Variable(1.0, trainable=False)
    module = tf.Module()
    module.v = variable
    with state_kept(module):
        variable.assign(5.0)
    assert variable.numpy() == 1.0
    with state_kept(lambda x: x):
        pass


def test_training_is_false_where_it_is_taken():
    seen = []

    def model(x, training=None):
        seen.append(training)
        return x

    PGD(model, inputs(), epsilon=0.1)
    assert set(seen) == {False}


def test_a_model_that_is_not_built_is_built():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(3)])
    found = PGD(model, inputs(), epsilon=0.2)
    assert np.abs(found - inputs()).max() > 0.1


def softmax(logits):
    shares = tf.exp(logits - tf.reduce_max(logits, axis=1, keepdims=True))
    return shares / tf.reduce_sum(shares, axis=1, keepdims=True)


@pytest.mark.parametrize("from_logits", [None, False])
def test_probabilities_become_logits(from_logits):
    logits, x = Linear(), inputs()
    found = PGD(lambda x: softmax(logits(x)), x, epsilon=0.2, from_logits=from_logits)
    np.testing.assert_allclose(found, PGD(logits, x, epsilon=0.2), atol=1e-5)


def test_what_keras_put_into_its_softmax_is_taken():
    """Probabilities that are rounded to 0 and 1 have no gradient of their own."""
    keras.utils.set_random_seed(0)
    x = inputs()
    dense = keras.layers.Dense(
        3, kernel_initializer=keras.initializers.RandomNormal(0, 90)
    )
    logits = keras.Sequential([keras.Input([12]), dense])
    model = keras.Sequential([logits, keras.layers.Activation("softmax")])
    assert model.predict(x, verbose=0).max(axis=1).min() > 1 - 1e-6
    found = PGD(model, x, epsilon=0.5)
    np.testing.assert_allclose(found, PGD(logits, x, epsilon=0.5), atol=1e-6)
    # Without them, nothing leads away from where an example starts.
    stuck = PGD(lambda x: tf.identity(model(x)), x, epsilon=0.5)
    assert not np.allclose(found, stuck)


@pytest.mark.parametrize("kind", ["logit", "probability", "flat"])
def test_one_output_for_two_classes(kind):
    weights, x = tf.constant(np.linspace(-1, 1, 12)[:, None], tf.float32), inputs()

    def model(x):
        logit = x @ weights - 0.2
        return {
            "logit": logit,
            "probability": tf.sigmoid(logit),
            "flat": tf.sigmoid(logit)[:, 0],
        }[kind]

    y = (x @ weights.numpy() > 0.2).astype(np.float32)
    found = attacks.FGSM()(
        model,
        x,
        y if kind != "flat" else y[:, 0],
        epsilon=0.1,
        from_logits=kind == "logit",
    )
    expected = x + 0.1 * np.where(y, -1, 1) * np.sign(np.linspace(-1, 1, 12))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("outputs", "from_logits"),
    [
        ([[0.25, 0.75], [0.9, 0.1]], False),
        ([[0.25, 0.7], [1.0, 0.0]], True),
        ([[-0.5, 1.5], [0.5, 0.5]], True),
        ([[0.2], [0.9]], False),
        ([[0.2], [1.1]], True),
    ],
)
def test_probabilities_are_detected(outputs, from_logits):
    model = AttackedModel(lambda x: tf.constant(outputs), None)
    model.prepare(None)
    assert model.from_logits is from_logits
    np.testing.assert_allclose(
        tf.nn.softmax(model.logits(None))[:, -1],
        np.array(outputs)[:, -1]
        if not from_logits
        else tf.nn.softmax(
            tf.constant(outputs)
            if len(outputs[0]) == 2
            else [[0, o[0]] for o in outputs]
        )[:, -1],
        rtol=1e-5,
    )


def test_several_outputs_are_refused():
    with pytest.raises(ValueError, match=r"a list of shape None.*loss_fn"):
        PGD(lambda x: [x, x], inputs(), epsilon=0.1)
