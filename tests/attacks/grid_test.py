"""Grids of valid values, and a radius for each column."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from nsl import attacks
from tests.attacks.inside_test import KINDS, ORDERS
from tests.attacks.linear import Linear, inputs, largest_gain, lead

GRID = 1 / 16
X = np.random.default_rng(0).integers(0, 17, (12, 6)).astype(np.float32) * GRID
WEIGHTS = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
EPSILONS = {"l1": 8.5 * GRID, "l2": 3.5 * GRID, "infinity": 1.5 * GRID}


def _model(x: Any) -> tf.Tensor:
    return tf.cast(x, tf.float32) @ tf.constant(WEIGHTS)


Y = np.argmax(_model(X), axis=1)


def _on_grid(values: np.ndarray, grid: Any) -> np.ndarray:
    steps = values.astype(np.float64) / grid
    return np.abs(steps - np.round(steps)) < 1e-3


# Every attack, and every norm with one that follows gradients and one that does not.
CASES = [
    *(("pgd", norm) for norm in ORDERS),
    ("square", "l1"),
    ("square", "infinity"),
    ("hopskipjump", "l2"),
    ("fgsm", "l2"),
    ("mifgsm", "l1"),
    ("autopgd", "infinity"),
    ("fab", "l2"),
]


def test_every_attack_and_norm_is_among_the_cases() -> None:
    assert {name for name, _ in CASES} == set(KINDS)
    assert {norm for _, norm in CASES} == set(ORDERS)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_points_are_on_the_grid_inside_ball_and_bounds(name: str, norm: str) -> None:
    kind, settings = KINDS[name]
    attack, epsilon = kind(norm=norm, **settings), EPSILONS[norm]
    found = attack(_model, X, Y, epsilon=epsilon, bounds=(0, 1), grid=GRID)
    assert np.all(_on_grid(found, GRID))
    assert found.min() >= 0
    assert found.max() <= 1
    length = np.linalg.norm(found.astype(np.float64) - X, ORDERS[norm], axis=1)
    assert np.all(length <= epsilon)
    if kind is not attacks.HopSkipJump:
        assert length.max() > 0


def test_under_infinity_the_best_point_of_the_grid_is_found() -> None:
    """For a linear model each coordinate goes as many whole steps as fit."""
    found = attacks.FGSM()(_model, X, Y, epsilon=2.9 * GRID, bounds=(0, 1), grid=GRID)
    free = attacks.FGSM()(_model, X, Y, epsilon=2 * GRID, bounds=(0, 1))
    np.testing.assert_allclose(found, free, atol=1e-6)


def test_a_radius_of_whole_steps_is_used_up() -> None:
    grid = 1 / 255
    x = (np.random.default_rng(2).integers(9, 247, (12, 6)) * grid).astype(np.float32)
    y = np.argmax(_model(x), axis=1)
    found = attacks.FGSM()(_model, x, y, epsilon=8 * grid, bounds=(0, 1), grid=grid)
    np.testing.assert_allclose(np.abs(found - x), 8 * grid, atol=1e-6)


def test_under_l1_nothing_is_wasted() -> None:
    """The ball holds 8 steps, and all of them are made."""
    attack = attacks.PGD(norm="l1", steps=10, random_start=False)
    found = attack(_model, X, Y, epsilon=8.5 * GRID, grid=GRID)
    steps = np.abs(found - X).sum(axis=1) / GRID
    np.testing.assert_allclose(steps, 8, atol=1e-3)


@pytest.mark.parametrize("norm", ORDERS)
def test_what_is_less_than_a_step_changes_nothing(norm: str) -> None:
    found = attacks.PGD(norm=norm, steps=3)(_model, X, Y, epsilon=0.9 * GRID, grid=GRID)
    np.testing.assert_array_equal(found, X)


def test_features_off_the_grid_may_stay_and_go_to_it() -> None:
    x = X + np.float32(0.3 * GRID)
    found = attacks.FGSM()(_model, x, Y, epsilon=GRID, grid=GRID)
    stays = found == x
    assert np.all(stays | _on_grid(found, GRID))
    # Upwards the next value is 0.7 of a step away, downwards 0.3.
    assert not stays.any()
    steps = (found.astype(np.float64) - x) / GRID
    assert set(np.round(steps.ravel(), 2).tolist()) == {0.7, -0.3}


def test_a_grid_of_each_feature() -> None:
    x = {"count": np.round(8 * X[:, :3]), "share": X[:, 3:]}

    def model(x: Any) -> tf.Tensor:
        return _model(tf.concat([x["count"] / 8, x["share"]], axis=1))

    found = attacks.PGD(steps=5)(
        model, x, epsilon={"count": 2.5, "share": 0.1}, grid={"count": 1.0}
    )
    assert np.all(_on_grid(found["count"], 1.0))
    assert np.abs(found["count"] - x["count"]).max() == 2
    assert not np.all(_on_grid(found["share"], GRID))
    assert np.abs(found["share"] - x["share"]).max() > 0.09


# Each norm and grid is compiled.
@settings(max_examples=8)
@given(
    st.sampled_from(sorted(ORDERS)),
    st.integers(0, 1000),
    st.floats(0.01, 3.0),
    st.sampled_from([1.0, 0.25, 1 / 255]),
)
def test_any_point_is_brought_to_the_grid(
    norm: str, seed: int, epsilon: float, grid: float
) -> None:
    """Random features off the grid, random logits."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(6, 6)).astype(np.float32)
    attack = attacks.PGD(norm=norm, steps=1, restarts=1, step_size=0.0)
    found = attack(_model, x, epsilon=epsilon, grid=grid, seed=seed)
    assert np.all((found == x) | _on_grid(found, grid))
    length = np.linalg.norm(found.astype(np.float64) - x, ORDERS[norm], axis=1)
    assert np.all(length <= epsilon)


