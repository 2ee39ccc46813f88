"""The layer that tells samples from their neighbors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import nsl

CONFIG = nsl.configs.GraphNeighborConfig(max_neighbors=2)


def features():
    rows = np.arange(12.0, dtype="float32").reshape(3, 4)
    return {
        "x": rows,
        "other": rows[:, :1],
        "NL_nbr_0_x": rows + 100,
        "NL_nbr_1_x": rows + 200,
        "NL_nbr_0_other": rows[:, :1],
        "NL_nbr_1_other": rows[:, :1],
        "NL_nbr_0_weight": np.full((3, 1), 0.5, "float32"),
        "NL_nbr_1_weight": np.full((3, 1), 0.25, "float32"),
    }


def test_unpacks_as_the_lib_does():
    layer = nsl.keras.layers.NeighborFeatures(CONFIG)
    for keep_rank in (True, False):
        actual = layer(features(), keep_rank=keep_rank)
        expected = nsl.lib.unpack_neighbor_features(features(), CONFIG, keep_rank)
        for left, right in zip(actual, expected, strict=True):
            keras.tree.map_structure(np.testing.assert_array_equal, left, right)


def test_chosen_features_alone():
    batch = {
        name: value for name, value in features().items() if not name.endswith("_other")
    }
    layer = nsl.keras.layers.NeighborFeatures(CONFIG, feature_names=["x"])
    samples, neighbors, weights = layer(batch)
    assert list(samples) == list(neighbors) == ["x"]
    assert weights.shape == (6, 1)


def test_makes_missing_inputs_of_a_functional_model():
    inputs = {"x": keras.Input((4,), name="x")}
    layer = nsl.keras.layers.NeighborFeatures(CONFIG)
    samples, neighbors, weights = layer(inputs)
    assert sorted(inputs) == sorted(
        name for name in features() if not name.endswith("other")
    )
    model = keras.Model(inputs, [samples["x"], neighbors["x"], weights])
    batch = {name: features()[name] for name in inputs}
    for actual, expected in zip(
        model(batch),
        nsl.lib.unpack_neighbor_features(batch, CONFIG),
        strict=True,
    ):
        expected = expected["x"] if isinstance(expected, dict) else expected
        np.testing.assert_array_equal(actual, expected)


def test_missing_inputs_have_the_shape_and_dtype_of_their_sample():
    inputs = {
        "x": keras.Input(batch_shape=(8, 4, 2), dtype="float16", name="x"),
        "NL_nbr_0_x": keras.Input(batch_shape=(8, 4, 2), name="NL_nbr_0_x"),
    }
    made = nsl.keras.layers.make_missing_neighbor_inputs(
        CONFIG, inputs, weight_dtype="float64"
    )
    assert sorted(made) == ["NL_nbr_0_weight", "NL_nbr_1_weight", "NL_nbr_1_x"]
    assert made["NL_nbr_1_x"].shape == (8, 4, 2)
    assert made["NL_nbr_1_x"].dtype == "float16"
    assert made["NL_nbr_0_weight"].shape == (None, 1)
    assert made["NL_nbr_0_weight"].dtype == "float64"


@pytest.mark.parametrize("keep_rank", [True, False])
def test_sparse_features_of_a_functional_model(keep_rank):
    inputs = {"x": keras.Input((4,), sparse=True, name="x")}
    layer = nsl.keras.layers.NeighborFeatures(CONFIG)
    samples, neighbors, weights = layer(inputs, keep_rank=keep_rank)
    assert neighbors["x"].shape == ((None, 4) if keep_rank else (None, 2, 4))
    outputs = [samples["x"], neighbors["x"], weights]
    if keep_rank:
        # A layer whose weights have the shape of the last axis.
        outputs.append(keras.layers.Dense(3)(neighbors["x"]))
    model = keras.Model(inputs, outputs)
    dense = {name: tf.constant(features()[name]) for name in inputs}
    expected = nsl.lib.unpack_neighbor_features(dense, CONFIG, keep_rank)
    batch = {
        name: value if name.endswith("weight") else tf.sparse.from_dense(value)
        for name, value in dense.items()
    }
    arrays = {
        name: value.numpy() if name.endswith("weight") else value
        for name, value in batch.items()
    }
    found = model(batch), model.predict_on_batch(batch), model.predict_on_batch(arrays)
    for outputs in found:
        for sparse, of_dense in zip(outputs[:2], expected[:2], strict=True):
            np.testing.assert_array_equal(tf.sparse.to_dense(sparse), of_dense["x"])
        np.testing.assert_array_equal(outputs[2], expected[2])


@pytest.mark.parametrize("kind", ["sparse", "ragged"])
def test_missing_inputs_are_of_the_kind_of_their_sample(kind):
    try:
        sample = keras.Input((None,), name="x", **{kind: True})
    except TypeError:
        pytest.skip("This release of Keras has no ragged inputs.")
    made = nsl.keras.layers.make_missing_neighbor_inputs(CONFIG, {"x": sample})
    assert getattr(made["NL_nbr_1_x"], kind)
    assert not getattr(made["NL_nbr_1_weight"], kind)


def test_missing_feature_is_named():
    batch = features()
    del batch["NL_nbr_1_other"]
    with pytest.raises(KeyError, match="NL_nbr_1_other"):
        nsl.keras.layers.NeighborFeatures(CONFIG)(batch)


def test_config_round_trip():
    layer = nsl.keras.layers.NeighborFeatures(CONFIG, ["x"], "float64", name="unpack")
    again = nsl.keras.layers.NeighborFeatures.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.variable_dtype == "float64"
