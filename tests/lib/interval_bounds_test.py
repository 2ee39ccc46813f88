"""Interval bounds hold for every point of a box, and are exact where they can be."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from nsl.lib import interval_bounds

L = keras.layers
EPSILON = 0.1


def corners(x, epsilon, count, seed=0):
    """Draws points of a box, every second one a corner."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        move = rng.uniform(-epsilon, epsilon, x.shape).astype(np.float32)
        yield x + (epsilon * np.sign(move) if i % 2 else move)


def assert_holds(model, x, epsilon=EPSILON, count=60):
    """Checks bounds of all outputs against points of the box, and of no box."""
    found = keras.tree.flatten(interval_bounds(model, x - epsilon, x + epsilon))
    for point in corners(x, epsilon, count):
        outputs = keras.tree.flatten(model(point, training=False))
        for output, bounds in zip(outputs, found, strict=True):
            np.testing.assert_array_less(bounds.lower - 1e-4, output)
            np.testing.assert_array_less(output, bounds.upper + 1e-4)
    exact = keras.tree.flatten(interval_bounds(model, x, x))
    outputs = keras.tree.flatten(model(x, training=False))
    for output, bounds in zip(outputs, exact, strict=True):
        np.testing.assert_allclose(bounds.lower, output, atol=1e-5)
        np.testing.assert_allclose(bounds.upper, output, atol=1e-5)


def sequential(shape, *layers):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input(shape), *layers])


def images(count=3):
    rng = np.random.default_rng(1)
    return rng.uniform(size=[count, 8, 8, 3]).astype(np.float32)


IMAGES = {
    "conv2d": [L.Conv2D(4, 3, padding="same", activation="relu")],
    "strides": [L.Conv2D(4, 3, strides=2, padding="same", activation="tanh")],
    "dilated, groups": [L.Conv2D(6, 3, dilation_rate=2, groups=3)],
    "no bias": [L.Conv2D(4, 3, use_bias=False)],
    "depthwise": [L.DepthwiseConv2D(3, padding="same", depth_multiplier=2)],
    "conv1d": [L.Reshape((64, 3)), L.Conv1D(4, 5, activation="elu")],
    "conv3d": [L.Reshape((4, 4, 4, 3)), L.Conv3D(2, 2, activation="softplus")],
    "pools": [L.MaxPooling2D(), L.AveragePooling2D(2), L.GlobalMaxPooling2D()],
    "batch normalization": [L.BatchNormalization(), L.ReLU(6.0, 0.1)],
    "rescaling": [L.Rescaling(-2.0, 0.5), L.Flatten()],
    "dropout": [L.Dropout(0.5), L.GaussianNoise(1.0), L.SpatialDropout2D(0.5)],
    "layout": [
        L.ZeroPadding2D(),
        L.Cropping2D(2),
        L.UpSampling2D(),
        L.Permute((3, 1, 2)),
    ],
    "einsum": [L.EinsumDense("abcd,de->abce", (None, None, 5), activation="sigmoid")],
    "dense on positions": [L.Dense(5, activation="leaky_relu"), L.LeakyReLU(0.2)],
    "softmax": [L.Flatten(), L.Dense(4), L.Softmax()],
    "activation": [L.Flatten(), L.Dense(4), L.Activation("softmax")],
}


@pytest.mark.parametrize("layers", IMAGES.values(), ids=IMAGES)
def test_bounds_of_layers_hold(layers):
    model = sequential((8, 8, 3), *layers)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.gamma.assign([-1.0, 2.0, 0.5])
            layer.moving_mean.assign([0.1, 0.2, 0.3])
    assert_holds(model, images())


def test_bounds_of_a_graph_of_layers_hold():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    one = L.Conv2D(4, 3, padding="same")(inputs)
    two = L.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    merged = L.Concatenate()([L.Add()([one, two]), L.Subtract()([one, two])])
    merged = L.Maximum()([merged, keras.ops.relu(merged) + 1.0])
    inner = sequential((8, 8, 8), L.Flatten(), L.Dense(6, activation="relu"))
    hidden = inner(merged)
    outputs = {"a": L.Dense(3, activation="softmax")(hidden), "b": L.Dense(1)(hidden)}
    assert_holds(keras.Model(inputs, outputs), images())


