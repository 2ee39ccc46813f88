"""Tests of the threat model and of structures as rows."""

import numpy as np
import pytest
import tensorflow as tf

from nsl.lib.rows import from_rows, spread_rows, to_rows
from nsl.lib.threat_model import ThreatModel


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    return {
        "a": tf.constant(rng.normal(size=[3, 2, 2]), tf.float32),
        "b": tf.constant([[1], [2], [3]]),
        "c": tf.constant(rng.normal(size=[3, 1]), tf.float32),
    }


def test_rows_hold_all_coordinates_of_an_example():
    structure = [tf.reshape(tf.range(8.0), [2, 2, 2]), tf.constant([9.0, 10.0])]
    rows = to_rows(structure)
    np.testing.assert_array_equal(rows, [[0, 1, 2, 3, 9], [4, 5, 6, 7, 10]])
    back = from_rows(rows, structure)
    for tensor, original in zip(back, structure, strict=True):
        np.testing.assert_array_equal(tensor, original)


@pytest.mark.parametrize("shape", [[], [2], [2, 2], [1, 2, 1], [3, 1, 1], [3, 2, 2]])
def test_values_spread_as_they_broadcast(shape):
    value = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    tensors = [tf.zeros([3, 2, 2]), tf.zeros([3])]
    rows = spread_rows([tf.constant(value), None], tensors, 7.0)
    expected = np.broadcast_to(value, [3, 2, 2]).reshape(3, 4)
    expected = np.concatenate([expected, np.full([3, 1], 7)], axis=1)
    np.testing.assert_array_equal(tf.broadcast_to(rows, [3, 5]), expected)
    alone = spread_rows([tf.constant(value)], tensors[:1], 7.0)
    np.testing.assert_array_equal(tf.broadcast_to(alone, [3, 4]), expected[:, :4])


def test_what_is_given_for_no_feature_is_none():
    assert spread_rows([None, None], [tf.zeros([1, 1])] * 2, 0.0) is None


def test_leaves_that_cannot_be_perturbed_stay_the_same_objects(features):
    threat = ThreatModel(features, "l2")
    assert threat.centers.shape == [3, 5]
    restored = threat.restore(threat.centers + 1)
    assert restored["b"] is features["b"]
    np.testing.assert_allclose(restored["a"], features["a"] + 1)
    kept = threat.restore(threat.centers + 1, kept={0})
    assert kept["a"] is features["a"]
    np.testing.assert_allclose(kept["c"], features["c"] + 1)


def test_missing_and_infinite_gradients_are_zero(features):
    threat = ThreatModel(features, "l2")
    gradient = tf.constant([[np.nan], [np.inf], [2.0]])
    rows = threat.rows({"a": None, "b": None, "c": gradient})
    np.testing.assert_array_equal(rows, [[0] * 5, [0] * 5, [0, 0, 0, 0, 2]])


def test_the_box_allows_no_change_at_all_and_nothing_where_masked(features):
    mask = tf.constant([[0.0, 1.0], [0.5, 1.0]])
    threat = ThreatModel(
        features,
        "infinity",
        low=[tf.constant(-0.1), None, None],
        high=[tf.constant(0.1), None, None],
        mask=[mask, None, None],
    )
    low, high = (tf.broadcast_to(b, [3, 5]).numpy() for b in threat.box())
    assert np.all(low <= 0)
    assert np.all(high >= 0)
    assert np.all(low[:, 0] == 0)
    assert np.all(high[:, 0] == 0)
    assert np.all(np.isinf(low[:, 4]))
    centers = threat.centers.numpy()[:, 1:4]
    np.testing.assert_allclose(high[:, 1:4], np.maximum(0.1 - centers, 0))
    np.testing.assert_allclose(low[:, 1:4], np.minimum(-0.1 - centers, 0))


def test_a_feature_outside_of_the_ball_is_not_projected(features):
    threat = ThreatModel(
        features, "l2", radius=1.0, scale=[tf.constant(0.5), None, None]
    )
    projected = threat.project(tf.fill([3, 5], 3.0)).numpy()
    np.testing.assert_allclose(np.linalg.norm(projected[:, :4], axis=1), 0.5, rtol=1e-6)
    np.testing.assert_array_equal(projected[:, 4], 3)
