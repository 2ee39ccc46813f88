"""Layers and features of all kinds, and models built late."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.keras.contract.base import (
    SAMPLES,
    ContractBase,
    X,
    Y,
    assert_weights_equal,
)


class FeaturesContract(ContractBase):
    """Features that are neither floats nor dense."""

    @pytest.mark.parametrize("kind", ["ragged", "sparse"])
    def test_ragged_and_sparse_features(self, kind):
        """A float feature beside one that Keras takes ragged or sparse."""

        class Subclassed(keras.Model):
            def __init__(self):
                super().__init__()
                self.hidden = keras.layers.Dense(5, activation="tanh")
                self.out = keras.layers.Dense(3)

            def call(self, inputs):
                other = inputs["other"]
                if isinstance(other, tf.RaggedTensor):
                    other = other.to_tensor(shape=[None, 3])
                elif isinstance(other, tf.SparseTensor):
                    other = tf.reshape(tf.sparse.to_dense(other), [-1, 3])
                return self.out(self.hidden(tf.concat([inputs["x"], other], -1)))

        dense = np.tile(np.array([[1.0, 2.0, 0.0]], "float32"), (SAMPLES, 1))
        if kind == "ragged":
            other = tf.RaggedTensor.from_tensor(dense, padding=0)  # type: ignore[attr-defined]
        else:
            other = tf.sparse.from_dense(dense)

        def train(other):
            keras.utils.set_random_seed(1)
            x = self.training_x({"x": X, "other": other})
            dataset = tf.data.Dataset.from_tensor_slices((x, Y)).batch(8)
            model = self.compiled(Subclassed())
            history = self.fit(model, x=dataset, y=None, batch_size=None).history
            return history["loss"]

        assert np.isfinite(train(other)).all()

    def test_integer_and_string_features_beside_floats(self):
        keras.utils.set_random_seed(1)
        inputs = {
            "x": keras.Input((4,), name="x"),
            "number": keras.Input((1,), dtype="int32", name="number"),
            "word": keras.Input((1,), dtype="string", name="word"),
        }
        lookup = keras.layers.StringLookup(vocabulary=["a", "b"])(inputs["word"])
        embedded = [
            keras.layers.Flatten()(keras.layers.Embedding(5, 2)(ids))
            for ids in (inputs["number"], lookup)
        ]
        hidden = keras.layers.Concatenate()([inputs["x"], *embedded])
        model = self.compiled(keras.Model(inputs, keras.layers.Dense(3)(hidden)))
        x = self.training_x(
            {
                "x": X,
                "number": np.arange(SAMPLES, dtype="int32")[:, None] % 5,
                "word": np.array([["a"], ["b"], ["c"]] * 8),
            }
        )
        before = model.get_weights()
        dataset = tf.data.Dataset.from_tensor_slices((x, Y)).batch(8)
        self.fit(model, x=dataset, y=None, batch_size=None)
        for old, new in zip(before, model.get_weights(), strict=True):
            assert not np.array_equal(old, new)


class ModelsContract(FeaturesContract):
    """What base models may be made of."""

    def test_jit_compiles_common_layers(self):
        keras.utils.set_random_seed(1)
        base = keras.Sequential(
            [
                keras.Input((4,), name="x"),
                keras.layers.Reshape((4, 1)),
                keras.layers.Conv1D(3, 2),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.3),
                keras.layers.LSTM(3),
                keras.layers.Dense(3),
            ]
        )
        model = self.compiled(base, jit_compile=True)
        assert np.isfinite(self.fit(model).history["loss"]).all()

    def test_mirrored_strategy_builds_a_subclassed_model(self):
        class Subclassed(keras.Model):
            def __init__(self):
                super().__init__()
                self.out = keras.layers.Dense(3, kernel_initializer="ones")

            def call(self, inputs):
                return self.out(inputs["x"])

        devices = tf.config.list_logical_devices("CPU")
        strategy = tf.distribute.MirroredStrategy(
            [device.name for device in devices],
            cross_device_ops=tf.distribute.ReductionToOneDevice(),
        )
        with strategy.scope():
            model = self.compiled(Subclassed())
        self.fit(model, batch_size=12)
        assert_weights_equal(
            model.get_weights(),
            self.trained_weights(Subclassed(), batch_size=12),
            self.near(1e-5),
        )