@given(
    seed=st.integers(0, 10_000),
    widths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    activation=st.sampled_from(["relu", "tanh", "sigmoid", "elu", None]),
    epsilon=st.floats(0.0, 1.0),
)
def test_bounds_of_random_networks_hold(seed, widths, activation, epsilon):
    rng = np.random.default_rng(seed)
    model = keras.Sequential([keras.Input((3,))])
    for width in widths:
        model.add(L.Dense(width, activation=activation))
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    assert_holds(model, rng.normal(size=[2, 3]).astype(np.float32), epsilon, count=8)


def test_bounds_of_an_affine_model_are_exact():
    model = sequential((5,), L.Dense(3))
    x = np.random.default_rng(0).normal(size=[4, 5]).astype(np.float32)
    [kernel, _] = model.get_weights()
    found = interval_bounds(model, x - EPSILON, x + EPSILON)
    reach = EPSILON * np.abs(kernel).sum(0)
    np.testing.assert_allclose(found.upper - model(x), np.tile(reach, [4, 1]), 1e-4)
    np.testing.assert_allclose(model(x) - found.lower, np.tile(reach, [4, 1]), 1e-4)


class TestWorstCaseLogits:
    def test_differences_of_an_affine_model_are_exact(self):
        model = sequential((5,), L.Dense(3))
        x = np.random.default_rng(0).normal(size=[4, 5]).astype(np.float32)
        y = np.array([0, 1, 2, 1])
        kernel, _ = model.get_weights()
        logits = model(x).numpy()
        own = kernel[:, y].T[:, :, None]
        reach = EPSILON * np.abs(kernel[None] - own).sum(1)
        expected = logits - logits[np.arange(4), y][:, None] + reach
        found = interval_bounds(model, x - EPSILON, x + EPSILON)
        for labels in (y, y[:, None], keras.utils.to_categorical(y, 3)):
            np.testing.assert_allclose(
                found.worst_case_logits(labels), expected, atol=1e-5
            )

    def test_tighter_than_the_bounds_of_each_logit(self):
        model = sequential((5,), L.Dense(8, activation="relu"), L.Dense(3))
        x = np.random.default_rng(0).normal(size=[4, 5]).astype(np.float32)
        found = interval_bounds(model, x - EPSILON, x + EPSILON)
        y = np.zeros(4, int)
        loose = found.upper[:, 1:] - found.lower[:, :1]
        assert np.all(found.worst_case_logits(y)[:, 1:] < loose)

    def test_no_point_is_worse(self):
        model = sequential((5,), L.Dense(8, activation="relu"), L.Dense(3, "softmax"))
        x = np.random.default_rng(0).normal(size=[4, 5]).astype(np.float32)
        y = np.array([0, 1, 2, 1])
        found = interval_bounds(model, x - EPSILON, x + EPSILON)
        worst = tf.nn.log_softmax(found.worst_case_logits(y)).numpy()
        worst = worst[np.arange(4), y]
        for point in corners(x, EPSILON, 50):
            assert np.all(np.log(model(point).numpy()[np.arange(4), y]) > worst - 1e-5)

    @pytest.mark.parametrize("shape", [(4, 1), (4,)])
    def test_of_yes_and_no(self, shape):
        model = sequential((5,), L.Dense(1, activation="sigmoid"))
        x = np.random.default_rng(0).normal(size=[4, 5]).astype(np.float32)
        found = interval_bounds(model, x - EPSILON, x + EPSILON)
        worst = found.worst_case_logits(np.array([0, 1, 0, 1]).reshape(shape))
        expected = [
            (found.scores.upper, found.scores.lower)[i % 2][i, 0] for i in range(4)
        ]
        np.testing.assert_allclose(worst[:, 0], expected, rtol=1e-6)


def test_a_softmax_of_wide_bounds():
    model = sequential((4,), L.Softmax())
    x = np.array([[0.0, 300.0, -300.0, 1.0]], np.float32)
    found = interval_bounds(model, x - 200, x + 200)
    assert np.all(np.isfinite(found.lower + found.upper))
    np.testing.assert_allclose(found.upper, [[1.0, 1.0, 0.0, 1.0]], atol=1e-6)
    np.testing.assert_allclose(found.lower, np.zeros([1, 4]), atol=1e-6)
    assert_holds(model, x / 100, 0.5)


