"""Adversarial logit pairing against its formula."""

import pytest
import tensorflow as tf

from tests.keras.terms.objectives.by_hand import check_step, crossentropy
from tests.keras.terms.objectives.digits import (
    accuracy_under_attack,
    plain_accuracy_under_attack,
    train,
)


def test_a_step_by_hand():
    def loss(clean, adversarial, labels):
        labeled = crossentropy(clean, labels) + crossentropy(adversarial, labels)
        pairing = tf.reduce_mean(tf.square(clean - adversarial), axis=1)
        return labeled / 2 + 2.0 * pairing

    check_step("logit_pairing", loss)


@pytest.mark.arithmetic
def test_digits_are_more_robust_than_without():
    robust = train(objective="logit_pairing", multiplier=1.0)
    assert accuracy_under_attack(robust) > plain_accuracy_under_attack() + 0.2
