"""Records or changes the outputs of a layer inside a model while the model runs."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from nsl.lib import keras_internals

# Values of `output_mode` with which a layer encodes categories as numbers.
_ENCODINGS = ("one_hot", "multi_hot", "count")

# Maps an output, and its index among all outputs of the layer in one pass, to the
# output that replaces it.
Change = Callable[[int, tf.Tensor], tf.Tensor]


def find_layer(model: Any, name: str) -> Any:
    """Finds a layer of a model, nested models included.

    Args:
      model: A sequential, functional or subclassed model.
      name: The name of the layer. Layers of the model itself take precedence over those
        of nested models. If several nested layers share the name, prefix it with the
        names of the models around it: 'query_tower/embedding'.

    Returns:
      The layer.

    Raises:
      ValueError: If no layer or several nested layers have the name, or if it names an
        input of the model or a part of the cell of a recurrent layer, whose steps run
        in a loop.
    """
    found, parent = model, model
    for part in name.split("/"):
        found, parent = _find(found, part, name), found
    if type(found).__name__ == "FeatureSpace":
        found = _encoder(found)
    if type(found).__name__ == "InputLayer":
        raise ValueError(
            f"Expected a layer of the model '{parent.name}' that computes something, "
            f"but '{name}' is an input. Name the layer that embeds this input. "
            "Floating inputs need no layer: they are perturbed if no layer is given, "
            "or together with layers by perturb_features=True."
        )
    for outer in filter(_is_loop, keras_internals.all_layers(model)):
        inner = keras_internals.all_layers(outer, include_self=False)
        if any(found is layer for layer in inner):
            raise ValueError(
                f"Expected a layer that runs once per pass, but '{name}' is part of "
                f"the cell of the recurrent layer '{outer.name}'. A cell runs in a "
                "loop over time steps, and its outputs are not available outside of "
                f"it. Name '{outer.name}' or a layer before it, or make "
                f"'{outer.name}' with unroll=True."
            )
    return found


def _encoder(space: Any) -> Any:
    """Returns the layer that computes what a `keras.utils.FeatureSpace` returns."""
    if space.output_mode != "concat":
        columns = {key: layer.name for key, layer in space.one_hot_encoders.items()}
        raise ValueError(
            f"Expected a layer that returns a tensor, but the FeatureSpace "
            f"'{space.name}' returns a dict of columns. Name the layers that encode "
            f"them: {columns}."
        )
    return space.concat


def _is_loop(layer: Any) -> bool:
    """Returns whether a layer is a `keras.layers.RNN` that is not unrolled."""
    bases = [base for base in type(layer).__mro__ if base.__name__ == "RNN"]
    is_rnn = any(base.__module__.startswith("keras.") for base in bases)
    return is_rnn and not layer.unroll


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
            f"no layer '{part}'. Its layers are {known}."
        )
    if len(found) > 1:
        raise ValueError(
            f"Expected the name of one layer, but received '{name}': {len(found)} "
            f"layers nested in '{model.name}' have this name. Prefix it with the name "
            f"of the nested model, as in 'query_tower/{part}'."
        )
    return found[0]


def inputs_behind(model: Any, layer: Any) -> list[frozenset[str]]:
    """Finds the inputs of a model that the outputs of a layer depend on.

    Args:
      model: A functional or sequential model, or one that contains such a model around
        the layer.
      layer: The layer. If it is part of a layer that is not a functional model, the
        calls of that layer count.

    Returns:
      For each call of the layer in one pass, in order, the names of the inputs. Calls
      that `recorded_outputs` ignores are left out. Empty if no functional model
      contains the layer.
    """
    found: list[frozenset[str]] = []

    def contains(outer: Any) -> bool:
        return any(layer is part for part in keras_internals.all_layers(outer))

    def runner(operation: Any) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            used = tf.nest.flatten((args, kwargs))
            names = [each for each in used if isinstance(each, frozenset)]
            behind = frozenset().union(*names)
            if contains(operation) and not kwargs.get("reverse"):
                given = tf.nest.flatten(args[:1])
                opens = operation is not layer and keras_internals.has_operations(
                    operation
                )
                if opens and len(given) == len(operation.inputs):
                    return keras_internals.run_operations(operation, given, runner)
                found.append(behind)
            return [behind for _ in tf.nest.flatten(operation.output)]

        return call

    for outer in keras_internals.all_layers(model):
        if (
            outer is not layer
            and contains(outer)
            and keras_internals.has_operations(outer)
        ):
            inputs: list[Any] = [frozenset([each.name]) for each in outer.inputs]
            keras_internals.run_operations(outer, inputs, runner)
            break
    return found


@contextlib.contextmanager
def recorded_outputs(layer: Any, change: Change | None = None) -> Iterator[list[Any]]:
    """Records what a layer returns while the body runs.

    Works for layers of any kind of model, and needs no extra forward pass. In a graph,
    operations whose results the changed outputs no longer use are pruned by TensorFlow.

    Calls with `reverse=True`, with which a tied embedding such as
    `keras.layers.ReversibleEmbedding` computes logits, are ignored.

    Args:
      layer: The layer.
      change: Replaces each output. None only records them.

    Yields:
      A list to which each call of the layer appends its outputs. Calls from other
      threads are ignored.
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
    """Checks that `recorded_outputs` recorded something in one pass.

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
            "forward pass, or only inside a loop or tf.function of the model, whose "
            "tensors cannot be used outside. Choose a layer whose outputs the model "
            "passes directly to other layers."
        )
    return tf.nest.flatten(outputs)


class _Recorder:
    """Replaces the `call` of a layer.

    Replicas run in threads that take turns even within a forward pass. So each has its
    own listener, and the last one to finish restores the layer.
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
        if keras_internals.output_mode(self._layer) in _ENCODINGS:
            outputs = tf.nest.map_structure(_as_declared, outputs)
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
    """Records, and changes, the outputs of calls from one thread in one graph.

    Calls in other graphs belong to loops, or to the shape inference of Keras.
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


def _as_declared(output: Any) -> Any:
    """Returns an encoding of categories as floats, as its symbolic output in Keras.

    Lookups such as `keras.layers.StringLookup` return integers.
    """
    return tf.cast(output, tf.float32) if output.dtype.is_integer else output


def _handed_on(output: Any) -> Any:
    """Returns the output to pass on: for a masked output, a copy with its own mask.

    `keras.layers.MultiHeadAttention` removes the mask from its input tensor.
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
