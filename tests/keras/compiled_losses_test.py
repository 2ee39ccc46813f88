"""The compiled loss of each output, and what it tells about it."""

import dataclasses

import keras
import numpy as np
import pytest

from nsl.keras.compiled_losses import output_losses
from nsl.lib import keras_internals

# (binary, from_logits)
LOGITS, CLASSES = (False, True), (False, False)
BINARY_LOGITS, BINARY = (True, True), (True, False)
UNKNOWN = (None, None)
X = np.ones((2, 3), "float32")


def custom(y_true, y_pred):
    return keras.ops.mean(y_pred, axis=-1)


def losses_of(model, y, y_pred, sample_weight=None):
    known = keras_internals.losses_by_output(model)
    names = getattr(model, "output_names", [])
    return output_losses(known, names, y, y_pred, sample_weight)


def of(loss, outputs=1, structure=None, y=None):
    """Whether each output is binary and logits, after the loss was computed once."""
    inputs = keras.Input((3,))
    tensors = [keras.layers.Dense(3, name=f"out{i}")(inputs) for i in range(outputs)]
    if structure is dict:
        tensors = dict(zip(("b", "a"), tensors, strict=True))
    model = keras.Model(inputs, tensors[0] if outputs == 1 else tensors)
    model.compile(loss=loss)
    y_pred = model(X)
    y = keras.tree.map_structure(lambda _: X, y_pred) if y is None else y
    model.compute_loss(X, y, y_pred)
    losses = losses_of(model, y, y_pred)
    return [each and (each.binary, each.from_logits) for each in losses]


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("categorical_crossentropy", CLASSES),
        (keras.losses.CategoricalCrossentropy(from_logits=True), LOGITS),
        (keras.losses.CategoricalFocalCrossentropy(), CLASSES),
        ("binary_crossentropy", BINARY),
        (keras.losses.BinaryFocalCrossentropy(from_logits=True), BINARY_LOGITS),
        (keras.losses.binary_crossentropy, BINARY),
        ("mse", UNKNOWN),
        (custom, UNKNOWN),
    ],
)
def test_one_output(loss, expected):
    assert of(loss) == [expected]


def test_sparse_labels():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert of(loss, y=np.zeros(2)) == [LOGITS]
    assert of("crossentropy", y=np.zeros((2, 1))) == [CLASSES]


def test_several_outputs():
    losses = ["categorical_crossentropy", "binary_crossentropy"]
    assert of(losses, 2) == [CLASSES, BINARY]
    assert of({"out0": "mse", "out1": losses[0]}, 2) == [UNKNOWN, CLASSES]
    # Keys are sorted, as everywhere in Keras.
    by_name = {"a": losses[1], "b": losses[0]}
    assert of(by_name, 2, dict) == [BINARY, CLASSES]
    assert of({"b": losses[0]}, 2, dict) == [None, CLASSES]


def test_a_model_without_loss():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    model.compile()
    assert losses_of(model, None, model(X)) == [None]


def compiled_with(loss, names):
    inputs = keras.Input((3,))
    outputs = [keras.layers.Dense(3, name=name)(inputs) for name in names]
    model = keras.Model(inputs, outputs if len(names) > 1 else outputs[0])
    model.compile(loss=loss)
    return model, model(X)


@pytest.mark.parametrize("rank", [1, 2])
def test_the_loss_of_each_sample(rank):
    """As Keras computes it with a reduction of none."""
    kind = keras.losses.SparseCategoricalCrossentropy
    model, y_pred = compiled_with(kind(from_logits=True), ["out"])
    y = np.array([2, 0]).reshape([2] + [1] * (rank - 1))
    weight = np.array([[0.5], [2.0]])
    model.compute_loss(X, y, y_pred, weight)
    [loss] = losses_of(model, y, y_pred, weight)
    expected = kind(from_logits=True, reduction="none")(y, y_pred)
    np.testing.assert_allclose(loss.per_sample(y_pred), expected, rtol=1e-6)
    np.testing.assert_allclose(loss.sample_weight, [0.5, 2.0])


def test_positions_of_a_sample_are_averaged():
    model, y_pred = compiled_with("mse", ["out"])
    model.compute_loss(X, X, y_pred)
    [loss] = losses_of(model, X, y_pred)
    maps = np.stack([y_pred, y_pred + 1], 1)
    mean = np.square(maps - np.stack([X, X], 1)).mean((1, 2))
    labels = np.stack([X, X], 1)
    wide = dataclasses.replace(loss, labels=labels)
    np.testing.assert_allclose(wide.per_sample(maps), mean, rtol=1e-6)


@pytest.mark.parametrize("form", ["list", "dict"])
def test_labels_and_weights_of_several_outputs(form):
    names = ["second", "first"]
    loss = dict.fromkeys(names, "mse")
    model, y_pred = compiled_with(loss, names)
    y, weight = [X, 2 * X], [np.ones(2), np.zeros(2)]
    if form == "dict":
        y = dict(zip(names, y, strict=True))
    model.compute_loss(X, y, y_pred, weight)
    second, first = losses_of(model, y, y_pred, weight)
    np.testing.assert_array_equal(second.labels, X)
    np.testing.assert_array_equal(first.labels, 2 * X)
    np.testing.assert_array_equal(second.sample_weight, [1, 1])
    np.testing.assert_array_equal(first.sample_weight, [0, 0])
