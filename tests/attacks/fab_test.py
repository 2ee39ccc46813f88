"""FAB: the smallest perturbation of linear models, several epsilons, structures."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from nsl.attacks import FAB, PGD

ORDERS = {"l1": 1, "l2": 2, "infinity": np.inf}
DUALS = {"l1": np.inf, "l2": 2, "infinity": 1}
RNG = np.random.default_rng(1)
POINTS = RNG.uniform(0.3, 0.7, (20, 10)).astype(np.float32)
WEIGHTS = RNG.normal(size=(10, 4)).astype(np.float32)


def linear(x: Any) -> tf.Tensor:
    return tf.matmul(x, WEIGHTS)


LABELS = np.argmax(linear(POINTS), axis=1)


def _distances(norm: str) -> np.ndarray:
    """The distance to the nearest of the hyperplanes between two classes."""
    logits = linear(POINTS).numpy().astype(np.float64)
    distances = []
    for row, label in zip(logits, LABELS, strict=True):
        others = [k for k in range(4) if k != label]
        lengths = np.linalg.norm(
            WEIGHTS[:, [label]] - WEIGHTS[:, others], DUALS[norm], axis=0
        )
        distances.append(np.min((row[label] - row[others]) / lengths))
    return np.array(distances)


def _lengths(attacked: np.ndarray, norm: str) -> np.ndarray:
    return np.linalg.norm(attacked - POINTS, ORDERS[norm], axis=1)


@pytest.mark.parametrize("norm", ORDERS)
def test_reaches_the_known_smallest_norm(norm: str) -> None:
    attack = FAB(norm=norm, steps=10, early_stop=False)
    attacked = attack(linear, POINTS, LABELS, epsilon=100.0)
    assert (np.argmax(linear(attacked), axis=1) != LABELS).all()
    lengths, exact = _lengths(attacked, norm), _distances(norm)
    assert (lengths >= exact * (1 - 1e-4)).all()
    assert (lengths <= exact * 1.01).all()


@pytest.mark.parametrize("norm", ORDERS)
def test_falls_where_it_can_at_each_of_several_epsilons(norm: str) -> None:
    exact = _distances(norm)
    epsilons = [float(np.quantile(exact, q)) for q in (0.3, 0.6)]
    found = FAB(norm=norm, steps=10)(linear, POINTS, LABELS, epsilon=epsilons)
    for attacked, epsilon in zip(found, epsilons, strict=True):
        fallen = np.argmax(linear(attacked), axis=1) != LABELS
        assert _lengths(attacked, norm).max() <= epsilon * (1 + 1e-5)
        np.testing.assert_array_equal(fallen[exact < 0.99 * epsilon], True)
        np.testing.assert_array_equal(fallen[exact > 1.01 * epsilon], False)
        np.testing.assert_array_equal(attacked[~fallen], POINTS[~fallen])


def test_respects_bounds() -> None:
    # In a box that is this tight only a part of the points can fall at all.
    low, high = POINTS - 0.05, POINTS + 0.05
    attack = FAB(norm="l2", steps=10, early_stop=False)
    attacked = attack(linear, POINTS, LABELS, epsilon=100.0, bounds=(low, high))
    fallen = np.argmax(linear(attacked), axis=1) != LABELS
    assert (attacked >= low - 1e-6).all()
    assert (attacked <= high + 1e-6).all()
    # The best corner of the box is a projected gradient attack of radius 0.05.
    corner = _distances("infinity") < 0.05
    np.testing.assert_array_equal(fallen, corner)
    assert 0 < fallen.sum() < len(fallen)


def test_a_structure_has_one_norm_and_keeps_masked_and_fixed_features() -> None:
    x = {"a": POINTS[:, :4], "b": POINTS[:, 4:], "n": np.arange(20)}

    def model(x: Any) -> tf.Tensor:
        return linear(tf.concat([x["a"], x["b"]], axis=1))

    mask = np.array([0.0, 1.0, 1.0, 1.0, 1.0, 1.0], np.float32)
    attack = FAB(norm="l2", steps=10, early_stop=False)
    attacked = attack(model, x, LABELS, epsilon=100.0, feature_mask={"b": mask})
    np.testing.assert_array_equal(attacked["n"], x["n"])
    np.testing.assert_array_equal(attacked["b"][:, 0], x["b"][:, 0])
    fallen = np.argmax(model(attacked), axis=1) != LABELS
    assert fallen.all()
    # Without a coordinate the way can only be longer.
    joint = np.concatenate([attacked["a"], attacked["b"]], axis=1)
    assert (_lengths(joint, "l2") >= _distances("l2") * (1 - 1e-4)).all()


def test_on_a_network_it_is_no_weaker_than_pgd() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((100, 10), np.float32)
    hidden = rng.normal(size=(10, 32)).astype(np.float32)
    output = rng.normal(size=(32, 3)).astype(np.float32)

    def network(x: Any) -> tf.Tensor:
        return tf.matmul(tf.nn.relu(tf.matmul(x - 0.5, hidden)), output)

    labels = np.argmax(network(points), axis=1)
    fallen = {
        name: np.argmax(network(attack(network, points, labels, epsilon=0.05)), axis=1)
        != labels
        for name, attack in {
            "pgd": PGD(steps=40),
            "fab": FAB(steps=30, target_classes=2),
        }.items()
    }
    assert fallen["pgd"].sum() > 20
    # Each may get stuck where the other does not, on up to 2 of 100 points.
    assert fallen["fab"].sum() >= fallen["pgd"].sum() - 5


def test_what_is_misclassified_is_left_alone() -> None:
    attacked = FAB(steps=3)(linear, POINTS, (LABELS + 1) % 4, epsilon=0.5)
    np.testing.assert_array_equal(attacked, POINTS)


def test_where_the_gradient_is_zero_examples_stay() -> None:
    def flat(x: Any) -> tf.Tensor:
        return tf.round(x[:, :3]) + tf.constant([1.0, 0.0, 0.0]) + 0.0 * x[:, :3]

    labels = np.argmax(flat(POINTS), axis=1)
    attacked = FAB(steps=3)(flat, POINTS, labels, epsilon=0.5)
    np.testing.assert_array_equal(attacked, POINTS)


def test_a_model_without_gradient_is_refused() -> None:
    def flat(x: Any) -> tf.Tensor:
        return tf.round(x[:, :3]) + tf.constant([1.0, 0.0, 0.0])

    labels = np.argmax(flat(POINTS), axis=1)
    with pytest.raises(ValueError, match="no gradient"):
        FAB(steps=3)(flat, POINTS, labels, epsilon=0.5)


def test_two_classes_take_one_attempt() -> None:
    passes = tf.Variable(0)

    def model(x: Any) -> tf.Tensor:
        passes.assign_add(1)
        return tf.matmul(x, WEIGHTS[:, :1])

    labels = (model(POINTS).numpy()[:, 0] > 0).astype(np.int32)
    attack = FAB(norm="l2", steps=10, early_stop=False)
    passes.assign(0)
    attacked = attack(model, POINTS, labels, epsilon=100.0, from_logits=True)
    assert ((model(attacked).numpy()[:, 0] > 0) != labels).all()
    # Two passes a step for the one wrong class, and a few around them.
    assert passes.numpy() < 35


def test_runs_under_xla() -> None:
    attack = FAB(
        norm="l2", steps=5, target_classes=1, jit_compile=True, early_stop=False
    )
    plain = FAB(norm="l2", steps=5, target_classes=1, early_stop=False)
    attacked = attack(linear, POINTS, LABELS, epsilon=100.0)
    expected = plain(linear, POINTS, LABELS, epsilon=100.0)
    np.testing.assert_allclose(
        _lengths(attacked, "l2"), _lengths(expected, "l2"), rtol=1e-2
    )


@pytest.mark.parametrize(
    "given", [{"target": LABELS}, {"loss_fn": lambda y, outputs: outputs[:, 0]}]
)
def test_targets_and_losses_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"neither target nor loss_fn.*PGD"):
        FAB()(linear, POINTS, LABELS, epsilon=0.1, **given)


def test_each_of_several_epsilons_must_be_one() -> None:
    with pytest.raises(ValueError, match=r"number of at least 0.*received inf"):
        FAB()(linear, POINTS, LABELS, epsilon=[0.1, np.inf])
