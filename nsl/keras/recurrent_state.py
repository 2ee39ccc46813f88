"""The state of stateful recurrent layers, which lives from batch to batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf


def recurrent_states(model: keras.Model) -> list[keras.Variable]:
    """Lists the state variables of all stateful recurrent layers of a model."""
    layers = [
        layer
        for layer in model._flatten_layers()
        if getattr(layer, "stateful", False) and getattr(layer, "states", None)
    ]
    return [state for layer in layers for state in tf.nest.flatten(layer.states)]


class RecurrentState:
    """The recurrent state of a model as it was before a batch.

    A stateful layer hands the state at the end of a batch on to the next batch. The
    passes over neighbors belong to the same batch: they start where the clean pass
    over the samples did, and the next batch goes on where the clean pass ended.

    Args:
      model: The model, before the clean pass.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._before = [tf.identity(state) for state in recurrent_states(model)]

    def before(self) -> list[tuple[keras.Variable, tf.Tensor]]:
        """Pairs each state variable with its value before the batch."""
        states = recurrent_states(self._model)
        # A model that the clean pass has just built started from zeros.
        values = self._before or [tf.zeros_like(state) for state in states]
        return list(zip(states, values, strict=True))

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        """Runs the body from the state before the batch and then undoes its changes."""
        pairs = self.before()
        after = [tf.identity(state) for state, _ in pairs]
        for state, value in pairs:
            state.assign(value)
        yield
        for (state, _), value in zip(pairs, after, strict=True):
            state.assign(value)
