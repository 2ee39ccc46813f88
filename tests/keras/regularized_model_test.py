"""Tests of `nsl.keras.regularized_model` that need no particular wrapper."""

from typing import Any

import keras
import pytest
import tensorflow as tf

from tests.keras.contract.base import X, Y, mlp
from tests.keras.distribution.cases import adversarial


class Witness(keras.layers.Layer):
    """Notes whether TensorFlow rewrites the code that calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def call(self, inputs: Any) -> Any:
        """Returns its input."""
        context = tf.__internal__.autograph.control_status_ctx()
        self.seen.add(context.status.name)
        return inputs


@pytest.mark.parametrize("step", ["train_step", "test_step"])
def test_a_step_in_a_loop_of_ones_own_is_not_rewritten(step: str) -> None:
    witness = Witness()
    inputs = keras.Input((X.shape[1],), name="x")
    base = keras.Model(inputs, keras.layers.Dense(3)(witness(inputs)))
    model = adversarial(base)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    witness.seen.clear()
    tf.function(getattr(model, step))(({"x": X}, Y))
    assert witness.seen == {"DISABLED"}


def test_converts_to_tensorflow_lite_before_any_call() -> None:
    assert tf.lite.TFLiteConverter.from_keras_model(adversarial(mlp())).convert()
