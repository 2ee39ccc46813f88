"""Examples, labels and limits in their forms, and where attacked ones may be."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from nsl.attacks import FGSM, PGD
from nsl.attacks.examples import Examples, split
from nsl.attacks.labels import read_classes
from nsl.configs import NormType

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
    labels = read_classes(Examples(X, y).y, 3)
    np.testing.assert_array_equal(labels, [2, 0, 1])


@pytest.mark.parametrize("classes", [0, 2, 3])
@pytest.mark.parametrize("y", [[0.5, 1.0, 0.0], [-1, 0, 1], np.ones((3, 2)), X])
def test_what_are_no_labels(y: Any, classes: int) -> None:
    with pytest.raises(ValueError, match="y must be classes"):
        read_classes(Examples(X, y).y, classes)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, [0, 1], "y must have one entry for each of the 3 examples"),
        (X[:0], [], "x must contain at least one example"),
        ({"a": X}, [0], "y must have one entry for each of the 3 examples"),
        (
            {"a": X, "b": X[:2]},
            [0, 1, 2],
            "features of shape \\[examples, \\.\\.\\.\\]",
        ),
        (X, {"a": [0, 1, 2], "b": [0]}, "y must have one entry"),
        (np.float32(1.0), None, "x must contain at least one example"),
    ],
)
def test_numbers_must_agree(x: Any, y: Any, message: str) -> None:
    y = tf.nest.map_structure(np.array, y) if isinstance(y, dict) else y
    with pytest.raises(ValueError, match=message):
        Examples(x, y)


def test_take_keeps_the_structure() -> None:
    examples = Examples({"a": tf.constant(X), "b": (X, np.arange(3))}, [0, 1, 2])
    taken = examples.take(examples.x, np.array([2, 0]))
    np.testing.assert_array_equal(taken["a"], X[[2, 0]])
    np.testing.assert_array_equal(taken["b"][1], [2, 0])


@given(st.integers(1, 9), st.sets(st.integers(0, 8)))
def test_take_takes_what_is_per_example_and_keeps_what_is_not(
    count: int, chosen: set[int]
) -> None:
    indices = np.array(sorted(i for i in chosen if i < count), int)
    x = np.arange(count * 2, dtype=np.float32).reshape(count, 2)
    examples = Examples(x, np.arange(count), bounds=(x - 1, np.full(2, 99.0)))
    batch = examples.batch(indices, examples.limits, examples.y)
    np.testing.assert_array_equal(batch.features, x[indices])
    np.testing.assert_array_equal(batch.labels, indices)
    np.testing.assert_array_equal(batch.limits.low[0], x[indices] - 1)
    expected = np.full((len(indices) if count == 1 else 1, 2), 99.0)
    np.testing.assert_array_equal(batch.limits.high[0], expected)
    assert len(batch.limits.radius) == len(indices)


def test_excess() -> None:
    y = [0, 1, 2]
    assert Examples(X, y).excess() == 0.0
    assert Examples(X, y, bounds=(0, 1)).excess() == 0.0
    assert Examples(X, y, bounds=(0.0, 0.75)).excess() == pytest.approx(0.25)
    bounds = (np.array([0.1, 0]), 1)
    assert Examples(X, y, bounds=bounds).excess() == pytest.approx(0.1)
    assert Examples(X, y, bounds=(X, X)).excess() == 0.0
    assert Examples(X, y, bounds=(X + 0.25, X + 1)).excess() == 0.25


@pytest.mark.parametrize(
    ("norm", "expected"), [("l1", 2.0), ("l2", 2**0.5), ("infinity", 1.0)]
)
def test_reach_within_the_bounds(norm: str, expected: float) -> None:
    examples = Examples(X, [0, 1, 2], bounds=(0.0, 1.0))
    assert examples.reach(NormType(norm)) == pytest.approx(expected)


def test_reach_of_the_examples() -> None:
    assert Examples(X).reach(NormType.L1) == pytest.approx(1.25)
    examples = Examples(X, bounds=(None, 3.0))
    assert examples.reach(NormType.L1) == pytest.approx(3.0 + 2.75)


@pytest.mark.parametrize(
    ("x", "limits"),
    [
        (X, {"feature_mask": np.array([1.0, 0.0])}),
        (X, {"bounds": (X, 1.0)}),
        (X, {"bounds": (0.2, 0.6)}),
        ({"a": X, "n": np.arange(3)}, {}),
    ],
)
def test_there_is_no_reach_where_an_example_cannot_become_another(
    x: Any, limits: dict[str, Any]
) -> None:
    assert Examples(x, **limits).reach(NormType.L2) is None


INDEX = np.array([0, 2])


def _model(x: Any) -> Any:
    return x


def _allows(
    x: Any, attacked: Any, norm: str, epsilon: Any = 0.1, **limits: Any
) -> list[bool]:
    examples = Examples(x, **limits)
    [found], _ = examples.limits_of(epsilon)
    batch = examples.batch(INDEX, found)
    return [bool(ok) for ok in batch.allows(attacked, NormType(norm))]


def _outside(change: Any, norm: str, **given: Any) -> list[bool]:
    attacked = X[INDEX] + np.array(change, np.float32)
    return [not ok for ok in _allows(X, attacked, norm, **given)]


@pytest.mark.parametrize(
    ("norm", "expected"),
    [("l1", [False, True]), ("l2", [False, True]), ("infinity", [False, False])],
)
def test_outside_of_the_ball(norm: str, expected: list[bool]) -> None:
    assert _outside([[0.05, -0.05], [0.1, 0.1]], norm) == expected


def test_outside_of_the_bounds() -> None:
    change = [[-0.05, 0], [0.05, 0]]
    assert _outside(change, "l2", bounds=(0, 1)) == [True, False]
    assert _outside(change, "l2", bounds=(X - 0.1, X + 0.01)) == [False, True]


def test_an_example_out_of_bounds_may_stay() -> None:
    bounds = (0.1, 0.4)
    assert _outside([[0.05, 0], [0, -0.05]], "l2", bounds=bounds) == [False, False]
    assert _outside([[-0.05, 0], [0, 0.05]], "l2", bounds=bounds) == [True, True]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_outside(value: float) -> None:
    assert _outside([[value, 0], [0, 0]], "infinity") == [True, False]


def test_the_norm_is_joint_and_integers_stay() -> None:
    x = {"a": X, "b": X.copy(), "n": np.arange(3)}
    attacked = {name: leaf[INDEX] for name, leaf in x.items()}
    attacked["a"] += np.array([[0.08, 0], [0.06, 0]], np.float32)
    attacked["b"] += np.array([[0.08, 0], [0.06, 0]], np.float32)
    assert _allows(x, attacked, "l2") == [False, True]
    attacked["n"][1] += 1
    assert _allows(x, attacked, "l2") == [False, False]


def test_what_the_mask_keeps_must_stay() -> None:
    change = [[0.05, 0], [0, 0.05]]
    assert _outside(change, "l2", feature_mask=np.array([1.0, 0.0])) == [False, True]
    mask = np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    assert _outside(change, "l2", feature_mask=mask) == [True, False]


def test_off_the_grid_is_outside_unless_it_stays() -> None:
    # Example 0 is on the grid of 0.25, and so is the second column of example 2.
    assert _outside([[0.25, 0], [0.1, 0]], "l2", epsilon=0.3, grid=0.25) == [
        False,
        True,
    ]
    assert _outside([[0, 0], [0, 0]], "l2", grid=0.3) == [False, False]


def test_a_radius_of_each_column_counts() -> None:
    change = [[0.09, 0.9], [0.11, 0.0]]
    epsilon = np.array([[0.1, 1.0]])
    assert _outside(change, "infinity", epsilon=epsilon) == [False, True]
    # Two columns at nine tenths of their radii are 1.27 away.
    assert _outside(change, "l2", epsilon=epsilon) == [True, True]


# Features and labels in their forms.


class Batches(keras.utils.PyDataset):
    """Batches of two, with labels and weights."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> Any:
        rows = slice(2 * i, 2 * i + 2)
        return X[rows], np.arange(3)[rows], np.ones(3)[rows]


