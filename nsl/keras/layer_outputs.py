"""The outputs of a layer inside of a model, taken while the model runs."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf


def find_layer(model: keras.Model, name: str) -> keras.layers.Layer:
    """Finds a layer of a model or of a model nested in it.

    Args:
      model: A sequential, functional or subclassed model.
      name: The name of the layer. One of the model itself goes before those of nested
        models.

    Returns:
      The layer.

    Raises:
      ValueError: If no layer has the name, or several nested ones; lists those there
        are.
    """
    layers = model._flatten_layers(include_self=False)
    found = [layer for layer in model.layers if layer.name == name]
    found = found or [layer for layer in layers if layer.name == name]
    if not found:
        known = sorted({layer.name for layer in layers})
        raise ValueError(
            f"embedding_layer is '{name}', but the model '{model.name}' has no "
            f"layer of this name: it has {known}."
        )
    if len(found) > 1:
        raise ValueError(
            f"embedding_layer is '{name}', but {len(found)} layers nested in the model "
            f"'{model.name}' have this name. Give the one that is meant its own."
        )
    return found[0]


@contextlib.contextmanager
def recorded_outputs(layer: keras.layers.Layer) -> Iterator[list[Any]]:
    """Collects what a layer returns while the body runs.

    This works for layers in models of any kind, and costs no further pass.

    Args:
      layer: The layer.

    Yields:
      A list that grows by the outputs of each call of the layer, but for those that
      other threads make.
    """
    recorder = vars(layer).get("call")
    if not isinstance(recorder, _Recorder):
        recorder = _Recorder(layer.call)
        # Keras would track the attribute.
        object.__setattr__(layer, "call", recorder)
    thread = threading.get_ident()
    recorder.outputs[thread] = []
    try:
        yield recorder.outputs[thread]
    finally:
        del recorder.outputs[thread]
        if not recorder.outputs:
            object.__delattr__(layer, "call")


def only_dense(outputs: list[Any], layer: keras.layers.Layer) -> list[tf.Tensor]:
    """Checks what `recorded_outputs` collected in one pass.

    Args:
      outputs: The list.
      layer: The layer.

    Returns:
      The tensors of all calls.

    Raises:
      ValueError: If the layer did not run, or ran where its outputs cannot be had.
    """
    tensors = tf.nest.flatten(outputs)
    reason = None
    if not tensors:
        reason = "did not run in the pass"
    elif not tf.executing_eagerly() and any(
        tensor.graph is not tf.compat.v1.get_default_graph() for tensor in tensors
    ):
        reason = "runs inside of a loop or a tf.function of the model's own"
    if reason:
        raise ValueError(
            f"embedding_layer is '{layer.name}', but this layer {reason}. Choose one "
            "whose outputs the model hands from layer to layer."
        )
    return tensors


class _Recorder:
    """Stands in for the `call` of a layer.

    Replicas run in threads that take turns, also in the middle of a pass. So each has
    its own list, and the last one to end leaves the layer as it was.
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        functools.update_wrapper(self, call)
        self._call = call
        self.outputs: dict[int, list[Any]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        outputs = self._call(*args, **kwargs)
        if (mine := self.outputs.get(threading.get_ident())) is not None:
            mine.append(outputs)
        return outputs
