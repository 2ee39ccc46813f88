"""When an example is correct: one class per example, or a loss and a criterion."""

import math
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import tensorflow as tf

from nsl.attacks.labels import is_one_hot
from nsl.attacks.model_adapter import ModelAdapter, are_probabilities
from nsl.attacks.problem import Loss, per_example
from nsl.lib import keras_internals
from nsl.robustness.radii import value_text

_REGRESSION = ("squared", "absolute", "huber", "log_cosh", "logcosh", "mse", "mae")


@attrs.frozen
class Within:
    """Regression: an example is correct if no output's error exceeds the tolerance.

    Attributes:
      tolerance: The largest absolute error allowed.
    """

    tolerance: float = attrs.field(validator=attrs.validators.gt(0))

    def check(self, y: Any, outputs: Any) -> None:
        """Raises ValueError unless labels are finite."""
        del outputs
        if not np.all(np.isfinite(np.asarray(y))):
            raise ValueError("y must be finite, but contains a NaN or infinity.")

    def __call__(self, y: Any, outputs: Any) -> tf.Tensor:
        """Returns which examples are correct, bool of shape [batch]."""
        return self.loss(y, outputs) <= 1.0

    def loss(self, y: Any, outputs: Any) -> tf.Tensor:
        """Returns the largest error of each example, in units of the tolerance."""
        outputs = _floats(outputs)
        labels = tf.cast(tf.reshape(y, tf.shape(outputs)), outputs.dtype)
        error = tf.abs(outputs - labels)
        return tf.reduce_max(_flat(error), axis=1) / self.tolerance


@attrs.frozen
class ShareRight:
    """Segmentation and sequences: an example is correct if enough pixels are.

    Outputs have shape [batch, ..., classes], labels [batch, ...].

    Attributes:
      share: The smallest share of correct pixels (or steps) of a correct example.
      ignore: The label of pixels (or steps) to ignore, such as 255, or None.
    """

    share: float = attrs.field(
        default=0.5, validator=[attrs.validators.gt(0), attrs.validators.le(1)]
    )
    ignore: int | None = None

    def check(self, y: Any, outputs: Any) -> None:
        """Raises ValueError unless labels are classes or `ignore`."""
        labels, classes = np.asarray(y), np.shape(outputs)[-1]
        wrong = (labels < 0) | (labels >= classes)
        if self.ignore is not None:
            wrong &= labels != self.ignore
        if np.any(wrong):
            raise ValueError(
                f"y must be classes from 0 to {classes - 1}, but contains "
                f"{labels[wrong].ravel()[0]}. If that label is to be ignored, pass "
                "criterion=nsl.robustness.ShareRight(share, ignore=...)."
            )

    def __call__(self, y: Any, outputs: Any) -> tf.Tensor:
        """Returns which examples are correct, bool of shape [batch]."""
        right = tf.argmax(outputs, axis=-1) == tf.cast(y, tf.int64)
        return (self._mean(right, y) >= self.share) & _are_numbers(outputs)

    def loss(self, y: Any, outputs: Any) -> tf.Tensor:
        """Returns the mean bounded margin of the likeliest wrong class over pixels.

        It is bounded so that pixels that are already wrong do not keep attacks from
        others.
        """
        outputs = _floats(outputs)
        classes = outputs.shape[-1]
        true = tf.one_hot(tf.cast(y, tf.int32), classes, on_value=True, off_value=False)
        lowest = tf.fill(tf.shape(outputs), outputs.dtype.min)
        other = tf.reduce_max(tf.where(true, lowest, outputs), axis=-1)
        own = tf.reduce_sum(tf.where(true, outputs, tf.zeros_like(outputs)), axis=-1)
        margin = other - own
        scale = tf.stop_gradient(self._mean(tf.abs(margin), y) + 1e-12)
        scale = tf.reshape(scale, [-1] + [1] * (margin.shape.rank - 1))
        return self._mean(tf.tanh(margin / scale), y)

    def _mean(self, values: Any, y: Any) -> tf.Tensor:
        """Returns the mean of each example over the pixels that are not ignored."""
        values = _flat(_floats(values))
        if self.ignore is None:
            return tf.reduce_mean(values, axis=1)
        counts = tf.cast(_flat(tf.convert_to_tensor(y)) != self.ignore, values.dtype)
        total = tf.reduce_sum(values * counts, axis=1)
        return total / tf.maximum(tf.reduce_sum(counts, axis=1), 1.0)


