"""Data goes in as in any Keras model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.keras.contract.base import (
    SAMPLE_WEIGHT,
    SAMPLES,
    ContractBase,
    X,
    Y,
    assert_weights_equal,
    mlp,
)


class Batches(keras.utils.PyDataset):
    """Batches of eight, in order."""

    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return SAMPLES // 8

    def __getitem__(self, index):
        rows = slice(index * 8, index * 8 + 8)
        return tuple(keras.tree.map_structure(lambda a: a[rows], self.arrays))


class DataContract(ContractBase):
    """The forms of data, which must all train alike."""

    @pytest.fixture(scope="class")
    @classmethod
    def expected(cls):
        return cls().trained_weights()

    @pytest.fixture(scope="class")
    @classmethod
    def expected_weighted(cls):
        return cls().trained_weights(sample_weight=SAMPLE_WEIGHT)

    def _arrays(self, weighted):
        arrays = (self.training_x({"x": X}), Y)
        return (*arrays, SAMPLE_WEIGHT) if weighted else arrays

    @pytest.mark.parametrize("weighted", [False, True])
    def test_dataset(self, weighted, expected, expected_weighted):
        dataset = tf.data.Dataset.from_tensor_slices(self._arrays(weighted)).batch(8)
        actual = self.trained_weights(x=dataset, y=None, batch_size=None)
        assert_weights_equal(actual, expected_weighted if weighted else expected)

    @pytest.mark.parametrize("weighted", [False, True])
    def test_generator(self, weighted, expected, expected_weighted):
        batches = Batches(*self._arrays(weighted))

        def generator():
            while True:
                yield from (batches[i] for i in range(len(batches)))

        actual = self.trained_weights(
            x=generator(), y=None, batch_size=None, steps_per_epoch=3
        )
        assert_weights_equal(actual, expected_weighted if weighted else expected)

    @pytest.mark.parametrize("weighted", [False, True])
    def test_py_dataset(self, weighted, expected, expected_weighted):
        actual = self.trained_weights(
            x=Batches(*self._arrays(weighted)), y=None, batch_size=None
        )
        assert_weights_equal(actual, expected_weighted if weighted else expected)

    def test_train_on_batch(self, expected):
        model = self.fresh()
        batches = Batches(*self._arrays(False))
        for i in range(len(batches)):
            logs = model.train_on_batch(*batches[i], return_dict=True)
        assert_weights_equal(model.get_weights(), expected)
        assert {"loss", self.term_metric} <= set(logs)

    def test_test_on_batch(self):
        model = self.fresh()
        logs = model.test_on_batch({"x": X}, Y, return_dict=True)
        expected = model.evaluate({"x": X}, Y, verbose=0, return_dict=True)
        expected = {name: float(value) for name, value in expected.items()}
        assert logs == pytest.approx(expected, rel=1e-5)

    def test_last_batch_may_be_smaller(self):
        history = self.fit(self.fresh(), batch_size=10)
        assert np.isfinite(history.history["loss"]).all()

    def test_features_without_axis(self):
        keras.utils.set_random_seed(3)
        inputs = keras.Input((), name="x")
        hidden = keras.layers.Reshape((1,))(inputs)
        model = self.compiled(keras.Model(inputs, keras.layers.Dense(3)(hidden)))
        history = self.fit(model, x=self.training_x({"x": X[:, 0]}))
        assert np.isfinite(history.history["loss"]).all()

    def test_unnamed_input(self, expected):
        keras.utils.set_random_seed(1)
        base = keras.Sequential(
            [keras.layers.Dense(5, activation="tanh"), keras.layers.Dense(3)]
        )
        actual = self.trained_weights(base)
        assert_weights_equal(actual, expected)

    @pytest.mark.parametrize("kind", ["functional", "subclassed"])
    def test_kinds_of_base_models(self, kind, expected):
        sequential = mlp()
        if kind == "functional":
            inputs = keras.Input((4,), name="x")
            base = keras.Model(inputs, sequential(inputs))
        else:

            class Subclassed(keras.Model):
                def __init__(self):
                    super().__init__()
                    self.inner = sequential

                def call(self, inputs, training=None):
                    x = inputs["x"] if isinstance(inputs, dict) else inputs
                    return self.inner(x, training=training)

            base = Subclassed()
        assert_weights_equal(self.trained_weights(base), expected)

    @pytest.mark.parametrize("form", ["pair", "triple", "dataset", "split"])
    def test_validation(self, form):
        validation = {
            "pair": {"validation_data": ({"x": X}, Y)},
            "triple": {"validation_data": ({"x": X}, Y, SAMPLE_WEIGHT)},
            "dataset": {
                "validation_data": tf.data.Dataset.from_tensor_slices(
                    ({"x": X}, Y)
                ).batch(7)
            },
            "split": {"validation_split": 0.25},
        }[form]
        history = self.fit(self.fresh(), **validation).history
        assert "val_loss" in history
        assert (f"val_{self.term_metric}" in history) == self.term_in_evaluation

    def test_missing_labels_are_named(self):
        with pytest.raises(ValueError, match=r"needs labels.*received no y"):
            self.fit(self.fresh(), y=None)
