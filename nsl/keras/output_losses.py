"""The compiled loss of each output, and the distribution that it takes it for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

_BINARY = ("binary_crossentropy", "binary_focal_crossentropy")
_CATEGORICAL = (
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
    "categorical_focal_crossentropy",
    "categorical_generalized_cross_entropy",
)


@dataclasses.dataclass(frozen=True)
class OutputLoss:
    """The loss that was compiled for one output.

    Attributes:
      loss: The loss.
      labels: The labels of this output.
      sample_weight: The weights of the samples in this output, of shape [batch], or
        None if all are 1.
      binary: Whether each element of the output is a distribution of its own, of yes
        and no, instead of one class of several; None if that is not known.
      from_logits: Whether the output holds logits instead of probabilities; None if
        that is not known.
    """

    loss: keras.losses.Loss
    labels: Any
    sample_weight: tf.Tensor | None
    binary: bool | None
    from_logits: bool | None

    def per_sample(self, output: tf.Tensor) -> tf.Tensor:
        """Computes the loss of an output that takes the place of the model's.

        Args:
          output: Of the same shape, [batch, ...].

        Returns:
          The losses before weights and reduction, of shape [batch].
        """
        labels = keras.ops.convert_to_tensor(self.labels, dtype=self.loss.dtype)
        values = self.loss.call(labels, output)
        return tf.reduce_mean(tf.reshape(values, [tf.shape(values)[0], -1]), axis=1)


def output_losses(
    model: keras.Model, y: Any, y_pred: Any, sample_weight: Any = None
) -> list[OutputLoss | None]:
    """Finds the compiled loss of each output.

    Args:
      model: A compiled model that has computed its loss once.
      y: The labels.
      y_pred: The outputs.
      sample_weight: The weights of the samples, or None.

    Returns:
      For each output, in the order of `keras.tree.flatten`, its loss, or None if it has
      none.
    """
    # A base model that computes its loss itself has been compiled like its wrapper.
    owners = (model, getattr(model, "_core", None))
    compiled = [getattr(owner, "_compile_loss", None) for owner in owners]
    known = [getattr(losses, "_flat_losses", None) for losses in compiled]
    flat: list[Any] = next((losses for losses in known if losses), [])
    by_path = {loss.path: loss.loss for loss in flat}
    paths = [path for path, _ in keras.tree.flatten_with_path(y_pred)]
    names = list(getattr(model, "output_names", None) or [])
    found: list[OutputLoss | None] = []
    for i, path in enumerate(paths):
        # A loss given by the name of the output is found under the name.
        name = names[i] if len(names) == len(paths) else None
        loss = by_path.get(path, by_path.get((name,)))
        if loss is None:
            found.append(None)
            continue
        keys = (*path, name)
        weight = _of_output(sample_weight, i, keys)
        if weight is not None:
            weight = tf.cast(tf.reshape(weight, [tf.shape(weight)[0], -1]), tf.float32)
            weight = tf.reduce_mean(weight, axis=1)
        binary, from_logits = _distribution(loss)
        labels = _of_output(y, i, keys)
        found.append(OutputLoss(loss, labels, weight, binary, from_logits))
    return found


def _of_output(values: Any, i: int, keys: tuple[Any, ...]) -> Any:
    """Picks what belongs to an output from a structure, by name or by place."""
    if not keras.tree.is_nested(values):
        return values
    if isinstance(values, Mapping):
        return next((values[key] for key in keys if key in values), None)
    flat = keras.tree.flatten(values)
    return flat[i] if i < len(flat) else None


def _distribution(loss: keras.losses.Loss) -> tuple[bool | None, bool | None]:
    """Reads what a loss object takes; Keras wraps plain functions in one."""
    function: Any = getattr(loss, "fn", None)
    if not getattr(function, "__module__", "").startswith("keras.src.losses."):
        return None, None
    if function.__name__ not in _BINARY + _CATEGORICAL:
        return None, None
    from_logits = bool(loss._fn_kwargs.get("from_logits", False))
    return function.__name__ in _BINARY, from_logits