@attrs.frozen
class ExactMatch:
    """Multi-label classification: an example is correct if all of its labels are.

    Attributes:
      threshold: The output above which a label is positive: 0.5 for probabilities, 0
        for logits.
    """

    threshold: float = 0.5

    def check(self, y: Any, outputs: Any) -> None:
        """Raises ValueError unless labels are 0 and 1."""
        del outputs
        if not np.all(np.isin(np.asarray(y), (0, 1))):
            raise ValueError("y must be 0 and 1 with criterion='exact_match'.")

    def __call__(self, y: Any, outputs: Any) -> tf.Tensor:
        """Returns which examples are correct, bool of shape [batch]."""
        return tf.reduce_all(self._margins(y, outputs) < 0, axis=1)

    def loss(self, y: Any, outputs: Any) -> tf.Tensor:
        """Returns a smooth maximum of the margins of all labels.

        The maximum itself would only follow the leading label, while another may be
        easier to flip.
        """
        margins = self._margins(y, outputs)
        scale = tf.reduce_mean(tf.abs(margins), axis=1, keepdims=True) / 2 + 1e-12
        scale = tf.stop_gradient(scale)
        return scale[:, 0] * tf.reduce_logsumexp(margins / scale, axis=1)

    def _margins(self, y: Any, outputs: Any) -> tf.Tensor:
        """Returns how far each label is on the wrong side of the threshold."""
        logits = keras_internals.logits_of(outputs)
        above = _floats(outputs) - self.threshold if logits is None else _floats(logits)
        return (1 - 2 * tf.cast(y, above.dtype)) * above


@attrs.frozen
class Column:
    """One of several labels, as the output of a binary model."""

    position: int

    def __call__(self, outputs: Any) -> Any:
        """Returns the column."""
        chosen = outputs[:, self.position : self.position + 1]
        logits = keras_internals.logits_of(outputs)
        if logits is not None:
            keras_internals.keep_logits(
                chosen, logits[:, self.position : self.position + 1]
            )
        return chosen


@attrs.frozen
class Task:
    """The loss to attack, and the criterion of correctness.

    Attributes:
      loss: The function of (y, outputs) that attacks maximize; None for one class per
        example.
      criterion: The function of (y, outputs) that returns which examples are correct;
        None for one class per example.
      assumptions: Sentences about what was assumed.
    """

    loss: Loss | None = None
    criterion: Loss | None = None
    assumptions: tuple[str, ...] = ()

    @property
    def of_classes(self) -> bool:
        """Whether labels are one class per example."""
        return self.loss is None or isinstance(self.criterion, _RightClass)

    def right(self, labels: Any, outputs: Any) -> np.ndarray:
        """Returns which examples are correct, bool of shape [examples]; never for NaN.

        Outputs are logits if there is no loss.

        Raises:
          ValueError: If the loss or the criterion does not return one value per
            example.
        """
        if self.loss is None:
            predicted = np.argmax(outputs, axis=1)
            return (predicted == labels) & ~np.isnan(outputs).any(axis=1)
        assert self.criterion is not None
        count = len(tf.nest.flatten(labels)[0])
        try:
            right = np.asarray(self.criterion(labels, outputs))
            values = per_example(self.loss(labels, outputs))
        except (tf.errors.InvalidArgumentError, ValueError, TypeError) as error:
            shapes = [
                [np.shape(leaf) for leaf in tf.nest.flatten(given)]
                for given in (labels, outputs)
            ]
            raise ValueError(
                f"loss and criterion do not support labels of shape {shapes[0]} and "
                f"outputs of shape {shapes[1]}: {error}"
            ) from error
        for what, shape in (("loss", values.shape), ("criterion", right.shape)):
            if tuple(shape) != (count,):
                raise ValueError(
                    f"{what} must return one value per example, of shape [{count}], "
                    f"but returned shape {tuple(shape)}."
                )
        return right.astype(bool)

    def margins(self, labels: Any, outputs: Any) -> np.ndarray:
        """Returns how far each example is from being wrong, of shape [examples]."""
        if self.loss is not None:
            return -np.asarray(per_example(self.loss(labels, outputs)))
        others, rows = np.array(outputs), np.arange(len(outputs))
        others[rows, labels] = -np.inf
        return outputs[rows, labels] - others.max(axis=1)

    def text(self, outputs: Any, row: int) -> str:
        """Returns the prediction for an example as text."""
        if self.loss is None:
            return str(int(np.argmax(outputs[row])))
        leaves = tf.nest.flatten(outputs)
        return "; ".join(value_text(leaf[row]) for leaf in leaves)


