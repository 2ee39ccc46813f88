"""The outputs of a layer are taken in the pass that runs anyway."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from nsl.lib.layer_outputs import checked, find_layer, recorded_outputs
from tests.keras.contract.base import X, mlp


def nested():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,), name="x")
    tower = keras.Sequential(
        [keras.layers.Dense(3, name="low"), keras.layers.Dense(2, name="high")],
        name="tower",
    )
    return keras.Model(inputs, keras.layers.Dense(2, name="low")(tower(inputs)))


class Late(keras.Model):
    """A model that makes a layer when it is built."""

    def build(self, shape):
        self.late = keras.layers.Dense(3, name="late")
        self.late.build(shape)

    def call(self, inputs):
        return keras.ops.tanh(self.late(inputs))


class TestFindLayer:
    def test_own_layers_go_before_nested_ones(self):
        model = nested()
        assert find_layer(model, "low") is model.layers[-1]
        assert find_layer(model, "high") is model.get_layer("tower").layers[1]
        assert find_layer(model, "tower") is model.get_layer("tower")

    def test_unknown_name_lists_the_known_ones(self):
        with pytest.raises(ValueError, match=r"'width'.*'high'.*'low'.*'tower'"):
            find_layer(nested(), "width")

    def test_ambiguous_name(self):
        inputs = keras.Input((4,))
        towers = [
            keras.Sequential([keras.layers.Dense(2, name="out")], name=name)(inputs)
            for name in ("a", "b")
        ]
        model = keras.Model(inputs, towers)
        with pytest.raises(ValueError, match=r"2 layers nested in .* have this name"):
            find_layer(model, "out")
        assert find_layer(model, "b/out") is model.get_layer("b").layers[0]
        with pytest.raises(ValueError, match=r"'b/in': 'b' has no layer 'in'"):
            find_layer(model, "b/in")

    def test_an_input_is_no_layer(self):
        model = nested()
        name = model.layers[0].name
        with pytest.raises(ValueError, match=r"is an input.*perturb_features"):
            find_layer(model, name)

    def test_layers_of_a_subclassed_model_that_is_built(self):
        model = Late()
        with pytest.raises(ValueError, match="no layer 'late'"):
            find_layer(model, "late")
        model(X)
        assert find_layer(model, "late") is model.late


class Tied(keras.layers.Embedding):
    def call(self, inputs, reverse=False):
        if reverse:
            return keras.ops.matmul(inputs, keras.ops.transpose(self.embeddings))
        return super().call(inputs)


class TestRecordedOutputs:
    def test_scores_of_a_tied_embedding_are_none(self):
        tied, tokens = Tied(5, 3), np.array([[1, 2]])
        with recorded_outputs(tied, lambda position, vectors: vectors + 1.0) as outputs:
            vectors = tied(tokens)
            scores = tied(vectors, reverse=True)
        assert [output.shape for output in outputs] == [(1, 2, 3)]
        np.testing.assert_allclose(scores, tied(tied(tokens) + 1.0, reverse=True))

    @pytest.mark.parametrize("compiled", [False, True])
    def test_the_outputs_of_a_pass(self, compiled):
        model = nested()
        layer = find_layer(model, "high")

        def run(x):
            with recorded_outputs(layer) as outputs:
                y = model(x)
            return y, checked(outputs, layer)

        y, [taken] = (tf.function(run) if compiled else run)(tf.constant(X))
        expected = model.get_layer("tower")(X)
        np.testing.assert_allclose(taken, expected, rtol=1e-6)
        np.testing.assert_allclose(y, model(X), rtol=1e-6)

    def test_the_layer_is_as_it_was_afterwards(self):
        model = mlp()
        layer = model.layers[0]
        own = dict(vars(layer))
        with recorded_outputs(layer) as outer:
            with recorded_outputs(layer) as inner:
                model(X)
            model(X)
        assert vars(layer) == own
        assert (len(outer), len(inner)) == (2, 1)
        with pytest.raises(ZeroDivisionError), recorded_outputs(layer):
            1 / 0  # noqa: B018
        assert vars(layer) == own

    def test_each_call_of_a_shared_layer(self):
        layer = keras.layers.Dense(2)
        with recorded_outputs(layer) as outputs:
            calls = [layer(X), layer(X + 1)]
        assert [a is b for a, b in zip(outputs, calls, strict=True)] == [True, True]

    def test_threads_that_interleave(self):
        """As replicas do where a layer waits for the others in the middle of a pass."""
        layer = keras.layers.Dense(2)
        layer.build((None, 4))
        started, ended = threading.Event(), threading.Event()
        taken = {}

        def other():
            with recorded_outputs(layer) as outputs:
                started.set()
                assert ended.wait(10)
                taken["other"] = layer(X), outputs

        thread = threading.Thread(target=other)
        with recorded_outputs(layer) as outputs:
            thread.start()
            assert started.wait(10)
            taken["this"] = layer(X), outputs
        ended.set()
        thread.join()
        for returned, outputs in taken.values():
            assert len(outputs) == 1
            assert outputs[0] is returned
        assert "call" not in vars(layer)

    def test_calls_in_another_graph_are_not_taken(self):
        """Tensors of a loop, or of Keras as it builds a model, belong to it alone."""
        model = Late()

        @tf.function
        def run(x):
            model(x)
            layer = find_layer(model, "late")
            with recorded_outputs(layer) as outputs:
                tf.function(layer)(x)
                model.compute_output_spec(keras.KerasTensor((None, 4)))
            assert outputs == []
            with pytest.raises(ValueError, match=r"did not run .* or tf\.function"):
                checked(outputs, layer)

        run(tf.constant(X))
