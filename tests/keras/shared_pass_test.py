"""Samples and neighbors share a pass exactly where that changes nothing."""

import keras
import numpy as np
import pytest

import nsl
from nsl.keras import passes
from nsl.keras.shared_pass import may_share_pass
from tests.keras.contract.base import X, Y, assert_weights_equal, mlp
from tests.keras.graph_regularization_test import neighbors_of


def sequential(*layers):
    return keras.Sequential([keras.Input((4,), name="x"), *layers])


def functional(operation):
    inputs = keras.Input((4,), name="x")
    return keras.Model(inputs, operation(inputs))


class Unknown(keras.layers.Layer):
    def call(self, inputs):
        return inputs


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


SHARING = {
    "dense": lambda: mlp(),
    "dropout": lambda: mlp(keras.layers.Dropout(0.5)),
    "layer_norm": lambda: mlp(keras.layers.LayerNormalization()),
    "nested": lambda: functional(mlp()),
    "recurrent": lambda: sequential(
        keras.layers.Reshape((4, 1)), keras.layers.LSTM(3), keras.layers.Dense(3)
    ),
    "regularizer": lambda: sequential(keras.layers.Dense(3, kernel_regularizer="l2")),
}
APART = {
    "batch_norm": lambda: mlp(keras.layers.BatchNormalization()),
    "nested_batch_norm": lambda: functional(mlp(keras.layers.BatchNormalization())),
    "spectral_norm": lambda: sequential(
        keras.layers.SpectralNormalization(keras.layers.Dense(3))
    ),
    "activity": lambda: sequential(keras.layers.Dense(3, activity_regularizer="l2")),
    "activity_layer": lambda: mlp(keras.layers.ActivityRegularization(0.1)),
    "unknown_layer": lambda: mlp(Unknown()),
    "lambda": lambda: mlp(keras.layers.Lambda(lambda x: x)),
    "activation": lambda: sequential(
        keras.layers.Dense(3, activation=lambda x: x - keras.ops.mean(x, 0))
    ),
    "subclassed": Subclassed,
    "operation": lambda: functional(lambda x: x - keras.ops.mean(x, axis=0)),
    "fixed_batch": lambda: keras.Sequential(
        [keras.Input(batch_shape=(8, 4)), keras.layers.Dense(3)]
    ),
    "stateful": lambda: keras.Sequential(
        [keras.Input(batch_shape=(8, 4, 1)), keras.layers.LSTM(3, stateful=True)]
    ),
    "mask": lambda: keras.Sequential(
        [keras.Input((4, 1)), keras.layers.Masking(), keras.layers.LSTM(3)]
    ),
}


@pytest.mark.parametrize("name", SHARING)
def test_models_that_share(name):
    assert may_share_pass(SHARING[name]())


@pytest.mark.parametrize("name", APART)
def test_models_that_do_not(name):
    assert not may_share_pass(APART[name]())


@pytest.mark.parametrize("name", ["dense", "layer_norm", "recurrent", "regularizer"])
def test_same_weights_either_way(name, monkeypatch):
    config = nsl.configs.make_graph_reg_config(max_neighbors=2, multiplier=0.3)
    weights = []
    for shared in (True, False):
        monkeypatch.setattr(passes, "may_share_pass", lambda _, s=shared: s)
        keras.utils.set_random_seed(1)
        model = nsl.keras.GraphRegularization(SHARING[name](), config)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), loss)
        model.fit(neighbors_of({"x": X}, 2), Y, verbose=0, shuffle=False)
        weights.append(model.get_weights())
    assert_weights_equal(*weights, 1e-5)


def test_fixed_batch_size_trains():
    config = nsl.configs.make_graph_reg_config(max_neighbors=2, multiplier=0.3)
    weights = []
    for size in (None, 8):
        keras.utils.set_random_seed(1)
        base = keras.Sequential(
            [keras.Input(batch_shape=(size, 4), name="x"), keras.layers.Dense(3)]
        )
        model = nsl.keras.GraphRegularization(base, config)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), loss)
        batch = neighbors_of({"x": X}, 2)
        model.fit(batch, Y, batch_size=8, verbose=0, shuffle=False)
        weights.append(model.get_weights())
    assert_weights_equal(*weights, 1e-6)
    assert np.isfinite(weights[0][0]).all()