def choose_task(
    model: ModelAdapter,
    y: Any,
    shape: tuple[int, ...] | None,
    predict: Callable[[], Any],
    loss: Any,
    criterion: Any,
) -> Task:
    """Chooses the loss to attack and the criterion of correctness.

    Args:
      model: The model.
      y: The labels, a structure of arrays.
      shape: The shape of the outputs for all examples; None if there are several.
      predict: Returns the outputs for all examples.
      loss: The loss that attacks maximize, or None.
      criterion: The criterion; None infers it from the compiled loss of a Keras model,
        or assumes one class per example.

    Raises:
      ValueError: If only one of loss and criterion is given, but both are needed.
    """
    if criterion is None:
        criterion, why = _default(model, y, shape, predict)
    else:
        criterion, why = _named(criterion, predict), ""
    if hasattr(criterion, "check"):
        criterion.check(y, predict())
    if criterion is None and loss is None:
        return Task()
    if criterion is None:
        if not model.classes:
            raise ValueError(
                "A loss needs a criterion: a function of (y, outputs) that returns "
                "which examples are correct, or nsl.robustness.Within(tolerance)."
            )
        return Task(loss, _RightClass(model))
    if loss is None:
        loss = getattr(criterion, "loss", None)
        if loss is None:
            raise ValueError(
                "A custom criterion needs a loss: a function of (y, outputs) that "
                "returns one value per example, which attacks maximize."
            )
    return Task(loss, criterion, (why,) if why else ())


@attrs.frozen(eq=False)
class _RightClass:
    """The criterion for one class per example, with a custom loss."""

    model: ModelAdapter

    def __call__(self, y: Any, outputs: Any) -> tf.Tensor:
        columns = tf.reshape(outputs, [tf.shape(outputs)[0], -1])
        if columns.shape[1] == 1:
            threshold = 0.0 if self.model.from_logits else 0.5
            predicted = tf.cast(columns[:, 0] > threshold, tf.int32)
        else:
            predicted = tf.argmax(columns, axis=1, output_type=tf.int32)
        right = predicted == tf.cast(tf.reshape(y, [-1]), tf.int32)
        return right & _are_numbers(outputs)


def _named(criterion: Any, predict: Callable[[], Any]) -> Any:
    if criterion == "exact_match":
        unit = are_probabilities(np.asarray(predict()).reshape(-1))
        return ExactMatch(0.5 if unit else 0.0)
    if not callable(criterion):
        raise ValueError(
            "criterion must be 'exact_match', 'per_label', an object such as "
            "nsl.robustness.Within(tolerance), or a function of (y, outputs), but "
            f"received {criterion!r}."
        )
    return criterion


def _default(
    model: ModelAdapter,
    y: Any,
    shape: tuple[int, ...] | None,
    predict: Callable[[], Any],
) -> tuple[Any, str]:
    """Infers the criterion from the compiled loss; returns it and the reason."""
    labels = np.asarray(y)
    if shape is None or labels.dtype.kind not in "iufb":
        return None, ""
    loss = getattr(model.model, "loss", None)
    name = getattr(loss, "name", None) or getattr(loss, "__name__", None) or loss
    name = name.lower() if isinstance(name, str) else ""
    if len(shape) > 2 and labels.shape == shape[:-1]:
        ignore = getattr(loss, "ignore_class", None)
        return ShareRight(0.5, ignore), (
            "An example counts as correct if at least half of its pixels or steps "
            f"are: criterion=nsl.robustness.ShareRight(0.5, ignore={ignore})."
        )
    same = labels.size == math.prod(shape) and len(labels) == shape[0]
    one_hot = len(shape) == labels.ndim == 2 and same and is_one_hot(labels)
    if any(part in name for part in _REGRESSION) and same and not one_hot:
        error = predict().reshape(labels.shape).astype(np.float64) - labels
        tolerance = 2 * float(np.sqrt(np.mean(np.square(error)))) or 1e-6
        return Within(tolerance), (
            f"The model was compiled with {name}; an example counts as correct if "
            f"every output is within {tolerance:.4g} of its label, twice the root mean "
            "squared error on the clean examples."
        )
    if "binary" in name and same and len(shape) == 2 and shape[1] > 1:
        criterion = _named("exact_match", predict)
        return criterion, (
            f"The model was compiled with {name}; an example counts as correct if all "
            f"{shape[1]} labels are, with threshold {criterion.threshold:g}."
        )
    return None, ""


def _floats(values: Any) -> tf.Tensor:
    values = tf.convert_to_tensor(values)
    return values if values.dtype == tf.float64 else tf.cast(values, tf.float32)


def _flat(values: tf.Tensor) -> tf.Tensor:
    return tf.reshape(values, [tf.shape(values)[0], -1])


def _are_numbers(outputs: Any) -> tf.Tensor:
    return ~tf.reduce_any(tf.math.is_nan(_flat(_floats(outputs))), axis=1)
