"""Tests of attack targets."""

import numpy as np
import pytest
import tensorflow as tf

from nsl import configs, lib
from tests.conftest import golden

CASES = [
    case for case in golden("misc") if case["config"]["op"] == "get_target_indices"
]


@pytest.mark.parametrize("case", CASES)
def test_golden(case):
    logits, labels = case["inputs"]
    config = configs.AdvTargetConfig(case["config"]["target_method"])
    result = lib.get_target_indices(logits, tf.constant(labels), config)
    np.testing.assert_array_equal(result, case["expected"])
    assert result.dtype == tf.int32
    compiled = tf.function(
        lambda x, y: lib.get_target_indices(x, y, config), jit_compile=True
    )
    np.testing.assert_array_equal(compiled(logits, labels), result)


def test_random_target_is_any_class_and_follows_its_seed():
    logits = tf.zeros([1000, 4])
    labels = tf.zeros([1000], tf.int32)

    def draw(seed):
        tf.random.set_seed(0)
        config = configs.AdvTargetConfig("random", random_seed=seed)
        return lib.get_target_indices(logits, labels, config).numpy()

    drawn = draw(1)
    assert drawn.dtype == np.int32
    assert drawn.shape == (1000,)
    counts = np.bincount(drawn, minlength=4)
    assert len(counts) == 4
    assert counts.min() > 150
    np.testing.assert_array_equal(drawn, draw(1))
    assert (drawn != draw(2)).any()
    np.testing.assert_array_equal(draw(None), draw(None))


def test_second_of_one_class():
    config = configs.AdvTargetConfig("second")
    with pytest.raises(ValueError, match=r"at least two classes.*\(3, 1\)"):
        lib.get_target_indices(tf.zeros([3, 1]), tf.zeros([3], tf.int32), config)