class TestModels:
    def test_half_precision_is_bounded_in_float32(self):
        keras.config.set_dtype_policy("mixed_float16")
        try:
            model = sequential((5,), L.Dense(4, activation="relu"), L.Dense(2))
        finally:
            keras.config.set_dtype_policy("float32")
        x = np.ones([2, 5], np.float32)
        found = interval_bounds(model, x - EPSILON, x + EPSILON)
        assert found.lower.dtype == tf.float32
        output = model(x).numpy().astype(np.float32)
        assert np.all(found.lower <= output)
        assert np.all(output <= found.upper)

    def test_inputs_that_are_no_floats_run_as_they_are(self):
        keras.utils.set_random_seed(0)
        x, ids = keras.Input((2,), name="x"), keras.Input((), dtype="int32", name="id")
        hidden = L.Concatenate()([x, L.Embedding(5, 2)(ids)])
        model = keras.Model({"x": x, "id": ids}, L.Dense(2)(hidden))
        given_ids, values = np.array([1, 4]), np.ones([2, 2], np.float32)
        found = interval_bounds(
            model,
            {"x": values - EPSILON, "id": given_ids},
            {"x": values + EPSILON, "id": given_ids},
        )
        reach = EPSILON * np.abs(model.layers[-1].kernel.numpy()[:2]).sum(0)
        np.testing.assert_allclose(
            found.upper - found.lower, np.tile(2 * reach, [2, 1]), rtol=1e-4
        )

    def test_a_layer_of_ones_own_says_its_bounds(self):
        class Square(keras.layers.Layer):
            def call(self, x):
                return x**2

            def interval_bounds(self, lower, upper):
                ends = tf.square(lower), tf.square(upper)
                inside = tf.zeros_like(lower)
                low = tf.where((lower < 0) & (upper > 0), inside, tf.minimum(*ends))
                return low, tf.maximum(*ends)

        assert_holds(sequential((3,), Square(), L.Dense(2)), np.zeros([2, 3], "f4"))

    def test_xla(self):
        model = sequential((8, 8, 3), *IMAGES["conv2d"], L.Flatten(), L.Dense(2))
        x = images()

        def bounds(lower, upper):
            found = interval_bounds(model, lower, upper)
            return found.lower, found.upper, found.worst_case_logits([0, 1, 1])

        compiled = tf.function(bounds, jit_compile=True)
        for a, b in zip(
            compiled(x - 0.1, x + 0.1), bounds(x - 0.1, x + 0.1), strict=True
        ):
            np.testing.assert_allclose(a, b, atol=1e-5)


class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x


def quantized():
    model = sequential((3,), L.Dense(2))
    model.quantize("int8")
    return model


REFUSED = {
    "unknown layer": (sequential((4, 3), L.LSTM(2)), "'lstm.* LSTM"),
    "own layer": (sequential((3,), Doubled()), "Doubled.*interval_bounds"),
    "activation": (sequential((3,), L.Dense(2, activation="gelu")), "gelu.*monotonic"),
    "own activation": (sequential((3,), L.Dense(2, activation=lambda x: -x)), "lambda"),
    "causal": (sequential((9, 3), L.Conv1D(2, 3, padding="causal")), "ZeroPadding1D"),
    "falling": (sequential((3,), L.ELU(-1.0)), "slopes"),
    "cubic": (
        sequential((4, 4, 1), L.UpSampling2D(2, interpolation="bicubic")),
        "bicu",
    ),
    "softmax axis": (sequential((3, 4), L.Softmax(axis=1)), "last axis"),
    "quantized": (quantized(), "quantized"),
    "not built": (keras.Sequential([L.Dense(2)]), "not built"),
}


@pytest.mark.parametrize(("model", "message"), REFUSED.values(), ids=REFUSED)
def test_refuses(model, message):
    shape = model.input_shape[1:] if model.built else (3,)
    x = np.zeros([2, *shape], np.float32)
    with pytest.raises(ValueError, match=message):
        interval_bounds(model, x, x + 1)


def test_refuses_a_model_whose_layers_are_not_known():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match=r"sequential or functional.*Own"):
        interval_bounds(Own(), np.zeros([1, 2]), np.ones([1, 2]))
