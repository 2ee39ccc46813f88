"""One training step of an objective against its formula, written down by hand."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import nsl
from tests.keras.contract.base import SAMPLE_WEIGHT, X, Y, mlp

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SETTINGS = {
    "multiplier": 2.0,
    "adv_step_size": 0.2,
    "adv_grad_norm": "infinity",
    "pgd_iterations": 3,
    "pgd_epsilon": 0.4,
}
LEARNING_RATE = 0.1


def wrapped(base: Any = None, **config: Any) -> Any:
    """A compiled wrapper; two made alike draw the same random numbers."""
    keras.utils.set_random_seed(1)
    config = nsl.configs.make_adv_reg_config(**{**SETTINGS, **config})
    base = mlp() if base is None else base
    model = nsl.keras.AdversarialRegularization(base, adv_config=config)
    model.compile(keras.optimizers.SGD(LEARNING_RATE), LOSS, metrics=["accuracy"])
    return model


def check_step(
    objective: str,
    loss_fn: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
    weighted: bool = True,
) -> None:
    """Compares the loss and the weights after a step with those by hand.

    Args:
      objective: The objective.
      loss_fn: From logits at samples and neighbors, of shape [batch, 3], and labels to
        the whole loss of each sample.
      weighted: Whether sample weights scale all of it; otherwise none are given.
    """
    weight = SAMPLE_WEIGHT if weighted else None
    neighbors = wrapped(objective=objective).perturb_on_batch(X, Y)
    assert np.abs(neighbors - X).max() <= 0.4 + 1e-5
    assert np.abs(neighbors - X).mean() > 0.2
    by_hand = mlp()
    with tf.GradientTape() as tape:
        values = loss_fn(by_hand(X), by_hand(neighbors), tf.constant(Y))
        loss = tf.reduce_mean(values * (1.0 if weight is None else weight))
    variables = by_hand.trainable_variables
    for variable, gradient in zip(
        variables, tape.gradient(loss, variables), strict=True
    ):
        variable.assign_sub(LEARNING_RATE * gradient)
    model = wrapped(objective=objective)
    logs = model.train_on_batch(X, Y, sample_weight=weight, return_dict=True)
    np.testing.assert_allclose(logs["loss"], loss, rtol=1e-5)
    for actual, expected in zip(model.get_weights(), variables, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def crossentropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """-log p_y."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


def divergence(logits: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """KL(p || q)."""
    p, q = tf.nn.softmax(logits), tf.nn.softmax(others)
    return tf.reduce_sum(p * tf.math.log(p / q), axis=1)
