"""What nsl uses of Keras beyond its public names is there, each under its own test."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import nsl
from nsl.lib import keras_internals


def model():
    inputs = keras.Input((4,), name="x")
    inner = keras.Sequential([keras.layers.Dense(3, name="inner")])
    outputs = keras.layers.Activation("softmax", name="out")(inner(inputs))
    made = keras.Model({"x": inputs}, outputs)
    made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=False))
    return made


X, Y = np.ones((2, 4), "float32"), np.zeros(2)


def test_flatten_layers():
    assert hasattr(keras.layers.Layer, "_flatten_layers")
    made = model()
    names = {layer.name for layer in keras_internals.all_layers(made)}
    assert {"inner", "out", made.name} <= names
    assert made not in keras_internals.all_layers(made, include_self=False)


def test_flatten_layers_without_it():
    class Plain:
        """Something that has layers, but not Keras's way to list them."""

        def __init__(self, *layers):
            self.layers = list(layers)

    low = Plain()
    middle = Plain(low)
    top = Plain(middle)
    assert keras_internals.all_layers(top) == [top, middle, low]
    assert keras_internals.all_layers(top, include_self=False) == [middle, low]
    assert keras_internals.all_layers(object()) == []


def test_call_has_training_arg():
    class Without(keras.Model):
        def call(self, inputs):
            return inputs

    assert hasattr(Without(), "_call_has_training_arg")
    assert keras_internals.takes_training(model())
    assert not keras_internals.takes_training(Without())


def test_call_context_args():
    class Named(keras.Model):
        def call(self, inputs, *, mode, factor=1.0):
            return inputs

    class OfAny(keras.Model):
        def call(self, inputs, **kwargs):
            return inputs

    assert hasattr(keras.layers.Layer(), "_call_context_args")
    assert keras_internals.keywords_of_call(model()) == {"mask", "training"}
    sequential = keras.Sequential()
    sequential._call_context_args = {"training", "mode"}
    known = keras_internals.keywords_of_call(sequential)
    assert known == {"mask", "training", "mode"}
    known = keras_internals.keywords_of_call(Named())
    assert known - {"training"} == {"mode", "factor"}
    assert keras_internals.keywords_of_call(OfAny()) is None


