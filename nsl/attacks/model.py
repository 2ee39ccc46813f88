"""How an attack calls the model, whatever kind of callable that is."""

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf


class AttackedModel:
    """A model as a function from features to logits, run for inference.

    Args:
      model: A callable from features to logits or probabilities of shape [batch,
        classes] (of shape [batch, 1] or [batch] for two classes), or, with a loss of
        one's own, to anything. If it takes `training`, that is False.
      from_logits: Whether the outputs are logits. None lets `prepare` find out.

    Attributes:
      model: The model.
      from_logits: Whether the outputs are logits, once that is known.
      memory: Positions among `kept_variables(model)` of those that a call changes
        (see `prepare`).
    """

    def __init__(self, model: Callable[..., Any], from_logits: bool | None) -> None:
        self.model = model
        self.from_logits = from_logits
        self.memory: list[int] = []
        self._kwargs = {"training": False} if _takes_training(model) else {}

    def prepare(self, x: Any) -> Any:
        """Calls the model once, outside of any graph, and notes what it is like.

        Builds a model that is not yet built, finds out whether outputs are
        probabilities (all in [0, 1] and with sums of 1) if `from_logits` is None, and
        which variables a call changes in spite of `training=False`, such as the states
        of a stateful recurrent layer: each later call starts from the same values.

        Args:
          x: Features.

        Returns:
          The outputs.
        """
        with state_kept(self.model):
            outputs = self.model(x, **self._kwargs)
        # Only now, for the first call may have made the variables.
        variables = kept_variables(self.model)
        before = [tf.identity(v).numpy() for v in variables]
        with state_kept(self.model):
            if variables:
                self.model(x, **self._kwargs)
            after = [tf.identity(v).numpy() for v in variables]
        self.memory = [
            i
            for i, (old, new) in enumerate(zip(before, after, strict=True))
            # Counters of random numbers should go on: noise is meant to differ.
            if old.dtype.kind == "f" and not np.array_equal(old, new)
        ]
        if self.from_logits is None and tf.is_tensor(outputs):
            has_logits = getattr(outputs, "_keras_logits", None) is not None
            self.from_logits = not (has_logits or _are_probabilities(outputs.numpy()))
        return outputs

    def __call__(self, x: Any, memory: list[tf.Tensor] | None = None) -> Any:
        """Returns the outputs for features.

        Args:
          x: Features.
          memory: What the variables `self.memory` start from. None leaves them.

        Returns:
          What the model returns.
        """
        if memory:
            variables = kept_variables(self.model)
            for i, value in zip(self.memory, memory, strict=True):
                variables[i].assign(value)
        return self.model(x, **self._kwargs)

    def classes(self, outputs: Any) -> int:
        """Returns the number of classes that outputs are of.

        Args:
          outputs: What the model returned.

        Returns:
          The number, at least 2.

        Raises:
          ValueError: If the outputs are not of shape [batch, classes].
        """
        shape = _of_classes(outputs).shape
        return 2 if shape.rank == 1 else max(2, shape[1])

    def logits(self, x: Any, memory: list[tf.Tensor] | None = None) -> tf.Tensor:
        """Returns the logits of features.

        Args:
          x: Features.
          memory: As in `__call__`.

        Returns:
          A tensor of shape [batch, classes], at least float32. Probabilities become
          their logarithms; a single output per example, logit or probability of the
          second of two classes, becomes logits of both.

        Raises:
          ValueError: If the outputs are not of that shape.
        """
        outputs = _of_classes(self(x, memory))
        if not self.from_logits:
            # Keras keeps what went into its softmax or sigmoid: exact, where the
            # logarithm of a probability that was rounded to 0 or 1 has no gradient.
            logits = getattr(outputs, "_keras_logits", None)
            if logits is not None and logits.shape == outputs.shape:
                return _both_classes(_widened(logits))
            return _logits_of(_widened(outputs))
        return _both_classes(_widened(outputs))


def kept_variables(model: Any) -> list[Any]:
    """Lists the variables of a model that an attack has to leave as they were.

    Args:
      model: Any object. What is no tf.Module, Keras layer or the like has none.

    Returns:
      Its variables that are not trainable, and the states of its recurrent layers,
      which Keras does not count among the variables.
    """
    variables = getattr(model, "variables", None) or ()
    kept = [v for v in variables if not getattr(v, "trainable", True)]
    layers: Iterable[Any] = getattr(model, "_flatten_layers", tuple)()
    states = [
        state
        for layer in layers
        if getattr(layer, "stateful", False)
        for state in tf.nest.flatten(getattr(layer, "states", None) or [])
    ]
    known = {id(v) for v in kept}
    return kept + [state for state in states if id(state) not in known]


@contextlib.contextmanager
def state_kept(model: Any) -> Iterator[None]:
    """Undoes what the body changes in the variables that are not trained.

    Args:
      model: Any object.

    Yields:
      None.
    """
    before = [(v, tf.identity(v)) for v in kept_variables(model)]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


def fixed_batch_size(model: Any) -> int | None:
    """Returns the only batch size that a model takes, if it has symbolic inputs."""
    inputs = tf.nest.flatten(getattr(model, "inputs", None) or [])
    shapes = [tuple(getattr(tensor, "shape", None) or ()) for tensor in inputs]
    sizes = {shape[0] for shape in shapes if shape} - {None}
    return sizes.pop() if len(sizes) == 1 else None


def _takes_training(model: Callable[..., Any]) -> bool:
    function = getattr(model, "call", model)
    try:
        return "training" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def _of_classes(outputs: Any) -> tf.Tensor:
    """Returns outputs after checking that they have the shape of logits."""
    if tf.is_tensor(outputs) and outputs.shape.rank in (1, 2):
        return outputs
    shape = getattr(outputs, "shape", None)
    raise ValueError(
        "The model must return one tensor of shape [batch, classes], but its output is "
        f"a {type(outputs).__name__} of shape {shape}. For any other output give "
        "loss_fn, a function of (y, outputs) that returns one loss per example."
    )


def _widened(outputs: tf.Tensor) -> tf.Tensor:
    if outputs.shape.rank == 1:
        outputs = outputs[:, None]
    return outputs if outputs.dtype == tf.float64 else tf.cast(outputs, tf.float32)


def _both_classes(logits: tf.Tensor) -> tf.Tensor:
    if logits.shape[1] != 1:
        return logits
    return tf.concat([tf.zeros_like(logits), logits], axis=1)


def _logits_of(probabilities: tf.Tensor) -> tf.Tensor:
    if probabilities.shape[1] == 1:
        probabilities = tf.concat([1 - probabilities, probabilities], axis=1)
    return tf.math.log(tf.maximum(probabilities, 1e-30))


def _are_probabilities(outputs: np.ndarray) -> bool:
    outputs = np.asarray(outputs, np.float64)
    if outputs.ndim not in (1, 2) or not np.all((outputs >= 0) & (outputs <= 1)):
        return False
    if outputs.ndim == 1 or outputs.shape[1] == 1:
        return True
    return bool(np.all(np.abs(outputs.sum(axis=1) - 1) < 1e-2))
