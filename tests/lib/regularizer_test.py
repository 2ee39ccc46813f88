"""Tests of losses at adversarial points."""

import numpy as np
import pytest
import tensorflow as tf

from nsl import configs, lib
from nsl.lib.regularizer import virtual_adversarial_loss


def test_adv_regularizer():
    calls = []

    def model_fn(x, is_train, reuse):
        calls.append((bool(is_train), reuse))
        return 2 * x

    loss = lib.adv_regularizer(
        tf.constant([[1.0, 2.0]]),
        tf.constant([[1.0, 1.0]]),
        model_fn,
        lambda labels, predictions: tf.reduce_sum(predictions - labels),
    )
    assert float(loss) == 4.0
    assert calls == [(False, True)]


def config(norm="l2", **kwargs):
    defaults = {
        "adv_neighbor_config": configs.AdvNeighborConfig(
            adv_step_size=0.1, adv_grad_norm=norm
        ),
        "distance_config": configs.DistanceConfig("l2", sum_over_axis=-1),
        "approx_difference": 1e-3,
    }
    return configs.VirtualAdvConfig(**(defaults | kwargs))


@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_one_power_iteration_of_a_linear_embedding(jit_compile):
    """The squared distance has the Hessian 2 W W^T, so the step is known."""
    weights = np.array([[1.0, 0.5, 0.0], [-1.0, 2.0, 1.0]], np.float32)
    x = tf.constant([[0.3, -0.2], [1.0, 2.0]])
    noise = np.array([[0.6, 0.8], [1.0, 0.0]], np.float32)

    def run(x):
        return virtual_adversarial_loss(
            x, lambda x: x @ weights, config(), x @ weights, tf.constant(noise)
        )

    if jit_compile is not None:
        run = tf.function(run, jit_compile=jit_compile)
    step = noise @ weights @ weights.T
    step *= 0.1 / np.linalg.norm(step, axis=1, keepdims=True)
    expected = ((step @ weights) ** 2).sum(axis=1).mean()
    np.testing.assert_allclose(run(x), expected, rtol=1e-3)


def test_power_iteration_finds_the_largest_change():
    weights = np.array([[2.0, 1.0], [0.5, 1.0], [0.0, -1.0]])
    x = tf.constant(np.random.default_rng(0).normal(size=[4, 3]))
    loss = lib.virtual_adv_regularizer(
        x, lambda x: x @ weights, config(num_approx_steps=30)
    )
    largest = np.linalg.svd(weights)[1][0]
    np.testing.assert_allclose(loss, (0.1 * largest) ** 2, rtol=1e-6)


@pytest.mark.parametrize("norm", ["l2", "infinity"])
def test_step_keeps_its_length_in_large_batches(norm):
    """The gradient of a mean over many elements is tiny, the step must not be."""
    x = tf.zeros([512, 8])
    loss = lib.virtual_adv_regularizer(
        x,
        lambda x: x,
        config(norm, distance_config=configs.DistanceConfig(), approx_difference=1e-6),
    )
    if norm == "l2":
        np.testing.assert_allclose(loss, 0.1**2 / 8, rtol=1e-3)
    else:
        assert 0.1**2 / 8 < loss <= 0.1**2


def test_random_direction_without_iterations():
    loss = lib.virtual_adv_regularizer(
        tf.constant([[1.0, -1.0]]), lambda x: x, config(num_approx_steps=0)
    )
    np.testing.assert_allclose(loss, 0.01, rtol=1e-5)


def test_mask_and_structure():
    x = {"a": tf.zeros([2, 3]), "b": tf.zeros([2])}
    masked = configs.AdvNeighborConfig(
        adv_step_size={"a": 0.5, "b": 0.1}, feature_mask={"a": 0}
    )
    loss = lib.virtual_adv_regularizer(
        x,
        lambda x: tf.concat([x["a"], x["b"][:, tf.newaxis]], axis=1),
        config(adv_neighbor_config=masked),
    )
    np.testing.assert_allclose(loss, 0.01, rtol=1e-5)


def test_gradient_flows_through_the_perturbed_embedding_alone():
    weight = tf.Variable([[2.0]])
    x = tf.constant([[1.0]])
    with tf.GradientTape() as tape:
        embedding = x @ weight
        loss = lib.virtual_adv_regularizer(
            x, lambda x: x @ weight, config(), embedding=embedding
        )
    # With d the perturbation (+-0.1): ((x + d) w - x w')^2, differentiated by w alone.
    gradient = float(tape.gradient(loss, weight)[0, 0])
    candidates = [2 * (0.2) * 1.1, 2 * (-0.2) * 0.9]
    assert min(abs(gradient - c) for c in candidates) < 1e-5


def test_embedding_that_does_not_depend_on_the_input():
    loss = lib.virtual_adv_regularizer(
        tf.ones([2, 2]), lambda x: tf.ones([2, 1]), config()
    )
    assert float(loss) == 0.0


def test_default_config():
    loss = lib.virtual_adv_regularizer(
        tf.constant([[1.0, -1.0]]), lambda x: x, configs.VirtualAdvConfig()
    )
    assert 0 < loss < 1e-6


def test_settings_of_layers_are_refused():
    config = configs.VirtualAdvConfig(configs.AdvNeighborConfig(norm_per_position=True))
    with pytest.raises(ValueError, match="supports neither embedding_layer nor"):
        lib.virtual_adv_regularizer(tf.ones([2, 3]), tf.identity, config)