def _generator() -> Iterator[Any]:
    for i in range(3):
        yield X[i : i + 1], np.arange(3)[i : i + 1]


def _dataset(*parts: Any) -> tf.data.Dataset:
    whole = parts if len(parts) > 1 else parts[0]
    return tf.data.Dataset.from_tensor_slices(whole).batch(2)


FORMS: dict[str, Callable[[], Any]] = {
    "array": lambda: (X, np.arange(3)),
    "tensor": lambda: (tf.constant(X), tf.range(3)),
    "variable": lambda: (tf.Variable(X), tf.Variable([0, 1, 2])),
    "lists": lambda: (X.tolist(), [0, 1, 2]),
    "tuples": lambda: (tuple(map(tuple, X.tolist())), (0, 1, 2)),
    "features": lambda: (_dataset(X), np.arange(3)),
    "both": lambda: (_dataset(X, np.arange(3)), None),
    "each": lambda: (_dataset(X), _dataset(np.arange(3))),
    "weights": lambda: (_dataset(X, np.arange(3), np.ones(3)), None),
    "pydataset": lambda: (Batches(), None),
    "generator": lambda: (_generator(), None),
    "iterator": lambda: (iter([(X, np.arange(3))]), None),
}


@pytest.mark.parametrize("form", FORMS)
def test_features_and_labels_in_every_form(form: str) -> None:
    examples = Examples(*FORMS[form]())
    np.testing.assert_array_equal(examples.x, X)
    np.testing.assert_array_equal(examples.y, [0, 1, 2])
    assert examples.count == 3


