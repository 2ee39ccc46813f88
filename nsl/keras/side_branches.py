"""The layers of a functional model that an attack at a hidden layer runs only once."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Collection
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from nsl.lib import keras_internals

# The name of an operation, and how many of its calls come before.
_Call: TypeAlias = tuple[str, int]


@dataclasses.dataclass(frozen=True)
class _Mark:
    """Stands for a tensor where only the data flow matters.

    Attributes:
      perturbed: Whether the tensor depends on a perturbed layer.
      like: A symbolic tensor of the same shape and dtype.
      computed: Whether a layer computes it; False for inputs of the model.
    """

    perturbed: bool
    like: Any
    computed: bool = True


class SideBranches:
    """Runs a functional model repeatedly, but what is not perturbed only once.

    The iterations of an attack at the outputs of a layer share the outputs of all
    layers that do not depend on it, such as those of another input. Functional models
    nested in the model are run layer by layer too.

    Args:
      model: A functional model.
      layers: The perturbed layers, which may be nested in layers of the model.

    Attributes:
      exist: Whether layers above the perturbed ones use other outputs that do not
        depend on them.
    """

    def __init__(
        self, model: keras.Model, layers: Collection[keras.layers.Layer]
    ) -> None:
        self._model = model
        # The calls of nested models that are run layer by layer.
        self._opened: set[_Call] = set()
        self._perturbed: set[_Call] = set()
        self._outputs: dict[_Call, Any] = {}
        self.exist = self._trace(layers)

    def run_once(self, inputs: Any) -> None:
        """Runs the layers that do not depend on the perturbed ones.

        Args:
          inputs: The inputs of the model.
        """

        def run(call: _Call, operation: Any, args: Any, kwargs: Any) -> Any:
            if call in self._perturbed:
                return _marks(operation, perturbed=True)
            self._outputs[call] = operation(*args, **kwargs)
            return self._outputs[call]

        self._run(keras_internals.flat_inputs(self._model, inputs), run)

    def run_rest(self, inputs: Any) -> Any:
        """Runs the layers that depend on the perturbed ones.

        Args:
          inputs: The inputs of the model, as in `run_once`.

        Returns:
          The outputs of the model.
        """

        def run(call: _Call, operation: Any, args: Any, kwargs: Any) -> Any:
            if call in self._perturbed:
                return operation(*args, **kwargs)
            return self._outputs[call]

        return self._run(keras_internals.flat_inputs(self._model, inputs), run)

    def _trace(self, layers: Collection[keras.layers.Layer]) -> bool:
        """Finds the calls that depend on perturbed layers, and whether others join."""
        joined = False

        def opens(operation: Any, args: Any, kwargs: Any) -> bool:
            perturbed = any(operation is layer for layer in layers)
            return not perturbed and _can_open(operation, args, kwargs)

        def run(call: _Call, operation: Any, args: Any, kwargs: Any) -> Any:
            nonlocal joined
            used = tf.nest.flatten((args, kwargs))
            marks = [mark for mark in used if isinstance(mark, _Mark)]
            reached = any(mark.perturbed for mark in marks)
            if reached:
                joined |= any(mark.computed and not mark.perturbed for mark in marks)
            parts = [operation, *keras_internals.all_layers(operation)]
            if reached or any(part is layer for part in parts for layer in layers):
                self._perturbed.add(call)
            return _marks(operation, perturbed=call in self._perturbed)

        inputs = [
            _Mark(perturbed=False, like=tensor, computed=False)
            for tensor in self._model.inputs
        ]
        outputs = tf.nest.flatten(self._run(inputs, run, opens))
        return joined or not all(mark.perturbed for mark in outputs)

    def _run(
        self,
        inputs: list[Any],
        run: Callable[..., Any],
        opens: Callable[..., bool] | None = None,
    ) -> Any:
        counts: collections.Counter[str] = collections.Counter()

        def runner(operation: Any) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                number = counts[operation.name]
                counts[operation.name] += 1
                if opens is not None and opens(operation, args, kwargs):
                    self._opened.add((operation.name, number))
                if (operation.name, number) in self._opened:
                    flat = _with_masks(args[0], kwargs.get("mask"))
                    return keras_internals.run_operations(operation, flat, runner)
                if keras_internals.takes_training(operation):
                    kwargs["training"] = False
                return run((operation.name, number), operation, args, kwargs)

            return call

        return keras_internals.run_operations(self._model, inputs, runner)


def _can_open(operation: Any, args: Any, kwargs: Any) -> bool:
    """Returns whether running a nested model's layers one by one equals calling it.

    That is so if the model takes the arguments, which are marks, as they are.
    """
    if not keras_internals.has_operations(operation) or len(args) != 1:
        return False
    given, expected = keras.tree.flatten(args[0]), operation.inputs
    return (
        kwargs.keys() <= {"training", "mask"}
        and len(given) == len(expected)
        and all(
            isinstance(mark, _Mark)
            and mark.like.dtype == tensor.dtype
            and len(mark.like.shape) == len(tensor.shape)
            for mark, tensor in zip(given, expected, strict=True)
        )
    )


def _with_masks(inputs: Any, masks: Any) -> list[Any]:
    """Returns the inputs of a nested model, with the masks that it is called with."""
    flat = keras.tree.flatten(inputs)
    known = [None] * len(flat) if masks is None else keras.tree.flatten(masks)
    for value, mask in zip(flat, known, strict=True):
        if isinstance(value, tf.Tensor) and isinstance(mask, tf.Tensor):
            keras_internals.keep_mask(value, mask)
    return flat


def _marks(operation: Any, perturbed: bool) -> list[_Mark]:
    return [_Mark(perturbed, like) for like in tf.nest.flatten(operation.output)]
