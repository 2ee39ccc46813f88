"""HopSkipJump: the smallest perturbation from decisions alone."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from sklearn.ensemble import RandomForestClassifier

from nsl.attacks import FAB, HopSkipJump

ORDERS = {"l2": 2, "infinity": np.inf}
DUALS = {"l2": 2, "infinity": 1}
RNG = np.random.default_rng(3)
POINTS = RNG.uniform(0.3, 0.7, (20, 6)).astype(np.float32)
WEIGHTS = RNG.normal(size=(6, 3)).astype(np.float32)


def labels(x: Any) -> tf.Tensor:
    return tf.argmax(tf.matmul(x, WEIGHTS), axis=1, output_type=tf.int32)


def array_labels(x: np.ndarray) -> np.ndarray:
    return (x @ WEIGHTS).argmax(axis=1)


LABELS = array_labels(POINTS)


def _distances(norm: str) -> np.ndarray:
    """The distance to the nearest of the hyperplanes between two classes."""
    logits = POINTS.astype(np.float64) @ WEIGHTS
    distances = []
    for row, label in zip(logits, LABELS, strict=True):
        others = [k for k in range(3) if k != label]
        lengths = np.linalg.norm(
            WEIGHTS[:, [label]] - WEIGHTS[:, others], DUALS[norm], axis=0
        )
        distances.append(np.min((row[label] - row[others]) / lengths))
    return np.array(distances)


def _lengths(found: np.ndarray, norm: str) -> np.ndarray:
    moved = found.astype(np.float64) - POINTS
    return np.linalg.norm(moved, ORDERS[norm], axis=1)


# Tests that take the same attack and model share what is compiled for them, which takes
# longer than to run it.
def _thorough(norm: str, steps: int = 30) -> HopSkipJump:
    return HopSkipJump(norm=norm, steps=steps, early_stop=False)


@pytest.mark.parametrize("norm", ORDERS)
def test_comes_near_the_known_smallest_norm(norm: str) -> None:
    found = _thorough(norm)(labels, POINTS, LABELS, epsilon=100.0)
    assert np.all(labels(found).numpy() != LABELS)
    lengths, exact = _lengths(found, norm), _distances(norm)
    assert np.all(lengths >= exact * (1 - 1e-4))
    assert np.mean(lengths <= 1.05 * exact) >= 0.8


@pytest.mark.parametrize("norm", ORDERS)
def test_falls_where_it_can_at_each_of_several_epsilons(norm: str) -> None:
    exact = _distances(norm)
    epsilons = [float(np.quantile(exact, q)) for q in (0.3, 0.6)]
    found = HopSkipJump(norm=norm, steps=20)(
        labels, POINTS, LABELS, epsilon=epsilons, bounds=(0, 1)
    )
    for attacked, epsilon in zip(found, epsilons, strict=True):
        fallen = labels(attacked).numpy() != LABELS
        assert np.all(_lengths(attacked, norm) <= epsilon)
        np.testing.assert_array_equal(fallen[exact > 1.001 * epsilon], False)
        assert np.mean(fallen[exact < 0.9 * epsilon]) > 0.8
        np.testing.assert_array_equal(attacked[~fallen], POINTS[~fallen])


def test_brings_down_a_forest_by_what_predict_says() -> None:
    """An axis-parallel step in the first column, which every tree learns."""
    rng = np.random.default_rng(0)
    x = rng.random((300, 4)).astype(np.float32)
    y = (x[:, 0] > 0.5).astype(int)
    forest = RandomForestClassifier(5, max_features=None, random_state=0).fit(x, y)
    x, y = x[:30], forest.predict(x[:30])
    attack = HopSkipJump(steps=10, samples=50)
    found = attack(forest.predict, x, y, epsilon=0.2, bounds=(0, 1))
    fallen = forest.predict(found) != y
    way = np.abs(x[:, 0] - 0.5)
    assert np.abs(found.astype(np.float64) - x).max() <= 0.2
    np.testing.assert_array_equal(fallen[way > 0.23], False)
    assert np.mean(fallen[way < 0.17]) > 0.9
    assert 3 < np.sum(way < 0.17) < 27


def test_nothing_but_decisions_is_used() -> None:
    """Scores that lead astray make no difference."""

    def scores(x: Any) -> tf.Tensor:
        right = tf.one_hot(labels(x), 3)
        return right * (1.0 + tf.reduce_sum(x, axis=1, keepdims=True) ** 2)

    attack = HopSkipJump(norm="l2", steps=3, samples=20)
    expected = attack(labels, POINTS, LABELS, epsilon=0.2)
    assert np.any(expected != POINTS)
    found = attack(scores, POINTS, LABELS, epsilon=0.2, from_logits=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # And a function of arrays, of which nothing else could be used.
    found = attack(array_labels, POINTS, LABELS, epsilon=0.2)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_gets_further_than_a_plain_walk_from_point_to_point() -> None:
    means = []
    for steps in (1, 5, 30):
        found = _thorough("l2", steps)(labels, POINTS, LABELS, epsilon=100.0)
        means.append(_lengths(found, "l2").mean())
    assert means == sorted(means, reverse=True)
    assert means[2] < 1.1 * _distances("l2").mean() < means[0]


def test_the_seed_determines_it() -> None:
    attack = HopSkipJump(steps=2, samples=10, early_stop=False)
    runs = [attack(labels, POINTS, LABELS, epsilon=9.0, seed=s) for s in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 0


def test_a_single_example_falls_too() -> None:
    """Without others in the batch to start from, points are drawn."""
    i = int(np.argmin(_distances("l2")))
    attack = HopSkipJump(norm="l2", steps=10, early_stop=False)
    found = attack(
        labels, POINTS[i : i + 1], LABELS[i : i + 1], epsilon=9.0, bounds=(0, 1)
    )
    assert array_labels(found)[0] != LABELS[i]


def test_what_is_misclassified_is_left_alone() -> None:
    attack = HopSkipJump(steps=2, samples=10)
    found = attack(labels, POINTS, (LABELS + 1) % 3, epsilon=0.5)
    np.testing.assert_array_equal(found, POINTS)


def test_classes_that_were_not_seen_before() -> None:
    """A model of labels alone is known by those of each call."""

    def model(x: Any) -> tf.Tensor:
        return labels(x)

    attack, some = HopSkipJump(steps=1, samples=4), LABELS < 2
    attack(model, POINTS[some], LABELS[some], epsilon=0.5)
    wrong = np.full(20, 7)
    found = attack(model, POINTS, wrong, epsilon=0.5)
    np.testing.assert_array_equal(found, POINTS)


def test_where_nothing_else_is_said_examples_stay() -> None:
    def constant(x: np.ndarray) -> np.ndarray:
        return np.zeros(len(x), int)

    attack = HopSkipJump(steps=2, samples=10)
    found = attack(constant, POINTS, np.zeros(20, int), epsilon=0.5)
    np.testing.assert_array_equal(found, POINTS)


def test_a_mask_keeps_features() -> None:
    mask = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    attack = HopSkipJump(norm="l2", steps=10)
    found = attack(labels, POINTS, LABELS, epsilon=2.0, feature_mask=mask)
    np.testing.assert_array_equal(found[:, mask == 0], POINTS[:, mask == 0])
    assert np.mean(array_labels(found) != LABELS) > 0.8


def test_l1_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'l2' and 'infinity'.*'l1'.*Square"):
        HopSkipJump(norm="l1")


@pytest.mark.parametrize(
    "given", [{"target": LABELS}, {"loss_fn": lambda y, outputs: outputs[:, 0]}]
)
def test_targets_and_losses_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="neither target nor loss_fn"):
        HopSkipJump()(labels, POINTS, LABELS, epsilon=0.1, **given)


def test_it_is_no_stronger_than_what_knows_the_gradients() -> None:
    def linear(x: Any) -> tf.Tensor:
        return tf.matmul(x, WEIGHTS)

    fab = FAB(norm="l2", steps=10, early_stop=False)
    nearest = _lengths(fab(linear, POINTS, LABELS, epsilon=100.0), "l2")
    attack = _thorough("l2")
    found = _lengths(attack(labels, POINTS, LABELS, epsilon=100.0), "l2")
    assert np.all(found >= nearest * (1 - 1e-2))
