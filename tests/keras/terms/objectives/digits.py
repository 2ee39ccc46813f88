"""Real training on scikit-learn's digits, which takes a second or two."""

import functools
from typing import Any

import keras
import numpy as np
from sklearn.datasets import load_digits

import nsl

EPSILON = 0.15


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and test images in [0, 1], each with its labels."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    return x[:1200], y[:1200], x[1200:], y[1200:]


def train(epochs: int = 12, y: Any = None, weight: Any = None, **config: Any) -> Any:
    """Trains a small classifier of the digits.

    Args:
      epochs: How often all images are seen.
      y: Labels, by default the true ones.
      weight: Weights of the samples.
      **config: What `make_adv_reg_config` takes.
    """
    keras.utils.set_random_seed(3)
    base = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(64, "relu"),
            keras.layers.Dense(10),
        ]
    )
    settings = {
        "adv_grad_norm": "infinity",
        "pgd_epsilon": EPSILON,
        "adv_step_size": EPSILON / 3,
        "pgd_iterations": 5,
        "clip_value_min": 0.0,
        "clip_value_max": 1.0,
    }
    adv_config = nsl.configs.make_adv_reg_config(**{**settings, **config})
    model = nsl.keras.AdversarialRegularization(base, adv_config=adv_config)
    model.compile(
        keras.optimizers.Adam(0.005),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    x, true, _, _ = digits()
    model.fit(
        x,
        true if y is None else y,
        sample_weight=weight,
        batch_size=100,
        epochs=epochs,
        verbose=0,
    )
    return model


@functools.cache
def plain_accuracy_under_attack() -> float:
    """Accuracy under attack of a classifier trained on labels alone."""
    return accuracy_under_attack(train(multiplier=0.0))


def accuracy(model: Any) -> float:
    """Accuracy on the test images as they are."""
    _, _, x, y = digits()
    return float(np.mean(np.argmax(model.predict(x, verbose=0), axis=1) == y))


def accuracy_under_attack(model: Any) -> float:
    """Accuracy on the test images after ten steps of PGD on the labeled loss."""
    _, _, x, y = digits()
    attack = nsl.configs.make_adv_reg_config(
        adv_grad_norm="infinity",
        pgd_epsilon=EPSILON,
        adv_step_size=EPSILON / 4,
        pgd_iterations=10,
        clip_value_min=0.0,
        clip_value_max=1.0,
    )
    attacker = nsl.keras.AdversarialRegularization(model.base_model, adv_config=attack)
    attacker.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    attacked = attacker.perturb_on_batch(x, y)
    return float(np.mean(np.argmax(model.predict(attacked, verbose=0), axis=1) == y))
