"""TRADES against its formula, as a wrapper, and against a plain model."""

import numpy as np
import pytest

import nsl
from tests.keras.contract import StepContract
from tests.keras.contract.base import X, Y
from tests.keras.terms.objectives.by_hand import (
    check_step,
    crossentropy,
    divergence,
    wrapped,
)
from tests.keras.terms.objectives.digits import (
    accuracy_under_attack,
    plain_accuracy_under_attack,
    train,
)


class TestTradesContract(StepContract):
    term_metric = "scaled_adversarial_loss"
    term_is_weighted = True
    draws_alike = False

    def wrap(self, base):
        config = nsl.configs.make_adv_reg_config(
            0.5, objective="trades", adv_step_size=0.3, adv_grad_norm="infinity"
        )
        return nsl.keras.AdversarialRegularization(base, adv_config=config)


def test_a_step_by_hand():
    check_step(
        "trades",
        lambda clean, adversarial, labels: (
            crossentropy(clean, labels) + 2.0 * divergence(clean, adversarial)
        ),
    )


def test_neighbors_need_no_labels():
    found = [
        wrapped(objective="trades").perturb_on_batch(X, labels)
        for labels in (Y, (Y + 1) % 3)
    ]
    np.testing.assert_array_equal(*found)


def test_neighbors_diverge_more_than_random_ones():
    model = wrapped(objective="trades")

    def divergence_at(x):
        return divergence(model(X), model(x)).numpy()

    found = divergence_at(model.perturb_on_batch(X, Y))
    signs = np.random.default_rng(0).choice([-0.4, 0.4], size=(8, *X.shape))
    at_random = [divergence_at(X + sign.astype("float32")) for sign in signs]
    assert found.mean() > 1.3 * np.mean(at_random)


@pytest.mark.arithmetic
def test_digits_are_more_robust_than_without():
    robust = train(objective="trades", multiplier=3.0)
    assert accuracy_under_attack(robust) > plain_accuracy_under_attack() + 0.2
