"""A wrapper is saved whole, or as its base model."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.keras.contract.base import (
    ContractBase,
    X,
    assert_weights_equal,
    innermost,
    mlp,
)


class SavingContract(ContractBase):
    """Saving, loading, configs."""

    def test_save_writes_the_base_model(self, tmp_path):
        model = self.fresh()
        self.fit(model)
        model.save(tmp_path / "base.keras")
        loaded = keras.models.load_model(tmp_path / "base.keras")
        assert type(loaded) is type(innermost(model))
        np.testing.assert_allclose(loaded(X), model(X), rtol=1e-6)

    def test_weights_round_trip(self, tmp_path):
        model = self.fresh()
        self.fit(model)
        model.save_weights(tmp_path / "model.weights.h5")
        other = self.compiled(mlp(seed=2))
        other.load_weights(tmp_path / "model.weights.h5")
        assert_weights_equal(other.get_weights(), model.get_weights())

    def test_weights_go_to_the_base_model_and_back(self, tmp_path):
        model, plain = self.fresh(), mlp(seed=2)
        callback = keras.callbacks.ModelCheckpoint(
            str(tmp_path / "last.weights.h5"), save_weights_only=True
        )
        self.fit(model, callbacks=[callback])
        plain.load_weights(tmp_path / "last.weights.h5")
        assert_weights_equal(plain.get_weights(), model.get_weights())
        plain.set_weights([2 * w for w in plain.get_weights()])
        plain.save_weights(tmp_path / "plain.weights.h5")
        model.load_weights(tmp_path / "plain.weights.h5")
        assert_weights_equal(model.get_weights(), plain.get_weights())

    def test_build_makes_the_weights_of_the_base_model(self, tmp_path):
        def unbuilt():
            return keras.Sequential([keras.layers.Dense(5), keras.layers.Dense(3)])

        built = self.wrap(unbuilt())
        built.build((None, 4))
        assert built.built
        assert [w.shape for w in built.get_weights()] == [(4, 5), (5,), (5, 3), (3,)]
        built.save_weights(tmp_path / "model.weights.h5")
        for build in ("build", "build_from_config"):
            other = self.wrap(unbuilt())
            if build == "build":
                other.build((None, 4))
            else:
                other.build_from_config(built.get_build_config())
            other.load_weights(tmp_path / "model.weights.h5")
            assert_weights_equal(other.get_weights(), built.get_weights())
        with pytest.raises(ValueError, match="not yet been built"):
            self.wrap(unbuilt()).load_weights(tmp_path / "model.weights.h5")

    def test_converts_to_tensorflow_lite(self):
        model = self.fresh()
        self.fit(model)
        converted = tf.lite.TFLiteConverter.from_keras_model(model).convert()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # It moves to a package of its own.
            interpreter = tf.lite.Interpreter(model_content=converted)
        interpreter.allocate_tensors()
        [given], [found] = (
            interpreter.get_input_details(),
            interpreter.get_output_details(),
        )
        interpreter.set_tensor(given["index"], X[:1])
        interpreter.invoke()
        np.testing.assert_allclose(
            interpreter.get_tensor(found["index"]),
            model.predict(X[:1], verbose=0),
            1e-4,
        )

    def test_config_round_trip(self):
        model = self.wrap(mlp())
        again = type(model).from_config(model.get_config())
        assert again.get_config() == model.get_config()
        assert again.name == model.name
