"""Attacks on the outputs of layers, for inputs that have no gradient."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from nsl.attacks.examples import Examples, split
from nsl.attacks.model_adapter import owner_of_predict
from nsl.lib import keras_internals
from nsl.lib.layer_outputs import Change, checked, find_layer, recorded_outputs

_BATCH_SIZE = 256
_INPUTS, _CENTERS = "inputs of the model", "outputs of the layers"


class AtLayer:
    """A model as a function of what some of its layers return.

    It is called with `features`, or others in which the outputs of layers differ;
    everything else is that of the model.

    Args:
      model: A Keras model or its `predict`.
      layer: The name of the layer, or several.
      examples: The features of the model.
      batch_size: How many examples go through the model at once.

    Attributes:
      features: A dict: under the name of each layer its outputs at the examples,
        float32 or float64, a list where it returns several; and, for the model alone,
        its inputs and these outputs once more.
      names: The names of the layers.

    Raises:
      TypeError: If the model is no Keras model.
      ValueError: If the model has no layer of that name, or its outputs cannot be
        perturbed.
    """

    def __init__(
        self,
        model: Any,
        layer: str | Sequence[str],
        examples: Examples,
        batch_size: int | None = None,
    ) -> None:
        self._model = owner_of_predict(model)
        if not hasattr(self._model, "layers"):
            raise TypeError(
                f"layer={layer!r} needs a Keras model, which has layers, but model is "
                f"{type(self._model).__name__}."
            )
        self.names = (layer,) if isinstance(layer, str) else tuple(layer)
        self._found = [find_layer(self._model, name) for name in self.names]
        takes_training = keras_internals.takes_training(self._model)
        self._kwargs = {"training": False} if takes_training else {}
        outputs, self._masks = self._outputs(examples, batch_size or _BATCH_SIZE)
        self.features = {_INPUTS: examples.x, _CENTERS: outputs, **outputs}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._model, name)

    def __call__(self, features: Mapping[str, Any], training: bool = False) -> Any:
        """Returns the outputs of the model where layers return these outputs."""
        del training  # It is always False.

        def changed(name: str) -> Change:
            points, centers = (
                tf.nest.flatten(part[name]) for part in (features, features[_CENTERS])
            )

            def change(position: int, output: tf.Tensor) -> tf.Tensor:
                point = points[position]
                if len(self.names) > 1 or len(points) > 1:
                    # What is moved below counts, too.
                    move = point - centers[position]
                    point = tf.cast(output, move.dtype) + move
                return tf.ensure_shape(tf.cast(point, output.dtype), output.shape)

            return change

        return self._run(features[_INPUTS], [changed(name) for name in self.names])[0]

    def limits(self, bounds: Any, feature_mask: Any) -> dict[str, Any]:
        """Returns what attacks have to be called with, by name.

        Args:
          bounds: The pair of bounds of the layers' outputs, or None.
          feature_mask: Factors of their gradients, or None.
        """
        low, high = (None, None) if bounds is None else bounds
        masks = dict(self._masks)
        for name, given in self._by_layer(feature_mask).items():
            masks[name] = tf.nest.map_structure(
                lambda mask, g=given: mask * np.asarray(g, mask.dtype), masks[name]
            )
        return {
            "bounds": (self._by_layer(low) or None, self._by_layer(high) or None),
            "feature_mask": {_INPUTS: 0.0, _CENTERS: 0.0, **masks},
        }

    def chosen(self, features: Mapping[str, Any]) -> Any:
        """Returns the outputs of the only layer, or of several by name."""
        found = {name: features[name] for name in self.names}
        return found if len(found) > 1 else found[self.names[0]]

    def _by_layer(self, value: Any) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            return dict.fromkeys(self.names, value)
        if unknown := set(value) - set(self.names):
            raise ValueError(
                f"Expected values for the layers {list(self.names)}, but received "
                f"{sorted(map(str, unknown))}."
            )
        return dict(value)

    def _outputs(
        self, examples: Examples, size: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the outputs of the layers, and 0 for their padding, arrays."""

        def outputs_and_masks(x: Any) -> Any:
            _, found = self._run(x, [None] * len(self.names))
            return found, [
                [keras_internals.mask_of(output) for output in outputs]
                for outputs in found
            ]

        # A partial of its own: TensorFlow warns of frequent tracing by code.
        run = tf.function(functools.partial(outputs_and_masks), autograph=False)
        parts = [
            run(examples.take(examples.x, np.arange(p.start, p.stop)))
            for p in split(examples.count, size)
        ]
        found, masks = tf.nest.map_structure(_concatenated, *parts)
        outputs, kept = {}, {}
        for name, of_layer, of_mask in zip(self.names, found, masks, strict=True):
            if not all(output.dtype.kind == "f" for output in of_layer):
                raise ValueError(
                    f"layer='{name}' returns {[o.dtype.name for o in of_layer]}, which "
                    "cannot be perturbed. Choose a layer that returns floats."
                )
            ones = [
                _like(mask, output)
                for mask, output in zip(of_mask, of_layer, strict=True)
            ]
            several = len(of_layer) > 1
            outputs[name] = of_layer if several else of_layer[0]
            kept[name] = ones if several else ones[0]
        return outputs, kept

    def _run(self, x: Any, changes: list[Change | None]) -> tuple[Any, list[Any]]:
        """Runs the model, and returns what the layers returned, too."""
        with contextlib.ExitStack() as stack:
            found = [
                stack.enter_context(recorded_outputs(layer, change))
                for layer, change in zip(self._found, changes, strict=True)
            ]
            outputs = self._model(x, **self._kwargs)
        recorded = [
            checked(of_layer, layer)
            for of_layer, layer in zip(found, self._found, strict=True)
        ]
        return outputs, recorded


def _concatenated(*parts: Any) -> Any:
    if parts[0] is None:
        return None
    arrays = [np.asarray(part) for part in parts]
    joined = np.concatenate(arrays)
    half = joined.dtype.name in ("float16", "bfloat16")
    return joined.astype(np.float32) if half else joined


def _like(mask: np.ndarray | None, output: np.ndarray) -> np.ndarray:
    """Returns a mask that broadcasts to an output, of its dtype."""
    if mask is None or mask.ndim >= output.ndim:
        return np.ones((), output.dtype)
    shape = mask.shape + (1,) * (output.ndim - mask.ndim)
    return mask.reshape(shape).astype(output.dtype)
