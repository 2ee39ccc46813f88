"""Tests of what configs demand of their fields."""

import numpy as np
import pytest
import tensorflow as tf

from nsl import configs
from nsl.configs import fields


@pytest.mark.parametrize("value", [0, 1.5, np.float32(2), np.int64(3)])
def test_numbers_of_any_kind(value):
    assert configs.AdvRegConfig(value).multiplier == value


@pytest.mark.parametrize("value", [None, "1", True, [1]])
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match=r"AdvRegConfig\.multiplier must be a number"):
        configs.AdvRegConfig(value)


def test_variables_pass():
    variable = tf.Variable(0.5)
    assert configs.AdvRegConfig(variable).multiplier is variable


def test_comparable():
    def equal(a, b):
        return fields.comparable(a) == fields.comparable(b)

    assert equal(np.ones([2]), np.ones([2]))
    assert not equal(np.ones([2]), np.ones([2, 1]))
    assert not equal(np.ones([2]), np.ones([2], int))
    assert equal(tf.ones([2]), np.ones([2], np.float32))
    assert equal({"x": [np.ones([1]), None]}, {"x": [np.ones([1]), None]})
    assert not equal([1, 2], (1, 2))
    assert not equal({"x": 1}, {"y": 1})
    assert equal(1, 1.0)
