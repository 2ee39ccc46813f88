"""The adversarial loss as a function, for custom training loops."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import nsl
from tests.keras.contract.base import SAMPLE_WEIGHT, X, Y, mlp

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
FGSM = nsl.configs.make_adv_reg_config(adv_step_size=0.2, adv_grad_norm="infinity")
PGD = nsl.configs.make_adv_reg_config(
    adv_step_size=0.1, pgd_iterations=3, pgd_epsilon=0.2
)


@pytest.mark.parametrize("config", [FGSM, PGD], ids=["fgsm", "pgd"])
@pytest.mark.parametrize("weight", [None, SAMPLE_WEIGHT], ids=["plain", "weighted"])
def test_equals_the_term_of_the_wrapper(config, weight):
    model = mlp()
    wrapper = nsl.keras.AdversarialRegularization(model, adv_config=config)
    wrapper.compile(loss=LOSS)
    logs = wrapper.test_on_batch(X, Y, sample_weight=weight, return_dict=True)
    x = tf.constant(X)
    actual = nsl.keras.adversarial_loss(
        x, Y, model, LOSS, sample_weights=weight, adv_config=config
    )
    expected = logs["scaled_adversarial_loss"] / config.multiplier
    assert float(actual) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("given", ["predictions", "labeled_loss"])
def test_what_is_known_can_be_handed_in(given):
    model, x = mlp(), tf.constant(X)
    expected = nsl.keras.adversarial_loss(x, Y, model, LOSS, adv_config=FGSM)
    with tf.GradientTape() as tape:
        tape.watch(x)
        predictions = model(x)
        labeled_loss = LOSS(Y, predictions)
    known = {"predictions": predictions, "labeled_loss": labeled_loss}
    actual = nsl.keras.adversarial_loss(
        x,
        Y,
        model,
        LOSS,
        adv_config=FGSM,
        gradient_tape=tape,
        **{given: known[given]},
    )
    assert float(actual) == pytest.approx(float(expected), rel=1e-6)


def test_custom_loop_equals_the_wrapper():
    looped, wrapped = mlp(), mlp()
    optimizer = keras.optimizers.SGD(0.1)
    x, y = tf.constant(X), tf.constant(Y)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            with tf.GradientTape() as tape_x:
                tape_x.watch(x)
                labeled_loss = LOSS(y, looped(x, training=True))
            loss = labeled_loss + 0.2 * nsl.keras.adversarial_loss(
                x,
                y,
                looped,
                LOSS,
                adv_config=PGD,
                labeled_loss=labeled_loss,
                gradient_tape=tape_x,
                model_kwargs={"training": True},
            )
        gradients = tape.gradient(loss, looped.trainable_weights)
        optimizer.apply_gradients(zip(gradients, looped.trainable_weights, strict=True))

    for _ in range(3):
        step()
    model = nsl.keras.AdversarialRegularization(wrapped, adv_config=PGD)
    model.compile(keras.optimizers.SGD(0.1), LOSS)
    model.fit(X, Y, batch_size=len(X), epochs=3, shuffle=False, verbose=0)
    for left, right in zip(looped.get_weights(), wrapped.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)


def test_searching_leaves_batch_statistics_alone():
    notes = []

    class Noted(keras.layers.Layer):
        def call(self, inputs, training=None):
            notes.append(training)
            return inputs

    model = mlp(Noted())
    notes.clear()
    nsl.keras.adversarial_loss(
        tf.constant(X),
        Y,
        model,
        LOSS,
        adv_config=PGD,
        model_kwargs={"training": True},
    )
    assert notes == [True, False, False, True]
