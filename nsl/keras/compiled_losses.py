"""The compiled loss of each output, and what it implies about the output."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from nsl.lib import keras_internals
from nsl.lib.interval_bounds import Interval

_BINARY = ("binary_crossentropy", "binary_focal_crossentropy")
_CATEGORICAL = (
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
    "categorical_focal_crossentropy",
    "categorical_generalized_cross_entropy",
)

_OF_ERRORS = ("huber", "log_cosh", "mean_absolute_error", "mean_squared_error")


@dataclasses.dataclass(frozen=True)
class OutputLoss:
    """The compiled loss of one output.

    Attributes:
      loss: The loss.
      labels: The labels of the output, as passed to `fit`.
      sample_weight: The sample weights of the output, float32 of shape [batch], or None
        if all are 1.
      binary: Whether each element of the output is a binary classification of its own,
        instead of one class of several. None if unknown.
      from_logits: Whether the output holds logits instead of probabilities. None if
        unknown.
    """

    loss: keras.losses.Loss
    labels: Any
    sample_weight: tf.Tensor | None
    binary: bool | None
    from_logits: bool | None

    def worst_output(self, interval: Interval) -> tf.Tensor:
        """Computes the output within bounds at which the loss is largest.

        Args:
          interval: The bounds of the output.

        Returns:
          An output as the loss takes it. For regression losses, the bound farther from
          the label; for crossentropies, worst-case logits, or their probabilities if
          the loss takes those.

        Raises:
          ValueError: If the maximum of the loss is not known, or the loss takes
            probabilities and the bounds have no logits.
        """
        if keras_internals.function_of_loss(self.loss)[0] in _OF_ERRORS:
            y = tf.reshape(self.labels, tf.shape(interval.lower))
            farther = tf.cast(y, interval.lower.dtype) > interval.center
            return tf.where(farther, interval.lower, interval.upper)
        if self.binary is None:
            raise ValueError(
                "The objective 'interval_bounds' needs a compiled loss whose maximum "
                "over an interval is known: expected a crossentropy of Keras or a "
                f"regression loss such as 'mse', but received {self.loss!r}."
            )
        logits = interval.worst_case_logits(self.labels, self.binary)
        if self.from_logits:
            return logits
        if interval.scores is None:
            raise ValueError(
                "The objective 'interval_bounds' bounds logits, but "
                f"{self.loss!r} takes probabilities: expected a model that ends with "
                "its softmax or sigmoid. Or return logits, and compile with "
                "from_logits=True."
            )
        activation = tf.sigmoid if self.binary else tf.nn.softmax
        output = activation(logits)
        keras_internals.keep_logits(output, logits)
        return output

    def per_sample(self, output: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
        """Computes the loss of each sample for another output than the model's.

        Args:
          output: An output with the shape of the model's, [batch, ...].
          mask: False for positions that are left out of the mean over a sample, bool of
            shape [batch, ...], or None.

        Returns:
          The losses of shape [batch], without sample weights.
        """
        labels = keras.ops.convert_to_tensor(self.labels, dtype=self.loss.dtype)
        values = self.loss.call(labels, output)
        rows = tf.stack([tf.shape(values)[0], -1])
        if mask is None:
            return tf.reduce_mean(tf.reshape(values, rows), axis=1)
        kept = tf.cast(tf.reshape(mask, tf.shape(values)), values.dtype)
        total = tf.reduce_sum(tf.reshape(values * kept, rows), axis=1)
        return tf.math.divide_no_nan(total, tf.reduce_sum(tf.reshape(kept, rows), 1))


def output_losses(
    known: Mapping[Any, keras.losses.Loss],
    names: Sequence[str],
    y: Any,
    y_pred: Any,
    sample_weight: Any = None,
) -> list[OutputLoss | None]:
    """Finds the compiled loss of each output.

    Args:
      known: The compiled losses by the path or the name of their output.
      names: The names of the outputs; may be empty.
      y: The labels.
      y_pred: The outputs.
      sample_weight: The sample weights, or None.

    Returns:
      The loss of each output, in the order of `keras.tree.flatten`, or None for an
      output without a loss.
    """
    paths = [path for path, _ in keras.tree.flatten_with_path(y_pred)]
    found: list[OutputLoss | None] = []
    for i, path in enumerate(paths):
        # Keras may store a loss under the name of its output instead of the path.
        name = names[i] if len(names) == len(paths) else None
        loss = known.get(path, known.get((name,)))
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


def losses_given(loss: Any, y_pred: Any) -> dict[Any, Any]:
    """Returns the argument `loss` of `compile` for each output.

    Keras itself assigns losses to outputs when it first computes them, which a custom
    loop over batches without labels never does.

    Args:
      loss: A loss or its name; or a list of them, or a dict by the names of outputs.
      y_pred: The outputs.

    Returns:
      The losses by the path or the name of their output.
    """
    if isinstance(loss, Mapping):
        named = {(name,): one for name, one in loss.items()}
    else:
        paths = [path for path, _ in keras.tree.flatten_with_path(y_pred)]
        listed = list(loss) if isinstance(loss, list | tuple) else [loss] * len(paths)
        named = dict(zip(paths, listed, strict=False))
    return {key: keras.losses.get(one) for key, one in named.items() if one is not None}


def _of_output(values: Any, i: int, keys: tuple[Any, ...]) -> Any:
    """Picks the labels or weights of one output, by name or by position."""
    if not keras.tree.is_nested(values):
        return values
    if isinstance(values, Mapping):
        return next((values[key] for key in keys if key in values), None)
    flat = keras.tree.flatten(values)
    return flat[i] if i < len(flat) else None


def _distribution(loss: keras.losses.Loss) -> tuple[bool | None, bool | None]:
    """Returns `binary` and `from_logits` of a loss object, None if unknown."""
    name, settings = keras_internals.function_of_loss(loss)
    if name not in _BINARY + _CATEGORICAL:
        return None, None
    return name in _BINARY, bool(settings.get("from_logits", False))