def test_success_is_judged_on_the_grid() -> None:
    """Off the grid an example would fall, on it none does."""

    def model(x: Any) -> tf.Tensor:
        peak = tf.nn.relu(0.05 - tf.abs(x - 0.5))
        return tf.concat([0.02 + 0 * x, peak], axis=1)

    x, y = np.full((4, 1), 0.48, np.float32), np.zeros(4, int)
    x -= 0.05 * np.arange(4, dtype=np.float32)[:, None]
    attack = attacks.PGD(steps=40, step_size=0.01, random_start=False)
    free = attack(model, x, y, epsilon=0.5)
    assert np.argmax(model(free), axis=1)[0] == 1
    found = attack(model, x, y, epsilon=0.5, grid=0.3)
    assert np.all((found == x) | _on_grid(found, 0.3))
    # At 0.48 the model is wrong already; nothing on the grid is better.
    np.testing.assert_array_equal(np.argmax(model(found), axis=1), [1, 0, 0, 0])


# A radius for each column.

COLUMNS = np.array([0.5, 2.0, 0.1, 1.0, 0.05, 0.3, 0.1, 0.7, 0.2, 0.4, 3.0, 0.6])


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("pgd", "l1"),
        ("pgd", "infinity"),
        ("autopgd", "l1"),
        ("autopgd", "l2"),
        ("square", "l2"),
    ],
)
def test_it_is_the_ball_of_radius_1_of_scaled_features(name: str, norm: str) -> None:
    kind, settings = KINDS[name]
    columns = COLUMNS[:6].astype(np.float32)

    def scaled(x: Any) -> tf.Tensor:
        return _model(x * tf.constant(columns))

    attack = kind(norm=norm, **settings)
    found = attack(_model, X, Y, epsilon=columns, bounds=(-1, 2))
    length = np.linalg.norm(
        (found.astype(np.float64) - X) / columns.astype(np.float64),
        ORDERS[norm],
        axis=1,
    )
    assert np.all(length <= 1)
    bounds = (-1 / columns, 2 / columns)
    alike = attack(scaled, X / columns, Y, epsilon=1.0, bounds=bounds)
    np.testing.assert_allclose(found, alike * columns, atol=2e-3)
    assert length.max() > 0


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_the_optimum_in_a_scaled_ball_is_known(norm: str) -> None:
    model, x = Linear(), inputs()
    y = model.predict(x)
    targets = (y + 1) % 5
    epsilon = {"l1": 1.0, "l2": 0.5, "infinity": 0.2}[norm] * COLUMNS
    attack = attacks.FGSM(norm=norm, objective=lead)
    found = attack(model, x, y, epsilon=epsilon[None], bounds=(0, 1), target=targets)
    moved = found.astype(np.float64) - x
    gradients = (model.weights[:, targets] - model.weights[:, y]).T
    best = [
        largest_gain(gradient * epsilon, -row / epsilon, (1 - row) / epsilon, 1.0, norm)
        for gradient, row in zip(gradients, x.astype(np.float64), strict=True)
    ]
    np.testing.assert_allclose(np.sum(moved * gradients, axis=1), best, rtol=1e-3)


def test_where_the_radius_is_0_a_column_stays() -> None:
    columns = np.where(np.arange(6) % 2, 0.3, 0.0)
    for name in ("pgd", "fab", "square"):
        kind, settings = KINDS[name]
        found = kind(**settings)(_model, X, Y, epsilon=columns)
        np.testing.assert_array_equal(found[:, ::2], X[:, ::2])
        assert np.abs(found - X).max() <= 0.3


def test_numbers_and_columns_in_one_list() -> None:
    columns = np.full((1, 6), 0.05)
    columns[0, 0] = 0.5
    several = [columns, 0.05, 0.5]
    attack = attacks.FAB(steps=3, target_classes=2)
    together = attack(_model, X, Y, epsilon=several)
    for epsilon, found in zip(several, together, strict=True):
        assert np.all(np.abs(found.astype(np.float64) - X) <= epsilon)
    fallen = [np.argmax(_model(found), axis=1) != Y for found in together]
    assert fallen[1].sum() < fallen[0].sum() < fallen[2].sum()


def test_equal_radii_of_columns_are_a_radius() -> None:
    attack = attacks.PGD(norm="l2", steps=4, random_start=False)
    found = attack(_model, X, Y, epsilon=np.full((1, 6), 0.25))
    expected = attack(_model, X, Y, epsilon=0.25)
    np.testing.assert_allclose(found, expected, atol=1e-5)
