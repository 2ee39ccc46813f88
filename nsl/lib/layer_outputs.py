"""The outputs of a layer inside of a model: recorded, or changed, as the model runs."""

from __future__ import annotations

import contextlib
import functools
import inspect
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
        models. Of several with one name, the names of models that it is nested in tell
        which is meant: 'query_tower/embedding'.

    Returns:
      The layer.

    Raises:
      ValueError: If no layer has the name, or several nested ones, or it is an input of
        the model.
    """
    found, parent = model, model
    for part in name.split("/"):
        found, parent = _find(found, part, name), found
    if type(found).__name__ == "InputLayer":
        raise ValueError(
            f"Expected a layer of the model '{parent.name}' that computes something, "
            f"but '{name}' is an input. Name the layer that makes vectors of what "
            "comes in there. Floating features need no name: they are perturbed where "
            "no layer is given, or together with layers by perturb_features=True."
        )
    return found


def _find(model: Any, part: str, name: str) -> Any:
    """Finds a layer by one part of its name."""
    layers = keras_internals.all_layers(model, include_self=False)
    own = getattr(model, "layers", ())
    found = [layer for layer in own if layer.name == part]
    found = found or [layer for layer in layers if layer.name == part]
    if not found:
        known = sorted({layer.name for layer in layers})
        raise ValueError(
            f"Expected the name of a layer, but received '{name}': '{model.name}' has "
            f"no layer '{part}', it has {known}."
        )
    if len(found) > 1:
        raise ValueError(
            f"Expected the name of one layer, but received '{name}': {len(found)} "
            f"layers nested in '{model.name}' have this name. Put the name of the "
            f"nested model in front, as in 'query_tower/{part}'."
        )
    return found[0]


@contextlib.contextmanager
def recorded_outputs(layer: Any, change: Change | None = None) -> Iterator[list[Any]]:
    """Collects what a layer returns while the body runs.

    This works for layers in models of any kind, and costs no further pass. Where the
    outputs are changed in a graph, and do not depend on the layer's own any more,
    TensorFlow leaves out all that only these needed.

    Calls with `reverse=True`, by which a tied embedding such as
    `keras.layers.ReversibleEmbedding` scores its entries, are left alone.

    Args:
      layer: The layer.
      change: What becomes of each output. None leaves them as they are.

    Yields:
      A list that grows by the outputs of each call of the layer, but for those that
      other threads make.
    """
    recorder = vars(layer).get("call")
    if not isinstance(recorder, _Recorder):
        recorder = _Recorder(layer)
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
            f"Expected outputs of the layer '{layer.name}', but it did not run in the "
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

    def __init__(self, layer: Any) -> None:
        functools.update_wrapper(self, layer.call)
        self._layer, self._call = layer, layer.call
        self._parameters = inspect.signature(layer.call).parameters
        self.listeners: list[_Listener] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        listeners = [listener for listener in self.listeners if listener.is_here()]
        if not listeners or self._is_reverse(args, kwargs):
            return self._call(*args, **kwargs)
        inputs = args[0] if args else next(iter(kwargs.values()), None)
        mask = kwargs.get("mask")
        if mask is None:
            mask = tf.nest.map_structure(keras_internals.mask_of, inputs)
        outputs = self._call(*args, **kwargs)
        keras_internals.note_mask(self._layer, inputs, mask, outputs)
        for listener in listeners:
            outputs = listener.hear(outputs)
        return tf.nest.map_structure(_handed_on, outputs)

    def _is_reverse(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if "reverse" not in self._parameters:
            return False
        bound = inspect.signature(self._call).bind(*args, **kwargs)
        return bool(bound.arguments.get("reverse"))


class _Listener:
    """Collects, and changes, the outputs of the calls of one thread in one graph.

    Calls in another graph are those of loops and of Keras as it infers shapes.
    """

    def __init__(self, change: Change | None) -> None:
        self._place = _place()
        self._change = change
        self._count = 0
        self.outputs: list[Any] = []

    def is_here(self) -> bool:
        return _place() == self._place

    def hear(self, outputs: Any) -> Any:
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


def _handed_on(output: Any) -> Any:
    """Returns what the model gets: of a masked output a copy with a mask of its own.

    `keras.layers.MultiHeadAttention` takes the mask off the tensor it is called with.
    """
    mask = keras_internals.mask_of(output)
    if mask is None:
        return output
    copy = tf.identity(output)
    keras_internals.keep_mask(copy, mask)
    logits = keras_internals.logits_of(output)
    if logits is not None:
        keras_internals.keep_logits(copy, logits)
    return copy


def _place() -> tuple[int, Any]:
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    return threading.get_ident(), graph
