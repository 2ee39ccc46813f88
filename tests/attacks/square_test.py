"""Square: ball and bounds, progress, linear models, masked gradients, queries."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from nsl.attacks import PGD
from nsl.attacks.square import Square

ORDERS = {"l1": 1, "l2": 2, "infinity": np.inf}
EPSILONS = {"l1": 1.5, "l2": 0.6, "infinity": 0.1}
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0.0, 1.0, (24, 6, 6, 2)).astype(np.float32)
WEIGHTS = RNG.normal(size=(72, 3)).astype(np.float32)


def linear(x: Any) -> tf.Tensor:
    return tf.reshape(x, [-1, 72]) @ WEIGHTS


LABELS = np.argmax(linear(IMAGES), axis=1)


def _margins(x: np.ndarray) -> np.ndarray:
    logits = linear(x).numpy()
    own = logits[np.arange(len(x)), LABELS]
    logits[np.arange(len(x)), LABELS] = -np.inf
    return own - logits.max(axis=1)


def _lengths(change: np.ndarray, norm: str) -> np.ndarray:
    return np.linalg.norm(change.reshape(len(change), -1), ORDERS[norm], axis=1)


@pytest.mark.parametrize("norm", ORDERS)
@pytest.mark.parametrize("shape", [(6, 6, 2), (12, 6), (72,)])
def test_stays_in_ball_and_bounds_and_lowers_the_margin(
    norm: str, shape: tuple[int, ...]
) -> None:
    x = IMAGES.reshape(-1, *shape)
    attack = Square(norm=norm, steps=60, early_stop=False)
    attacked = attack(linear, x, LABELS, epsilon=EPSILONS[norm], bounds=(0.1, 0.9))
    assert attacked.shape == x.shape
    assert _lengths(attacked - x, norm).max() <= EPSILONS[norm] * (1 + 1e-5)
    # An image that is out of bounds itself may stay there.
    assert (attacked >= np.minimum(x, 0.1) - 1e-6).all()
    assert (attacked <= np.maximum(x, 0.9) + 1e-6).all()
    assert (_margins(attacked) < _margins(x)).all()


@pytest.mark.parametrize("norm", ORDERS)
def test_more_queries_lower_the_margin(norm: str) -> None:
    margins = [_margins(IMAGES)]
    for steps in (20, 200):
        attack = Square(norm=norm, steps=steps, early_stop=False)
        margins.append(_margins(attack(linear, IMAGES, LABELS, epsilon=EPSILONS[norm])))
    means = [margin.mean() for margin in margins]
    assert means == sorted(means, reverse=True)


def test_finds_what_can_fall_under_the_infinity_norm() -> None:
    epsilon = 0.08
    rows = [
        np.min(
            [
                margin + np.inf if k == label else margin
                for k in range(3)
                for margin in [
                    linear(image[None])[0, label]
                    - linear(image[None])[0, k]
                    - epsilon * np.abs(WEIGHTS[:, label] - WEIGHTS[:, k]).sum()
                ]
            ]
        )
        for image, label in zip(IMAGES, LABELS, strict=True)
    ]
    worst = np.array(rows)
    attack = Square(steps=1500)
    attacked = attack(linear, IMAGES, LABELS, epsilon=epsilon)
    fallen = np.argmax(linear(attacked), axis=1) != LABELS
    assert (worst > 0).any()
    assert (worst < -1).any()
    assert not fallen[worst > 0].any()
    assert fallen[worst < -1].all()


def test_a_structure_has_one_norm_and_keeps_masked_and_fixed_features() -> None:
    x = {"a": IMAGES[:, :, :, 0], "b": IMAGES[:, :, :, 1], "n": np.arange(24)}

    def model(x: Any) -> tf.Tensor:
        return linear(tf.stack([x["a"], x["b"]], axis=-1))

    mask = np.ones((6, 6), np.float32)
    mask[:2] = 0.0
    attack = Square(norm="l2", steps=40, early_stop=False)
    attacked = attack(model, x, LABELS, epsilon=0.5, feature_mask={"b": mask})
    change_a, change_b = attacked["a"] - x["a"], attacked["b"] - x["b"]
    np.testing.assert_array_equal(attacked["n"], x["n"])
    np.testing.assert_array_equal(change_b[:, :2], 0.0)
    assert np.abs(change_a).max() > 0
    assert np.abs(change_b).max() > 0
    lengths = _lengths(np.stack([change_a, change_b], -1), "l2")
    np.testing.assert_allclose(lengths, 0.5, rtol=1e-4)


def test_uncovers_masked_gradients() -> None:
    def quantized(x: Any) -> tf.Tensor:
        # There is a gradient, and it is zero.
        return linear(tf.round(x * 64.0) / 64.0 + 0.0 * x)

    labels = np.argmax(quantized(IMAGES), axis=1)
    standing = {}
    for attack in (PGD(steps=20), Square(steps=300)):
        attacked = attack(quantized, IMAGES, labels, epsilon=0.1)
        same = np.argmax(quantized(attacked), axis=1) == labels
        standing[type(attack).__name__] = same.mean()
    assert standing["Square"] < standing["PGD"] - 0.2


@pytest.mark.parametrize("norm", ["l2", "infinity"])
def test_the_seed_determines_it(norm: str) -> None:
    attack = Square(norm=norm, steps=10, early_stop=False)
    runs = [
        attack(linear, IMAGES, LABELS, epsilon=0.1, seed=seed) for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 0


def test_only_what_stands_is_queried() -> None:
    queries = tf.Variable(0)

    def model(x: Any) -> tf.Tensor:
        queries.assign_add(tf.shape(x)[0])
        # Half of the images fall at once, the others never.
        falls = tf.reshape(x, [-1, 72])[:, 0] > 0.5
        return tf.where(falls[:, None], [[0.0, 1.0]], [[1.0, 0.0]])

    x = np.where(np.arange(40)[:, None] % 2, 0.9, 0.1) * np.ones((40, 72), np.float32)
    labels = np.zeros(40, np.int32)
    steps = 500
    # A pass before the attack sees a full batch.
    Square(steps=steps)(model, x, labels, epsilon=0.01, batch_size=40)
    assert 20 * steps <= queries.numpy() <= 20 * steps + 40 * 5


@pytest.mark.parametrize("norm", ["l2", "infinity"])
def test_runs_under_xla(norm: str) -> None:
    attack = Square(norm=norm, steps=40, early_stop=False, jit_compile=True)
    attacked = attack(linear, IMAGES, LABELS, epsilon=EPSILONS[norm])
    assert _margins(attacked).mean() < 0.7 * _margins(IMAGES).mean()


def test_a_list_of_epsilons() -> None:
    smaller, larger = Square(steps=60)(linear, IMAGES, LABELS, epsilon=[0.02, 0.1])
    assert _lengths(smaller - IMAGES, "infinity").max() <= 0.02 + 1e-6
    fallen = [np.argmax(linear(a), axis=1) != LABELS for a in (smaller, larger)]
    assert (fallen[1] >= fallen[0]).all()
    assert fallen[1].sum() > fallen[0].sum()
