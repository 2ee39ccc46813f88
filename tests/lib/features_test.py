"""Tests of structures of features."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from nsl.lib import features

NESTED = {"b": (tf.ones([2]), [tf.zeros([2])]), "a": {"x": tf.ones([2])}}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_floating_tensors_are_perturbable(dtype):
    assert features.is_perturbable(tf.ones([1], dtype))
    assert features.is_perturbable(tf.ones([1], dtype).numpy())
    assert tf.function(lambda x: features.is_perturbable(x))(tf.ones([1], dtype))


@pytest.mark.parametrize(
    "make",
    [
        lambda: tf.ones([1], tf.int32),
        lambda: tf.ones([1], tf.uint8),
        lambda: tf.ones([1], tf.bool),
        lambda: tf.constant(["a"]),
        lambda: tf.ragged.constant([[1.0]]),
        lambda: tf.sparse.from_dense([[1.0]]),
        lambda: np.array([1]),
        lambda: np.array(["a"]),
        lambda: "a",
        lambda: None,
    ],
)
def test_all_else_is_not(make):
    assert not features.is_perturbable(make())


def test_names_follow_the_order_of_flatten():
    assert features.names(NESTED) == ["a/x", "b/0", "b/1/0"]
    pair = collections.namedtuple("Pair", "u v")  # type: ignore[name-match]
    assert features.names(pair(tf.ones([1]), tf.ones([1]))) == ["0", "1"]
    assert features.names(tf.ones([1])) == [""]
    ragged = {"r": tf.ragged.constant([[1.0]]), "d": tf.ones([1])}
    assert features.names(ragged) == ["d", "r"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, [None, None, None]),
        (2, [2, 2, 2]),
        ({"a": 2}, [2, None, None]),
        ({"a": {"x": 2}, "b": 3}, [2, 3, 3]),
        ({"b": (None, 3)}, [None, None, 3]),
        ({"b": {1: 3}}, [None, None, 3]),
        ({"b": (1,)}, [None, 1, None]),
    ],
)
def test_spread(value, expected):
    assert features.spread(value, NESTED, "mask") == expected


def test_list_is_an_array_where_features_have_names():
    flat = {"x": tf.ones([1, 2]), "y": tf.ones([2])}
    assert features.spread([1, 2], flat, "mask") == [[1, 2], [1, 2]]


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ({"c": 1}, r"mask has entries for unknown features \['c'\].*\['a', 'b'\]"),
        ({"b": (1, 2, 3)}, r"unknown features \[2\].*\[0, 1\]"),
        ({"a": {"x": {"y": 1}}}, r"feature 'a/x' is a single tensor"),
    ],
)
def test_spread_refuses_unknown_features(value, match):
    with pytest.raises(ValueError, match=match):
        features.spread(value, NESTED, "mask")


def test_cast_exactly_does_not_round():
    assert float(features.cast_exactly(0.1, tf.float64)) == 0.1
    assert features.cast_exactly([1, 2], tf.float16).dtype == tf.float16
    assert features.cast_exactly(tf.constant(1), tf.float32).dtype == tf.float32
