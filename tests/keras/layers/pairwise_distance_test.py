"""The layer that computes the distance between samples and neighbors."""

import keras
import numpy as np
import pytest

import nsl

RANDOM = np.random.default_rng(0)
SOURCES = RANDOM.normal(size=(3, 4)).astype("float32")
TARGETS = RANDOM.normal(size=(3, 2, 4)).astype("float32")
WEIGHTS = RANDOM.uniform(size=(3, 2, 1)).astype("float32")
CONFIG = nsl.configs.DistanceConfig(distance_type="l2", sum_over_axis=-1)


def expected(weights=WEIGHTS):
    squares = ((SOURCES[:, None] - TARGETS) ** 2).sum(-1, keepdims=True)
    return (weights * squares).sum() / np.count_nonzero(
        np.broadcast_to(weights, (3, 2, 1))
    )


@pytest.mark.parametrize("merged", [False, True])
def test_neighbors_in_their_own_dimension_or_in_the_batch(merged):
    layer = nsl.keras.layers.PairwiseDistance(CONFIG)
    targets = TARGETS.reshape(6, 4) if merged else TARGETS
    weights = WEIGHTS.reshape(6, 1) if merged else WEIGHTS
    np.testing.assert_allclose(layer(SOURCES, targets, weights), expected(), rtol=1e-5)
    np.testing.assert_allclose(
        layer((SOURCES, targets, weights)), expected(), rtol=1e-5
    )


def test_weight_is_one_by_default():
    layer = nsl.keras.layers.PairwiseDistance(CONFIG)
    np.testing.assert_allclose(
        layer(SOURCES, TARGETS), expected(np.float32(1.0)), rtol=1e-5
    )


def test_in_a_functional_model_that_is_saved(tmp_path):
    inputs = {
        "x": keras.Input((4,)),
        "targets": keras.Input((2, 4)),
        "weights": keras.Input((2, 1)),
    }
    distance = nsl.keras.layers.PairwiseDistance(CONFIG)(
        inputs["x"], inputs["targets"], inputs["weights"]
    )
    model = keras.Model(inputs, distance)
    model.save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    batch = {"x": SOURCES, "targets": TARGETS, "weights": WEIGHTS}
    np.testing.assert_allclose(model(batch), expected(), rtol=1e-5)


def test_targets_missing():
    with pytest.raises(ValueError, match="sources and targets"):
        nsl.keras.layers.PairwiseDistance()(SOURCES)


@pytest.mark.parametrize("axis", [None, -1, 1])
def test_masked_positions_do_not_count(axis):
    config = nsl.configs.DistanceConfig(sum_over_axis=axis)
    embed = keras.layers.Embedding(9, 4, "uniform", mask_zero=True)
    embed.build()
    ids, neighbors = (
        np.array([[1, 2], [3, 4]]),
        np.array([[5, 0], [6, 7], [8, 1], [2, 0]]),
    )
    weights = np.array([[[0.5]], [[1.0]], [[2.0]], [[1.5]]], "float32")

    def distance(padding):
        pad = ((0, 0), (0, padding))
        layer = nsl.keras.layers.PairwiseDistance(config)
        return layer(embed(np.pad(ids, pad)), embed(np.pad(neighbors, pad)), weights)

    if axis != 1:
        assert float(distance(5)) == pytest.approx(float(distance(0)))
    table = embed.embeddings.numpy()
    sources = np.repeat(ids, 2, axis=0)
    there = (neighbors > 0)[..., None]
    square = (table[sources] - table[neighbors]) ** 2 * there * weights
    count = {None: 4 * there.sum(), -1: there.sum(), 1: 4 * 4}[axis]
    assert float(distance(0)) == pytest.approx(square.sum() / count, rel=1e-5)


def test_weight_is_a_number_by_position():
    s, t = np.ones((2, 3), "float32"), np.zeros((2, 3), "float32")
    layer = nsl.keras.layers.PairwiseDistance()
    assert float(layer(s, t, 0.5)) == pytest.approx(0.5 * float(layer(s, t)))
