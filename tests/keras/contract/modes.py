"""Eager, compiled, XLA, mixed precision, several devices."""

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
    innermost,
)


class ModesContract(ContractBase):
    """Ways to run a step, which must all come to the same weights."""

    @pytest.fixture(scope="class")
    @classmethod
    def graph_mode_weights(cls):
        return cls().trained_weights()

    @pytest.mark.parametrize(
        "settings",
        [
            {"run_eagerly": True},
            {"jit_compile": True},
            {"steps_per_execution": 4},
            {"jit_compile": True, "steps_per_execution": 2},
        ],
        ids=str,
    )
    def test_same_weights(self, settings, graph_mode_weights):
        model = self.compiled(**settings)
        self.fit(model)
        assert_weights_equal(model.get_weights(), graph_mode_weights, self.near(1e-5))
        evaluation = {"batch_size": 8, "verbose": 0, "return_dict": True}
        logs = model.evaluate(X, Y, **evaluation)
        expected = self.compiled(innermost(model)).evaluate(X, Y, **evaluation)
        assert self.comparable(logs) == pytest.approx(
            self.comparable(expected), rel=self.near(1e-4)
        )

    @pytest.mark.parametrize("layer", ["conv", "lstm", "batch_norm", "dropout"])
    def test_jit_compiles_common_layers(self, layer):
        keras.utils.set_random_seed(1)
        hidden = {
            "conv": [keras.layers.Reshape((4, 1)), keras.layers.Conv1D(3, 2)],
            "lstm": [keras.layers.Reshape((4, 1)), keras.layers.LSTM(3)],
            "batch_norm": [keras.layers.BatchNormalization()],
            "dropout": [keras.layers.Dropout(0.3)],
        }[layer]
        base = keras.Sequential(
            [
                keras.Input((4,), name="x"),
                *hidden,
                keras.layers.Flatten(),
                keras.layers.Dense(3),
            ]
        )
        model = self.compiled(base, jit_compile=True)
        assert np.isfinite(self.fit(model).history["loss"]).all()

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
    def test_mixed_precision(self, policy):
        keras.config.set_dtype_policy(policy)
        try:
            model = self.compiled()
            history = self.fit(model, epochs=4).history
        finally:
            keras.config.set_dtype_policy("float32")
        assert innermost(model).layers[0].compute_dtype == policy.removeprefix("mixed_")
        assert history["loss"][-1] < history["loss"][0]
        assert history[self.term_metric][0] > 0
        full = self.fit(self.compiled(), epochs=4).history
        for name, values in self.comparable(full).items():
            np.testing.assert_allclose(
                history[name], values, rtol=0.02 if name == "loss" else 0.05
            )

    def test_gradient_accumulation(self):
        def weights(optimizer, batch_size):
            model = self.compiled(optimizer=optimizer)
            self.fit(model, batch_size=batch_size, epochs=1)
            return model.get_weights()

        accumulated = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
        whole = keras.optimizers.SGD(0.1)
        assert_weights_equal(
            weights(accumulated, 8), weights(whole, 24), self.near(1e-4)
        )

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
            other = tf.RaggedTensor.from_tensor(dense, padding=0)
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
