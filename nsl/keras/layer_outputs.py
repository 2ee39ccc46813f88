"""The outputs of a layer inside of a model, taken while the model runs."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf


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
    listener = _Listener()
    recorder.listeners.append(listener)
    try:
        yield listener.outputs
    finally:
        recorder.listeners.remove(listener)
        if not recorder.listeners:
            object.__delattr__(layer, "call")


def checked(outputs: list[Any], layer: keras.layers.Layer) -> list[tf.Tensor]:
    """Checks that `recorded_outputs` collected something in one pass.

    Args:
      outputs: The list.
      layer: The layer.

    Returns:
      The tensors of all calls.

    Raises:
      ValueError: If there are none.
    """
    if not outputs:
        raise ValueError(
            f"embedding_layer is '{layer.name}', but this layer did not run in the "
            "pass, or only inside of a loop or a tf.function of the model's own, whose "
            "tensors cannot be had outside. Choose one whose outputs the model hands "
            "from layer to layer."
        )
    return tf.nest.flatten(outputs)


class _Recorder:
    """Stands in for the `call` of a layer.

    Replicas run in threads that take turns, also in the middle of a pass. So each has
    its own list, and the last one to end leaves the layer as it was.
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        functools.update_wrapper(self, call)
        self._call = call
        self.listeners: list[_Listener] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        outputs = self._call(*args, **kwargs)
        for listener in self.listeners:
            listener.hear(outputs)
        return outputs


class _Listener:
    """Collects the outputs of the calls that one thread makes in one graph.

    Calls in another graph are those of loops and of Keras as it infers shapes.
    """

    def __init__(self) -> None:
        self._place = _place()
        self.outputs: list[Any] = []

    def hear(self, outputs: Any) -> None:
        if _place() == self._place:
            self.outputs.append(outputs)


def _place() -> tuple[int, Any]:
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    return threading.get_ident(), graph
