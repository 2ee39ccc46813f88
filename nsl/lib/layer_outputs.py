"""The outputs of a layer inside of a model: recorded, or changed, as the model runs."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from nsl.lib import keras_internals

# From the position of an output among all that the layer returns in a pass, and the
# output, to what the layer returns in its place.
Change = Callable[[int, tf.Tensor], tf.Tensor]


def find_layer(model: Any, name: str) -> Any:
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
    layers = keras_internals.all_layers(model, include_self=False)
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
def recorded_outputs(layer: Any, change: Change | None = None) -> Iterator[list[Any]]:
    """Collects what a layer returns while the body runs.

    This works for layers in models of any kind, and costs no further pass. Where the
    outputs are changed in a graph, and do not depend on the layer's own any more,
    TensorFlow leaves out all that only these needed.

    Args:
      layer: The layer.
      change: What becomes of each output. None leaves them as they are.

    Yields:
      A list that grows by the outputs of each call of the layer, but for those that
      other threads make.
    """
    recorder = vars(layer).get("call")
    if not isinstance(recorder, _Recorder):
        recorder = _Recorder(layer.call)
        # Keras would track the attribute.
        object.__setattr__(layer, "call", recorder)
    listener = _Listener(change)
    recorder.listeners.append(listener)
    try:
        yield listener.outputs
    finally:
        recorder.listeners.remove(listener)
        if not recorder.listeners:
            object.__delattr__(layer, "call")


def checked(outputs: list[Any], layer: Any) -> list[tf.Tensor]:
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
            outputs = listener.hear(outputs)
        return outputs


class _Listener:
    """Collects, and changes, the outputs of the calls of one thread in one graph.

    Calls in another graph are those of loops and of Keras as it infers shapes.
    """

    def __init__(self, change: Change | None) -> None:
        self._place = _place()
        self._change = change
        self._count = 0
        self.outputs: list[Any] = []

    def hear(self, outputs: Any) -> Any:
        if _place() != self._place:
            return outputs
        if self._change is not None:
            outputs = tf.nest.map_structure(self._changed, outputs)
        self.outputs.append(outputs)
        return outputs

    def _changed(self, output: Any) -> Any:
        assert self._change is not None
        changed = self._change(self._count, output)
        self._count += 1
        mask = keras_internals.mask_of(output)
        if changed is not output and mask is not None:
            keras_internals.keep_mask(changed, mask)
        return changed


def _place() -> tuple[int, Any]:
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    return threading.get_ident(), graph
