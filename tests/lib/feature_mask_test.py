"""Tests of feature masks."""

import numpy as np
import pytest
import tensorflow as tf

from nsl import lib


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_mask_multiplies(dtype):
    features = tf.constant([[1.0, 2.0], [3.0, 4.0]], dtype)
    result = lib.apply_feature_mask(features, [1.0, 0.5])
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, [[1, 1], [3, 2]])


def test_no_mask_returns_the_same_object():
    features = tf.ones([1, 2])
    assert lib.apply_feature_mask(features) is features


def test_mask_by_name():
    features = {"a": tf.ones([1, 2]), "b": [tf.ones([1, 1])]}
    result = lib.apply_feature_mask(features, {"b": 0})
    np.testing.assert_array_equal(result["a"], [[1, 1]])
    np.testing.assert_array_equal(result["b"][0], [[0]])


@pytest.mark.parametrize("mask", [[-0.5, 1.0], [0.0, 1.5], [0.0, np.nan]])
def test_values_out_of_range(mask):
    features = tf.ones([1, 2])
    with pytest.raises(ValueError, match=r"values in \[0, 1\]") as error:
        lib.apply_feature_mask(features, mask)
    # What NSL 1.4 raises; old programs may catch it.
    assert isinstance(error.value, tf.errors.InvalidArgumentError)
    assert error.value.message == str(error.value)
    with pytest.raises(tf.errors.InvalidArgumentError, match="feature_mask must hold"):
        tf.function(lib.apply_feature_mask)(features, tf.constant(mask))


def test_mask_that_would_enlarge_the_features():
    with pytest.raises(ValueError, match=r"shape \(3, 2\), which does not broadcast"):
        lib.apply_feature_mask(tf.ones([1, 2]), np.ones([3, 2]))


def test_xla():
    run = tf.function(lib.apply_feature_mask, jit_compile=True)
    result = run(tf.ones([1, 2]), tf.constant([0.0, 1.0]))
    np.testing.assert_array_equal(result, [[0, 1]])
