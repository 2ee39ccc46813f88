"""Tests of the objectives against their formulas."""

import numpy as np
import pytest
import tensorflow as tf

from nsl.attacks import objectives

LOGITS = tf.constant([[2.0, 5.0, 1.0, 4.0], [0.5, -1.0, 3.0, 0.0]])
LABELS = np.array([1, 0], np.int32)
TARGETS = np.array([3, 1], np.int32)


def test_cross_entropy():
    shares = tf.nn.softmax(LOGITS).numpy()
    own = shares[[0, 1], LABELS]
    aimed = shares[[0, 1], TARGETS]
    np.testing.assert_allclose(
        objectives.cross_entropy(LOGITS, LABELS), -np.log(own), rtol=1e-5
    )
    np.testing.assert_allclose(
        objectives.cross_entropy(LOGITS, LABELS, TARGETS), np.log(aimed), rtol=1e-5
    )


@pytest.mark.parametrize("scale", [30.0, 100.0, 1000.0])
def test_cross_entropy_of_an_overconfident_model_keeps_its_direction(scale):
    logits, sure = scale * LOGITS, tf.argmax(LOGITS, 1, tf.int32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        entropy = objectives.cross_entropy(logits, sure)
        margin = objectives.margin(logits, sure)
    wide = tf.cast(logits, tf.float64)
    exact = tf.nn.sparse_softmax_cross_entropy_with_logits(sure, wide)
    np.testing.assert_allclose(entropy, exact, rtol=1e-5, atol=1e-9)
    found, expected = tape.gradient(entropy, logits), tape.gradient(margin, logits)
    length = tf.reduce_max(tf.abs(found), axis=1, keepdims=True)
    np.testing.assert_allclose(found / length, expected, atol=1e-4)


def test_margin():
    np.testing.assert_allclose(objectives.margin(LOGITS, LABELS), [4 - 5, 3 - 0.5])
    np.testing.assert_allclose(
        objectives.margin(LOGITS, LABELS, TARGETS), [4 - 5, -1 - 3]
    )


def test_dlr():
    expected = [-(5 - 4) / (5 - 2), -(0.5 - 3) / (3 - 0)]
    np.testing.assert_allclose(objectives.dlr(LOGITS, LABELS), expected, rtol=1e-6)
    expected = [-(5 - 4) / (5 - 1.5), -(0.5 + 1) / (3 - (0 - 1) / 2)]
    np.testing.assert_allclose(
        objectives.dlr(LOGITS, LABELS, TARGETS), expected, rtol=1e-6
    )


def test_dlr_changes_neither_with_scale_nor_offset():
    scaled = 1000 * LOGITS + 7
    np.testing.assert_allclose(
        objectives.dlr(scaled, LABELS),
        objectives.dlr(LOGITS, LABELS),
        rtol=1e-4,
    )


def test_dlr_needs_three_classes_and_says_what_to_use():
    with pytest.raises(ValueError, match=r"at least 3 classes.*has 2.*'margin'"):
        objectives.dlr(tf.zeros([1, 2]), np.zeros(1, np.int32))
    with pytest.raises(ValueError, match="at least 4 classes"):
        objectives.dlr(tf.zeros([1, 3]), np.zeros(1, np.int32), np.ones(1, np.int32))


def test_an_unknown_objective_names_those_there_are():
    with pytest.raises(ValueError, match=r"'hinge'.*'cross_entropy', 'dlr', 'margin'"):
        objectives.objective_of("hinge")
