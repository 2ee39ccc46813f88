"""Counting what goes through a model."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from nsl.robustness.counted_model import CountedModel


def test_counts_examples_in_eager_and_compiled_calls() -> None:
    counted = CountedModel(lambda x: x["a"] * 2.0)
    x = {"a": tf.ones([3, 2]), "b": tf.zeros([3, 1])}
    np.testing.assert_array_equal(counted(x), 2 * np.ones((3, 2)))
    assert counted.count == 3

    @tf.function
    def thrice(x: Any) -> Any:
        for _ in tf.range(3):
            counted(x)

    thrice(x)
    assert counted.count == 12


@pytest.mark.parametrize("jit_compile", [False, True])
def test_counts_in_loops_under_xla(jit_compile: bool) -> None:
    counted = CountedModel(lambda x: x + 1.0)

    @tf.function(jit_compile=jit_compile)
    def run(x: Any) -> Any:
        return tf.while_loop(
            lambda i, _: i < 4, lambda i, x: (i + 1, counted(x)), (0, x)
        )

    np.testing.assert_array_equal(run(tf.zeros([5, 1]))[1], 4 * np.ones((5, 1)))
    assert counted.count == 20


def test_shows_what_attacks_look_at() -> None:
    model = keras.Sequential([keras.Input((2,), batch_size=7), keras.layers.Dense(3)])
    counted = CountedModel(model)
    assert counted.call.__func__ is type(model).call
    assert counted.variables == model.variables
    assert counted.inputs is model.inputs
    np.testing.assert_array_equal(
        counted(tf.ones([7, 2]), training=False), model(tf.ones([7, 2]))
    )


def test_of_a_function_the_call_is_the_function() -> None:
    def model(x: Any, training: bool = False) -> Any:
        return x

    counted = CountedModel(model)
    assert counted.call is model
    assert not hasattr(counted, "variables")


def test_of_a_method_it_has_not_the_owner() -> None:
    counted = CountedModel(keras.layers.Dense(3).call)
    assert not hasattr(counted, "__self__")
