"""Examples and labels in their forms, and where attacked ones may be."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from nsl.configs import NormType
from nsl.robustness.examples import Examples

X = np.array([[0.0, 0.5], [1.0, 0.25], [0.5, 0.5]], np.float32)


@pytest.mark.parametrize(
    "y",
    [
        [2, 0, 1],
        [[2], [0], [1]],
        np.array([2.0, 0.0, 1.0]),
        tf.constant([2, 0, 1]),
        [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
    ],
)
def test_forms_of_labels(y: Any) -> None:
    np.testing.assert_array_equal(Examples(X, y).labels, [2, 0, 1])


@pytest.mark.parametrize("y", [[0.5, 1.0, 0.0], [-1, 0, 1], np.ones((3, 2)), X])
def test_what_are_no_labels(y: Any) -> None:
    with pytest.raises(ValueError, match="y must hold class numbers"):
        Examples(X, y)


@pytest.mark.parametrize(("x", "y"), [(X, [0, 1]), (X[:0], []), ({"a": X}, [0])])
def test_numbers_must_agree(x: Any, y: Any) -> None:
    with pytest.raises(ValueError, match="same number of examples"):
        Examples(x, np.array(y, int))


def test_take_keeps_the_structure() -> None:
    examples = Examples({"a": tf.constant(X), "b": (X, np.arange(3))}, [0, 1, 2])
    taken = examples.take(np.array([2, 0]))
    np.testing.assert_array_equal(taken["a"], X[[2, 0]])
    np.testing.assert_array_equal(taken["b"][1], [2, 0])


def test_excess() -> None:
    assert Examples(X, [0, 1, 2]).excess() == 0.0
    assert Examples(X, [0, 1, 2], (0, 1)).excess() == 0.0
    assert Examples(X, [0, 1, 2], (0.0, 0.75)).excess() == pytest.approx(0.25)
    assert Examples(X, [0, 1, 2], (np.array([0.1, 0]), 1)).excess() == pytest.approx(
        0.1
    )


@pytest.mark.parametrize(
    ("norm", "expected"), [("l1", 2.0), ("l2", 2**0.5), ("infinity", 1.0)]
)
def test_diameter_of_the_bounds(norm: str, expected: float) -> None:
    examples = Examples(X, [0, 1, 2], (0.0, 1.0))
    assert examples.diameter(NormType(norm)) == pytest.approx(expected)


def test_diameter_of_the_examples() -> None:
    assert Examples(X, [0, 1, 2]).diameter(NormType.L1) == pytest.approx(1.25)
    examples = Examples(X, [0, 1, 2], (None, 3.0))
    assert examples.diameter(NormType.L1) == pytest.approx(3.0 + 2.75)


INDEX = np.array([0, 2])


def _outside(change: Any, norm: str, bounds: Any = None) -> list[bool]:
    examples = Examples(X, [0, 1, 2], bounds)
    attacked = X[INDEX] + np.array(change, np.float32)
    return list(examples.outside(attacked, INDEX, 0.1, NormType(norm)))


@pytest.mark.parametrize(
    ("norm", "expected"),
    [("l1", [False, True]), ("l2", [False, True]), ("infinity", [False, False])],
)
def test_outside_of_the_ball(norm: str, expected: list[bool]) -> None:
    assert _outside([[0.05, -0.05], [0.1, 0.1]], norm) == expected


def test_outside_of_the_bounds() -> None:
    assert _outside([[-0.05, 0], [0.05, 0]], "l2", (0, 1)) == [True, False]


def test_an_example_out_of_bounds_may_stay() -> None:
    assert _outside([[0.05, 0], [0, -0.05]], "l2", (0.1, 0.4)) == [False, False]
    assert _outside([[-0.05, 0], [0, 0.05]], "l2", (0.1, 0.4)) == [True, True]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_outside(value: float) -> None:
    assert _outside([[value, 0], [0, 0]], "infinity") == [True, False]


def test_the_norm_is_joint_and_integers_stay() -> None:
    x = {"a": X, "b": X.copy(), "n": np.arange(3)}
    examples = Examples(x, [0, 1, 2])
    attacked = examples.take(INDEX)
    attacked["a"] += np.array([[0.08, 0], [0.06, 0]], np.float32)
    attacked["b"] += np.array([[0.08, 0], [0.06, 0]], np.float32)
    outside = examples.outside(attacked, INDEX, 0.1, NormType.L2)
    assert outside.tolist() == [True, False]
    attacked["n"][1] += 1
    outside = examples.outside(attacked, INDEX, 0.1, NormType.L2)
    assert outside.tolist() == [True, True]