def test_keywords_where_keras_builds():
    seen = []

    class OfAny(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = keras.layers.Dense(1)

        def call(self, inputs, **kwargs):
            seen.append(keras_internals.keywords_received(kwargs))
            return self.inner(inputs)

    OfAny()(X, factor=2.0)
    assert [set(keywords) for keywords in seen] == [{"factor"}, {"factor"}]


def test_inputs_struct():
    made = model()
    assert hasattr(made, "_inputs_struct")
    assert set(keras_internals.input_structure(made)) == {"x"}
    built = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    assert hasattr(built, "_functional")
    assert keras_internals.input_structure(built) is not None
    assert keras_internals.input_structure(keras.Sequential()) is None


def test_standardize_inputs():
    made = model()
    assert hasattr(made, "_standardize_inputs")
    flat = keras_internals.flat_inputs(made, {"x": np.ones([2, 4], np.float32)})
    assert [tuple(tensor.shape) for tensor in flat] == [(2, 4)]


def test_run_through_graph():
    made = model()
    assert hasattr(made, "_run_through_graph")
    seen = []

    def run(operation):
        seen.append(operation.name)
        return operation

    x = np.ones([2, 4], np.float32)
    found = keras_internals.run_operations(made, [x], run)
    np.testing.assert_allclose(found, made({"x": x}))
    assert seen == [layer.name for layer in made.layers[1:]]


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_keras_logits(activation):
    logits = tf.constant([[1.0, 2.0]])
    output = keras.layers.Activation(activation)(logits)
    np.testing.assert_array_equal(keras_internals.logits_of(output), logits)
    assert keras_internals.logits_of(logits) is None


def test_keras_mask():
    output = keras.layers.Embedding(5, 2, mask_zero=True)(np.array([[1, 0]]))
    np.testing.assert_array_equal(keras_internals.mask_of(output), [[True, False]])
    assert keras_internals.mask_of(tf.ones([1])) is None


def test_output_mode():
    words = keras.layers.TextVectorization(output_mode="count")
    kinds = keras.layers.CategoryEncoding(3, output_mode="one_hot")
    layers = words, kinds, keras.layers.Dense(1)
    found = [keras_internals.output_mode(layer) for layer in layers]
    assert found == ["count", "one_hot", None]


def test_modules_of_keras():
    assert keras_internals.is_own_layer(keras.layers.Dense(1))
    assert keras_internals.is_own_activation(keras.activations.tanh)
    assert keras_internals.is_functional(model())
    assert keras_internals.is_functional(keras.Sequential())

    class Own(keras.layers.Dense):
        pass

    assert not keras_internals.is_own_layer(Own(1))
    inputs = keras.Input((2,))
    summed = keras.Model(inputs, keras.ops.add(inputs, 1.0))
    assert keras_internals.is_own_operation(summed.operations[-1])
    assert not keras_internals.is_own_operation(keras.layers.Add())
    assert not keras_internals.is_own_activation(tf.tanh)


def test_functional_models_with_a_class_of_their_own():
    class Named(keras.Model):
        """Adds no code that a pass runs."""

    class OwnCall(keras.Model):
        def call(self, inputs):
            return super().call(inputs)

    class Counted(keras.Model):
        def __call__(self, *args, **kwargs):
            return super().__call__(*args, **kwargs)

    def made(kind):
        inputs = keras.Input((2,))
        return kind(inputs, keras.layers.Dense(1)(inputs))

    assert keras_internals.is_functional(made(Named))
    assert keras_internals.has_operations(made(Named))
    assert not keras_internals.is_functional(made(OwnCall))
    assert not keras_internals.is_functional(made(Counted))
    assert not keras_internals.is_functional(keras.layers.Dense(1))
    sequential = keras.Sequential([keras.layers.Dense(1)])
    assert not keras_internals.has_operations(sequential)
    sequential(np.ones((1, 2)))
    assert keras_internals.has_operations(sequential)


def test_fn_and_fn_kwargs_of_losses():
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    name, settings = keras_internals.function_of_loss(loss)
    assert name == "binary_crossentropy"
    assert settings["from_logits"] is True
    assert keras_internals.function_of_loss(keras.losses.Loss()) == ("", {})


def test_compile_loss_and_flat_losses():
    made = model()
    made.compute_loss(X, Y, made({"x": X}))
    [loss] = keras_internals.losses_by_output(made).values()
    assert isinstance(loss, keras.losses.SparseCategoricalCrossentropy)
    assert keras_internals.losses_by_output(keras.Sequential()) == {}


def test_compute_loss_with_or_without_training():
    class Old(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
            return tf.constant(7.0)

    assert hasattr(keras.Model, "_compute_loss")
    found = keras_internals.compiled_loss(Old(), X, Y, X, None, training=True)
    assert float(found) == 7.0


def test_own_metrics():
    class Counting(keras.Model):
        def __init__(self):
            super().__init__()
            self.counter = keras.metrics.Sum(name="counter")

    made = Counting()
    made.compile("sgd", "mse", metrics=["mae"])
    assert keras_internals.own_metrics(made) == [made.counter]


def test_loss_tracker():
    made = model()
    keras_internals.track_loss(made, tf.constant(2.0), tf.constant(1))
    keras_internals.track_loss(made, tf.constant(5.0), tf.constant(2))
    assert float(made.metrics[0].result()) == 4.0


def test_losses_override_and_losses():
    made = keras.Sequential([keras.layers.ActivityRegularization(l2=1.0)])
    made(X)
    [before] = made.losses
    with keras_internals.losses_hidden(made):
        assert [float(loss) for loss in made.losses] == [0.0]
    with keras_internals.losses_kept(made):
        made.layers[0].add_loss(tf.constant(3.0))
        assert len(made.losses) == 2
    assert made.losses == [before]


def test_build_shapes_dict():
    made = model()
    made._build_shapes_dict = None
    keras_internals.note_input_shape(made, {"x": X})
    assert made.get_build_config() == {"input_shape": {"x": (None, 4)}}


def test_is_default():
    seen = []

    class Lazy(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = keras.layers.Dense(1)

        @keras_internals.default_build
        def build(self, input_shape):
            seen.append("build")

        def call(self, inputs):
            seen.append("call")
            return self.inner(inputs)

    Lazy()(X)
    assert seen == ["call", "build", "call"]


@pytest.mark.parametrize(
    "name", ["_symbolic_build", "_maybe_symbolic_build", "_make_function"]
)
def test_hooks_of_strategies(name):
    hook = getattr(keras.Model, name)
    ours = getattr(keras_internals.StrategyHooks, name)
    assert list(inspect.signature(ours).parameters) == list(
        inspect.signature(hook).parameters
    )


def test_distribute_strategy():
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    with strategy.scope():
        made = model()
    assert made._distribute_strategy is strategy
    assert model()._distribute_strategy is None


def test_wrappers_do_not_reuse_private_names_of_keras():
    plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    unset = set(vars(keras.Model(name="unset")))
    plain.compile("sgd", "mse")
    plain.train_on_batch(np.ones((2, 2)), np.ones(2))
    hooks = set(vars(keras_internals.StrategyHooks))
    for kind in (nsl.keras.AdversarialRegularization, nsl.keras.GraphRegularization):
        bases = [base for base in kind.__mro__ if base.__module__.startswith("nsl.")]
        own = {name for base in bases for name in vars(base)} - hooks
        own |= set(vars(kind(plain))) - unset
        taken = own & {*dir(plain), *vars(plain)}
        taken = {
            n for n in taken if n[0] == "_" and n[:2] != "__" and n[:6] != "_self_"
        }
        assert not taken, f"{kind.__name__} and Keras both have {sorted(taken)}"
