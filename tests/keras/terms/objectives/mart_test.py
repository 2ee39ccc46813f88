"""MART against its formula, as a wrapper, and against a plain model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import nsl
from tests.keras.contract import TermWeightsContract
from tests.keras.contract.base import X, Y, mlp
from tests.keras.terms.objectives.by_hand import check_step, crossentropy, divergence
from tests.keras.terms.objectives.digits import (
    accuracy_under_attack,
    plain_accuracy_under_attack,
    train,
)


class TestMartContract(TermWeightsContract):
    term_metric = "scaled_adversarial_loss"
    term_is_weighted = True

    def wrap(self, base):
        config = nsl.configs.make_adv_reg_config(
            0.5, objective="mart", adv_step_size=0.1
        )
        return nsl.keras.AdversarialRegularization(base, adv_config=config)


def test_a_step_by_hand():
    def loss(clean, adversarial, labels):
        wrong = tf.nn.softmax(adversarial) * (1 - tf.one_hot(labels, 3))
        margin = -tf.math.log(1 - tf.reduce_max(wrong, axis=1))
        doubt = 1 - tf.exp(-crossentropy(clean, labels))
        boosted = crossentropy(adversarial, labels) + margin
        return boosted + 2.0 * divergence(clean, adversarial) * doubt

    check_step("mart", loss)


def test_labels_of_every_form_come_to_the_same():
    def logs(loss, labels):
        config = nsl.configs.AdvRegConfig(objective="mart")
        model = nsl.keras.AdversarialRegularization(mlp(), config)
        model.compile(keras.optimizers.SGD(0.1), loss)
        return model.train_on_batch(X, labels)[0]

    sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    dense = keras.losses.CategoricalCrossentropy(from_logits=True)
    expected = logs(sparse, Y)
    np.testing.assert_allclose(logs(sparse, Y[:, None]), expected, rtol=1e-6)
    one_hot = keras.utils.to_categorical(Y)
    np.testing.assert_allclose(logs(dense, one_hot), expected, rtol=1e-6)


def test_certain_and_wrong_stays_finite():
    base = mlp()
    kernel, _ = base.layers[-1].get_weights()
    bias = np.array([80.0, 0.0, 0.0])
    base.layers[-1].set_weights([0 * kernel, bias])
    config = nsl.configs.AdvRegConfig(objective="mart")
    model = nsl.keras.AdversarialRegularization(base, config)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    logs = model.train_on_batch(X, np.ones_like(Y), return_dict=True)
    # The crossentropy is 80, and so is the margin: the others share exp(-80).
    np.testing.assert_allclose(logs["loss"], 160 - np.log(2), rtol=1e-4)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert np.abs(base.layers[-1].bias - bias).max() > 0.01


@pytest.mark.arithmetic
def test_digits_are_more_robust_than_without():
    robust = train(objective="mart", multiplier=3.0)
    assert accuracy_under_attack(robust) > plain_accuracy_under_attack() + 0.2
