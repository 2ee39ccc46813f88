"""Moves onto a hyperplane: closed forms, a linear program, and no shorter move."""

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from scipy.optimize import linprog

from nsl.lib.hyperplane import shortest_move

NORMS = ["l1", "l2", "infinity"]
INFINITY = np.float32(np.inf)


def _move(rows: Any, normal: Any, gap: Any, low: Any, high: Any, norm: str) -> Any:
    tensors = [tf.constant(v, tf.float32) for v in (rows, normal, gap, low, high)]
    return shortest_move(*tensors, norm).numpy()


@pytest.mark.parametrize(
    ("norm", "expected"),
    [("l1", [0.0, 1.25]), ("l2", [0.6, 0.8]), ("infinity", [5 / 7, 5 / 7])],
)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_without_bounds(norm: str, expected: list[float], sign: float) -> None:
    move = _move([[0.1, 0.2]], [[3.0, 4.0]], [[5.0 * sign]], -INFINITY, INFINITY, norm)
    np.testing.assert_allclose(move, [sign * np.array(expected)], rtol=1e-6)


def _least_norm(
    rows: Any, normal: Any, gap: float, low: Any, high: Any, norm: str
) -> float:
    """The optimal value by a linear program, for L1 and L-infinity."""
    size = len(rows)
    identity = np.eye(size)
    if norm == "l1":
        costs = np.concatenate([np.zeros(size), np.ones(size)])
        bound = identity
    else:
        costs = np.append(np.zeros(size), 1.0)
        bound = np.ones((size, 1))
    solved = linprog(
        costs,
        A_ub=np.block([[identity, -bound], [-identity, -bound]]),
        b_ub=np.zeros(2 * size),
        A_eq=np.append(normal, np.zeros(bound.shape[1]))[np.newaxis],
        b_eq=[gap],
        bounds=[*zip(low - rows, high - rows, strict=True)]
        + [(0, None)] * bound.shape[1],
    )
    assert solved.success
    return float(solved.fun)


@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 10_000), share=st.floats(0.01, 0.95))
def test_is_feasible_and_shortest(norm: str, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    rows, point = rng.uniform(0, 1, (2, 6))
    normal = rng.normal(size=6)
    gap = share * (normal @ (np.where(normal > 0, 1.0, 0.0) - rows))
    move = _move([rows], [normal], [[gap]], 0.0, 1.0, norm)[0].astype(np.float64)

    assert move @ normal == pytest.approx(gap, abs=1e-5)
    assert (rows + move >= -1e-6).all()
    assert (rows + move <= 1 + 1e-6).all()
    if norm == "l2":
        # No other point of the hyperplane and the box is nearer.
        feasible = _move(
            [point], [normal], [[gap + normal @ (rows - point)]], 0, 1, norm
        )
        other = point + feasible[0] - rows
        assert np.linalg.norm(move) <= np.linalg.norm(other) + 1e-5
    else:
        best = _least_norm(rows, normal, gap, np.zeros(6), np.ones(6), norm)
        length = np.abs(move).sum() if norm == "l1" else np.abs(move).max()
        assert length == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_goes_as_far_as_the_box_allows(norm: str) -> None:
    move = _move([[0.25, 0.5, 0.5]], [[1.0, -2.0, 0.0]], [[100.0]], 0.0, 1.0, norm)
    np.testing.assert_allclose(move, [[0.75, -0.5, 0.0]])


@pytest.mark.parametrize("norm", NORMS)
def test_a_zero_normal_moves_nothing(norm: str) -> None:
    move = _move([[0.25, 0.5]], [[0.0, 0.0]], [[1.0]], -INFINITY, INFINITY, norm)
    np.testing.assert_array_equal(move, np.zeros((1, 2)))


@pytest.mark.parametrize("norm", NORMS)
def test_runs_under_xla(norm: str) -> None:
    rng = np.random.default_rng(0)
    rows = tf.constant(rng.uniform(0, 1, (5, 7)), tf.float32)
    normal = tf.constant(rng.normal(size=(5, 7)), tf.float32)
    gap = tf.constant(rng.uniform(-0.5, 0.5, (5, 1)), tf.float32)

    def move() -> tf.Tensor:
        return shortest_move(rows, normal, gap, tf.zeros(7), tf.ones(7), norm)

    compiled = tf.function(move, jit_compile=True)
    np.testing.assert_allclose(compiled(), move(), atol=1e-6)
