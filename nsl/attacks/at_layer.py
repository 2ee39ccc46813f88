"""Attacks on the outputs of layers, for models whose inputs have no gradient."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from nsl.attacks.examples import Examples
from nsl.attacks.model_adapter import ONE_LENGTH, ModelAdapter, owner_of_predict
from nsl.lib import keras_internals
from nsl.lib.features import is_perturbable
from nsl.lib.layer_outputs import Change, checked, find_layer, recorded_outputs
from nsl.lib.masks import note_padding

_INPUTS, _CENTERS = "inputs of the model", "outputs of the layers"


class AtLayer:
    """A model as a function of the outputs of some of its layers.

    Call it with `features`, in which the outputs of the layers may be replaced.

    Args:
      model: A Keras model or its `predict`.
      layer: The name of the layer, or several.
      x: The features of the model, as in `nsl.attacks.Attack`.
      y: The labels, or None.
      batch_size: The number of examples per batch.

    Attributes:
      features: A dict of the outputs of each layer at the examples, float32 or float64,
        by layer name; a list if the layer returns several. It also contains the model's
        inputs and, if there are several outputs, a copy of the outputs. In these,
        floats are stored as integers with the same bits, because attacks must not
        perturb them.
      y: The labels, a structure of arrays, or None.
      names: The names of the layers.

    Raises:
      TypeError: If the model is not a Keras model.
      ValueError: If the model has no layer of that name, or the outputs of the layer
        cannot be perturbed or have different shapes in different batches.
    """

    def __init__(
        self,
        model: Any,
        layer: str | Sequence[str],
        x: Any,
        y: Any,
        batch_size: int,
    ) -> None:
        self._model = owner_of_predict(model)
        self._adapter = ModelAdapter(self._model)
        if not hasattr(self._model, "layers"):
            raise TypeError(
                f"layer={layer!r} needs a Keras model, but model is "
                f"{type(self._model).__name__}."
            )
        self.names = (layer,) if isinstance(layer, str) else tuple(layer)
        if not self.names:
            raise ValueError(
                "layer must be the name of one layer or several, but received "
                f"{layer!r}. With None, attacks perturb the features."
            )
        self._found = [find_layer(self._model, name) for name in self.names]
        examples = Examples(x, y, perturbed=False)
        self._x, self.y, self._batch_size = examples.x, examples.y, batch_size
        outputs, self._masks = self._outputs()
        fixed = {_INPUTS: self._x}
        if len(tf.nest.flatten(outputs)) > 1:
            fixed[_CENTERS] = outputs
        self._dtypes = tf.nest.map_structure(lambda array: array.dtype, fixed)
        self.features = {**tf.nest.map_structure(_bits, fixed), **outputs}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._model, name)

    def __call__(self, features: Mapping[str, Any], training: bool = False) -> Any:
        """Returns the model's outputs, with the layers' outputs replaced."""
        del training  # It is always False.
        fixed = {key: features[key] for key in self._dtypes}
        fixed = tf.nest.map_structure(_from_bits, fixed, self._dtypes)

        def changed(name: str) -> Change:
            points = tf.nest.flatten(features[name])
            centers = tf.nest.flatten(fixed.get(_CENTERS, {}).get(name, []))

            def change(position: int, output: tf.Tensor) -> tf.Tensor:
                point = _of_one_shape(name, points[position], output)
                if centers:
                    # Keep the effect of perturbations in earlier layers.
                    move = point - centers[position]
                    point = tf.cast(output, move.dtype) + move
                return tf.ensure_shape(tf.cast(point, output.dtype), output.shape)

            return change

        return self._run(fixed[_INPUTS], [changed(name) for name in self.names])[0]

    def refresh(self) -> None:
        """Recomputes the outputs of the layers, such as after a weight update.

        Overwrites the arrays in `features`.
        """
        outputs, _ = self._outputs()
        for name, found in outputs.items():
            tf.nest.map_structure(np.copyto, self.features[name], found)

    def limits(self, bounds: Any, feature_mask: Any) -> tuple[Any, dict[str, Any]]:
        """Returns `bounds` and `feature_mask` for attacks; the mask is 0 at padding.

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
        return (self._by_layer(low) or None, self._by_layer(high) or None), masks

    def chosen(self, features: Mapping[str, Any]) -> Any:
        """Returns the outputs of the only layer, or a dict of several by name."""
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

    def _outputs(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the layers' outputs, and masks that are 0 at padding; arrays."""

        def outputs_and_masks(x: Any, memory: Any) -> Any:
            del memory
            y_pred, found = self._run(x, [None] * len(self.names))
            by_layer = dict(zip(self.names, found, strict=True))
            note_padding(self._model, by_layer, x, y_pred)
            masks = tf.nest.map_structure(keras_internals.mask_of, found)
            return tf.nest.map_structure(_at_least_32_bits, found), [
                [[] if mask is None else [mask] for mask in of_layer]
                for of_layer in masks
            ]

        # A new partial: TensorFlow warns about repeated tracing of the same function.
        run = tf.function(functools.partial(outputs_and_masks), autograph=False)
        found, masks = self._adapter.in_batches(run, self._x, self._batch_size)
        outputs, kept = {}, {}
        for name, of_layer, of_mask in zip(self.names, found, masks, strict=True):
            if not all(output.dtype.kind == "f" for output in of_layer):
                raise ValueError(
                    f"layer='{name}' returns {[o.dtype.name for o in of_layer]}, which "
                    "cannot be perturbed. Choose a layer with floating outputs."
                )
            rows = len(tf.nest.flatten(self._x)[0])
            if any(output.shape[:1] != (rows,) for output in of_layer):
                shapes = [output.shape for output in of_layer]
                raise ValueError(
                    f"layer='{name}' must return one output per example, of shape "
                    f"[{rows}, ...], but returns {shapes}. Choose a layer whose "
                    "outputs depend on the features."
                )
            ones = list(map(_like, of_mask, of_layer))
            several = len(of_layer) > 1
            outputs[name] = of_layer if several else of_layer[0]
            kept[name] = ones if several else ones[0]
        return outputs, kept

    def _run(self, x: Any, changes: list[Change | None]) -> tuple[Any, list[Any]]:
        """Runs the model; returns its outputs and those of the layers."""
        with contextlib.ExitStack() as stack:
            found = [
                stack.enter_context(recorded_outputs(layer, change))
                for layer, change in zip(self._found, changes, strict=True)
            ]
            outputs = self._adapter.call_uncounted(x)
        recorded = [
            checked(of_layer, layer)
            for of_layer, layer in zip(found, self._found, strict=True)
        ]
        return outputs, recorded


def _of_one_shape(name: str, point: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
    """Returns the point after checking that it has the shape of the output."""
    text = f"layer={name!r} must return outputs of one shape. {ONE_LENGTH}"
    if not point.shape[1:].is_compatible_with(output.shape[1:]):
        raise ValueError(text)
    if output.shape[1:].is_fully_defined():
        return point
    shapes = tf.shape(point)[1:], tf.shape(output)[1:]
    # The check must run before any operation that uses the point.
    with tf.control_dependencies([tf.debugging.assert_equal(*shapes, text)]):
        return tf.identity(point)


def _bits(array: np.ndarray) -> np.ndarray:
    """Returns a view of floats as integers, which attacks do not perturb."""
    if not is_perturbable(array):
        return array
    return array.view(f"i{array.dtype.itemsize}")


def _from_bits(values: Any, dtype: Any) -> tf.Tensor:
    """Inverts `_bits`."""
    values = tf.convert_to_tensor(values)
    known = tf.as_dtype(dtype)
    return tf.bitcast(values, known) if known.is_floating else values


def _at_least_32_bits(output: tf.Tensor) -> tf.Tensor:
    half = output.dtype in (tf.float16, tf.bfloat16)
    return tf.cast(output, tf.float32) if half else output


def _like(masks: list[np.ndarray], output: np.ndarray) -> np.ndarray:
    """Returns the mask, if there is one, in a shape that broadcasts to an output."""
    if not masks or masks[0].ndim >= output.ndim:
        return np.ones((), output.dtype)
    [mask] = masks
    return mask.reshape(mask.shape + (1,) * (output.ndim - mask.ndim)).astype(
        output.dtype
    )