def test_structures_in_batches() -> None:
    x = {"a": X, "b": (X[:, 0], np.arange(3))}
    y = {"p": np.arange(3), "q": X}
    examples = Examples(_dataset(x, y))
    for expected, found in ((x, examples.x), (y, examples.y)):
        tf.nest.assert_same_structure(expected, found)
        for a, b in zip(*map(tf.nest.flatten, (expected, found)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_labels_that_are_given_go_before_those_of_the_batches() -> None:
    examples = Examples(_dataset(X, np.arange(3)), [2, 2, 2])
    np.testing.assert_array_equal(examples.y, [2, 2, 2])


def test_the_dtype_of_features_stays() -> None:
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
        assert Examples(X.astype(dtype)).x.dtype == dtype
        assert Examples(tf.constant(X.astype(dtype))).x.dtype == dtype


class Endless(keras.utils.PyDataset):
    @property
    def num_batches(self) -> None:
        return None


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (lambda: _dataset(X).repeat(), "repeats forever. Use a part"),
        (lambda: Endless(), "repeats forever. Use a part"),
        (
            lambda: tf.data.Dataset.from_tensor_slices((X[:, 0], np.arange(3))),
            "Batch it, such as by dataset.batch",
        ),
        (lambda: iter([]), "at least one example, but has no batches"),
        (lambda: tf.ragged.constant([[1.0], [2.0, 3.0]]), "to_tensor"),
        (lambda: tf.sparse.from_dense(X), "to_dense"),
        (lambda: np.arange(3), "Cast integers to float32"),
        (lambda: X.astype(str), "can be perturbed|Cast"),
    ],
)
def test_what_are_no_features(x: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Examples(x())


def test_unbatched_rows_are_not_taken_for_batches() -> None:
    """Three examples of two columns are not six of one number."""
    with pytest.raises(ValueError, match="batch"):
        Examples(tf.data.Dataset.from_tensor_slices((X, np.arange(3))))


def test_symbolic_features_are_refused() -> None:
    message = r"cannot be called inside a tf\.function"
    for function in (Examples, lambda x: FGSM()(_model, x, epsilon=0.1)):
        with pytest.raises(ValueError, match=message):
            tf.function(lambda x, f=function: f(x) and x)(tf.constant(X))
        with pytest.raises(ValueError, match=message):
            _dataset(X).map(lambda x, f=function: f(x) and x)
    with pytest.raises(ValueError, match=r"Keras|symbolic"):
        Examples(keras.Input((2,)))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"bounds": 1.0}, r"bounds must be a pair \(low, high\)"),
        ({"bounds": (1, 0)}, "low <= high"),
        ({"bounds": (X, X - 1)}, "low <= high"),
        ({"bounds": (np.zeros(3), 1)}, r"bounds\[0\].*broadcast"),
        ({"feature_mask": 2.0}, r"values in \[0, 1\]"),
        ({"feature_mask": -X}, r"values in \[0, 1\]"),
        ({"feature_mask": {"a": 1.0}}, "feature_mask"),
        ({"grid": 0.0}, "grid must be greater than 0"),
        ({"grid": np.array([0.1, -0.1])}, "grid must be greater than 0"),
        ({"grid": np.nan}, "grid"),
    ],
)
def test_limits_that_do_not_fit(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Examples(X, **limits)


# The forms of epsilon.


def _balls(epsilon: Any, x: Any = X) -> list[np.ndarray]:
    """Returns the radius of each coordinate of each example; a leaf, an array."""
    examples = Examples(x)
    [limits], is_list = examples.limits_of(epsilon)
    assert not is_list
    return [
        limits.radius
        * np.broadcast_to(1.0 if s is None else s, leaf.shape)
        * (1.0 if m is None else m > 0)
        for s, m, leaf in zip(limits.scale, limits.mask, examples.leaves, strict=True)
    ]


TABLE = {"age": X, "income": X + 1}


@pytest.mark.parametrize(
    ("x", "epsilon", "expected"),
    [
        (X, 0.5, [0.5]),
        (X, np.float64(0.5), [0.5]),
        (X, tf.constant(0.5), [0.5]),
        (X, 0, [0.0]),
        (X, np.array([1.0, 2.0, 3.0]), [[[1.0], [2.0], [3.0]]]),
        (X, np.array([[1.0], [2.0], [3.0]]), [[[1.0], [2.0], [3.0]]]),
        (X, np.array([1.0, 2.0]), [[1.0, 2.0]]),
        (X, np.array([[1.0, 2.0]]), [[1.0, 2.0]]),
        (X, np.array([1.0, 0.0]), [[1.0, 0.0]]),
        (X, X + 1, [X + 1]),
        (TABLE, {"age": 5.0, "income": 100.0}, [5.0, 100.0]),
        (TABLE, {"age": [1.0, 2.0], "income": X}, [[1.0, 2.0], X]),
        (TABLE, np.array([1.0, 2.0, 3.0]), [[[1.0], [2.0], [3.0]]] * 2),
    ],
)
def test_forms_of_epsilon(x: Any, epsilon: Any, expected: list[Any]) -> None:
    for ball, want in zip(_balls(epsilon, x), expected, strict=True):
        np.testing.assert_allclose(ball, np.broadcast_to(want, ball.shape))


def test_several_epsilons() -> None:
    examples = Examples(X)
    for several in ([0.1, np.array([1.0, 2.0]), 0.3], (0.1, np.ones((1, 2)), 0.3)):
        limits, is_list = examples.limits_of(several)
        assert is_list
        assert [one.scale[0] is None for one in limits] == [True, False, True]
        assert [float(one.radius[0, 0]) for one in limits] == [0.1, 1.0, 0.3]


@pytest.mark.parametrize(
    ("x", "epsilon", "message"),
    [
        (X, -1.0, "epsilon must be a number of at least 0"),
        (X, np.nan, "epsilon must be a number"),
        (X, np.inf, "epsilon must be a number"),
        (X, np.ones(4), "epsilon must be .* 3 examples"),
        (X, np.array([0.1, -0.1, 0.1]), "epsilon must be"),
        (X, np.array([0.1, -0.1]), "radius of at least 0"),
        (X, np.array([0.1, np.inf]), "radius of at least 0"),
        (X, None, "epsilon must be"),
        (X, "a", "epsilon must be"),
        (TABLE, {"age": 1.0}, "no entry for 'income'"),
        (TABLE, {"age": 1.0, "income": -1.0}, "for 'income'"),
        (TABLE, {"age": 1.0, "income": 1.0, "x": 1.0}, "x"),
        (TABLE, np.array([1.0, 2.0]), "epsilon must be"),
        (X[:2], np.array([1.0, 2.0]), r"to \(2, 1\) or \(1, 2\)"),
    ],
)
def test_what_are_no_radii(x: Any, epsilon: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Examples(x).limits_of(epsilon)


def test_what_is_ambiguous_is_settled_by_a_shape_of_two_axes() -> None:
    x = X[:2]
    for epsilon in (np.array([[1.0], [2.0]]), np.array([[1.0, 2.0]])):
        [ball] = _balls(epsilon, x)
        np.testing.assert_array_equal(ball, np.broadcast_to(epsilon, (2, 2)))


def test_arguments_lead_to_the_same_limits() -> None:
    """What an attack is given for some examples is what was given for all."""
    x = {"a": X, "n": np.arange(3), "b": X[:, :1]}
    examples = Examples(
        x,
        bounds=({"a": X - 1}, {"b": 5.0}),
        feature_mask={"a": np.array([[1.0], [0.0], [1.0]])},
        grid={"b": 0.5},
    )
    for epsilon in (0.5, np.array([1.0, 2.0, 3.0]), {"a": X + 1, "b": 2.0}):
        arguments = examples.arguments(INDEX, [epsilon, 0.25])
        radii = arguments.pop("epsilon")
        some = Examples(**arguments)
        for one, radius in zip((epsilon, 0.25), radii, strict=True):
            [whole], _ = examples.limits_of(one)
            [expected] = examples.take([whole], INDEX)
            [found], _ = some.limits_of(radius)
            np.testing.assert_array_equal(found.radius, expected.radius)
            for name in ("scale", "low", "high", "mask", "grid"):
                for a, b in zip(
                    getattr(found, name), getattr(expected, name), strict=True
                ):
                    assert (a is None) == (b is None)
                    if a is not None:
                        np.testing.assert_array_equal(a, b)


# Labels.


@pytest.mark.parametrize(
    ("y", "classes", "message"),
    [
        (["a", "b", "c"], 3, "Map the labels to integers"),
        (np.array([b"a", b"b"]), 3, "Map the labels to integers"),
        (np.array([0, None, 1], object), 3, "Map the labels to integers"),
        ([0, 5, 1], 5, "from 0 to 4, as the model has 5, but example 1 has class 5"),
        ([0, 1, -1], 5, "example 2 has class -1"),
        ([0, -1], 0, "example 1 has class -1"),
        ([0.0, np.nan], 2, "y must be classes"),
        ([0.5, 1.0], 2, "y must be classes"),
        ([[0, 0, 0, 1, 1]], 5, "row 0 is not one-hot"),
        ([[0, 1], [0, 0]], 2, "row 1 is not one-hot"),
        ([[0, 1], [1, 0], [0, 2]], 2, "row 2 is not one-hot"),
        ([[0.9, 0.1], [0.1, 0.9]], 2, "row 0 is not one-hot"),
        ([[0, 1, 0]], 4, r"one-hot rows of shape \[examples, 4\].*shape \(1, 3\)"),
        ([[[0]]], 4, "y must be classes"),
        (3, 4, "y must be classes"),
    ],
)
def test_labels_that_are_refused(y: Any, classes: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_classes(y, classes)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint64, np.float16, np.float64])
def test_labels_of_any_dtype(dtype: Any) -> None:
    labels = read_classes(np.array([0, 1, 1]).astype(dtype), 2)
    np.testing.assert_array_equal(labels, [0, 1, 1])
    assert labels.dtype == np.int32
    rows = np.eye(2)[[0, 1, 1]].astype(dtype)
    np.testing.assert_array_equal(read_classes(rows, 2), [0, 1, 1])
    column = np.array([[0], [1]]).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(read_classes(column, 2), [0, 1])


def test_what_labels_are_is_named() -> None:
    with pytest.raises(ValueError, match=r"^target must be classes from 0 to 1"):
        read_classes([2], 2, "target")
    assert read_classes([], 3).shape == (0,)


# All of it under attack.


def _two(x: Any) -> tf.Tensor:
    return tf.concat([x, 0.5 - x], axis=1)


@pytest.mark.parametrize("norm", ["l1", "infinity"])
def test_what_is_given_per_example_goes_with_its_batch(norm: str) -> None:
    x = np.random.default_rng(0).random((7, 4)).astype(np.float32)
    y = np.zeros(7, int)
    mask = (np.arange(28).reshape(7, 4) % 3 > 0).astype(np.float32)
    low, high = x - 0.05 * np.arange(7)[:, None], x + 0.03
    epsilon = np.linspace(0.0, 0.3, 7)

    def attack(rows: Any, size: int) -> Any:
        return PGD(steps=3, norm=norm, random_start=False)(
            _two,
            x[rows],
            y[rows],
            epsilon=epsilon[rows],
            bounds=(low[rows], high[rows]),
            feature_mask=mask[rows],
            batch_size=size,
        )

    found = attack(slice(None), 64)
    alone = np.concatenate([attack(slice(i, i + 1), 1) for i in range(7)])
    for batches in (found, attack(slice(None), 2), attack(slice(None), 1)):
        np.testing.assert_allclose(batches, alone, atol=1e-6)
    np.testing.assert_array_equal(found[mask == 0], x[mask == 0])
    assert np.all(found >= low)
    assert np.all(found <= high)
    order = {"l1": 1, "l2": 2, "infinity": np.inf}[norm]
    moved = np.linalg.norm(found.astype(np.float64) - x, order, axis=1)
    assert np.all(moved <= epsilon)
    assert moved[-1] > 0.01


def test_pieces_cover_all() -> None:
    assert [range(7)[piece] for piece in split(7, 3)] == [
        range(3),
        range(3, 6),
        range(6, 7),
    ]
    assert split(0, 3) == []


def test_batches_of_several_lengths_say_what_to_do() -> None:
    batches = [np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)]
    with pytest.raises(ValueError, match=r"\(2, 3\), \(2, 4\).*padded_batch"):
        Examples(iter(batches))
