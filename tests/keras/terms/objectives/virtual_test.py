"""Virtual adversarial training against its formula, and with few labels."""

import numpy as np
import pytest
import tensorflow as tf

from tests.keras.contract.base import SAMPLE_WEIGHT, SAMPLES, X, Y, assert_weights_equal
from tests.keras.terms.objectives.by_hand import (
    check_step,
    crossentropy,
    divergence,
    wrapped,
)
from tests.keras.terms.objectives.digits import accuracy, digits, train


def test_a_step_by_hand():
    check_step(
        "virtual",
        lambda clean, adversarial, labels: (
            crossentropy(clean, labels)
            + 2.0 * divergence(tf.stop_gradient(clean), adversarial)
        ),
        weighted=False,
    )


def test_neighbor_is_as_far_as_the_step():
    model = wrapped(
        objective="virtual",
        adv_grad_norm="l2",
        adv_step_size=0.3,
        pgd_epsilon=None,
        pgd_iterations=1,
    )
    moved = np.linalg.norm(model.perturb_on_batch(X, Y) - X, axis=1)
    np.testing.assert_allclose(moved, 0.3, rtol=1e-4)


def test_unlabeled_samples_count_and_their_labels_do_not():
    weight = SAMPLE_WEIGHT * (np.arange(SAMPLES) % 2)

    def trained(objective, y, rows=slice(None)):
        model = wrapped(objective=objective)
        logs = model.train_on_batch(
            X[rows], y[rows], sample_weight=weight[rows], return_dict=True
        )
        return model.get_weights(), logs["scaled_adversarial_loss"]

    weights, term = trained("virtual", Y)
    others, _ = trained("virtual", np.where(weight == 0, (Y + 1) % 3, Y))
    assert_weights_equal(weights, others)
    unweighted = wrapped(objective="virtual").train_on_batch(X, Y, return_dict=True)
    np.testing.assert_allclose(term, unweighted["scaled_adversarial_loss"], rtol=1e-5)
    # The same samples do not count in an objective of labeled samples.
    assert trained("trades", Y)[1] < 0.8 * term


@pytest.mark.arithmetic
def test_unlabeled_digits_help():
    _, y, _, _ = digits()
    chosen = np.concatenate([np.flatnonzero(y == label)[:2] for label in range(10)])
    weight = np.zeros(len(y), "float32")
    weight[chosen] = len(y) / len(chosen)
    labels = np.zeros_like(y)
    labels[chosen] = y[chosen]
    settings = {"y": labels, "weight": weight, "epochs": 20}
    attack = {"adv_grad_norm": "l2", "adv_step_size": 1.0, "pgd_epsilon": None}
    smooth = train(
        objective="virtual", multiplier=1.0, pgd_iterations=1, **attack, **settings
    )
    plain = train(multiplier=0.0, **settings)
    assert accuracy(smooth) > accuracy(plain) + 0.02
