"""Tests of the interface of neighbor generators."""

import pytest
import tensorflow as tf

from nsl import lib


def test_gen_neighbor_is_abstract():
    with pytest.raises(TypeError, match="gen_neighbor"):
        lib.GenNeighbor()  # type: ignore[abstract]


def test_subclass():
    class Twin(lib.GenNeighbor):
        def gen_neighbor(self, input_features):
            return input_features, tf.ones([1, 1])

    features = tf.zeros([1, 2])
    assert Twin().gen_neighbor(features)[0] is features
