"""The model that is evaluated: its outputs, classes and gradients."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from nsl.attacks.model import (
    AttackedModel,
    fixed_batch_size,
    kept_variables,
    state_kept,
)
from nsl.attacks.objectives import cross_entropy
from nsl.lib.features import is_perturbable
from nsl.lib.rows import to_rows
from nsl.robustness.counted_model import CountedModel


class Classifier:
    """Runs a model for inference, batch by batch, and leaves its state alone.

    Args:
      model: A callable from features to logits or probabilities.
      from_logits: Whether they are logits. None finds out from the sample.
      sample: Features of a few examples, arrays with the examples first.
      batch_size: How many examples go through the model at once.

    Attributes:
      counted: The model, with a count of the examples that went through it.
      from_logits: Whether the outputs are taken for logits.
      classes: The number of classes.

    Raises:
      ValueError: If the outputs are not of shape [batch, classes].
    """

    def __init__(
        self,
        model: Callable[..., Any],
        from_logits: bool | None,
        sample: Any,
        batch_size: int,
    ) -> None:
        self.counted = model if isinstance(model, CountedModel) else CountedModel(model)
        self._size = fixed_batch_size(self.counted) or batch_size
        self._pads = fixed_batch_size(self.counted) is not None
        self._model = AttackedModel(self.counted, from_logits)
        with state_kept(self.counted):
            outputs = self._model.prepare(self._batch(sample, 0))
        self.classes = self._model.classes(outputs)
        self.from_logits = self._model.from_logits
        self._logits = tf.function(
            # TensorFlow counts traces by the code of a function, which all models
            # share, and warns of too many; a partial is its own.
            functools.partial(self._model.logits),
            autograph=False,
            reduce_retracing=True,
        )

    def outputs(self, x: Any) -> np.ndarray:
        """Returns what the model gives, as it gives it.

        Args:
          x: Features, arrays with the examples first.

        Returns:
          A float64 array of shape [examples, ...].
        """
        return self._in_batches(self._model, x)

    def logits(self, x: Any) -> np.ndarray:
        """Returns logits, whatever the model gives.

        Args:
          x: Features, arrays with the examples first.

        Returns:
          A float64 array of shape [examples, classes].
        """
        return self._in_batches(self._logits, x)

    def gradients(self, x: Any, labels: np.ndarray) -> np.ndarray:
        """Returns the gradient of each example's cross-entropy by its features.

        Args:
          x: Features, arrays with the examples first.
          labels: The true classes, of shape [examples].

        Returns:
          A float64 array of shape [examples, coordinates], zeros where the loss does
          not depend on a feature.
        """
        gradients = []
        for start in range(0, len(labels), self._size):
            features = self._batch(x, start)
            leaves = [f for f in tf.nest.flatten(features) if is_perturbable(f)]
            of_batch = labels[start : start + self._size]
            with state_kept(self.counted), tf.GradientTape() as tape:
                tape.watch(leaves)
                logits = self._model.logits(features, self._memory())
                loss = cross_entropy(logits[: len(of_batch)], of_batch)
            found = [
                tf.zeros_like(leaf) if gradient is None else gradient
                for leaf, gradient in zip(
                    leaves, tape.gradient(loss, leaves), strict=True
                )
            ]
            gradients.append(to_rows(found).numpy()[: len(of_batch)])
        return np.concatenate(gradients).astype(np.float64)

    def is_differentiable(self, x: Any) -> bool:
        """Tells whether the logits depend on a feature in a way that has a gradient.

        Args:
          x: Features of a few examples.

        Returns:
          Whether there is a gradient, were it zero. Rounding, for instance, has none.
        """
        features = self._batch(x, 0)
        leaves = [f for f in tf.nest.flatten(features) if is_perturbable(f)]
        with state_kept(self.counted), tf.GradientTape() as tape:
            tape.watch(leaves)
            logits = self._model.logits(features, self._memory())
        return any(g is not None for g in tape.gradient(logits, leaves))

    def _in_batches(self, function: Callable[..., Any], x: Any) -> np.ndarray:
        count = len(tf.nest.flatten(x)[0])
        with state_kept(self.counted):
            memory = self._memory()
            parts = [
                np.asarray(function(self._batch(x, start), memory), np.float64)
                for start in range(0, count, self._size)
            ]
        return np.concatenate(parts)[:count]

    def _memory(self) -> list[tf.Tensor]:
        """Returns what the variables hold that a call of the model changes."""
        variables = kept_variables(self.counted)
        return [tf.identity(variables[i]) for i in self._model.memory]

    def _batch(self, x: Any, start: int) -> Any:
        """Returns the examples of one batch, full if the model needs it so."""

        def taken(leaf: np.ndarray) -> tf.Tensor:
            part = leaf[start : start + self._size]
            if self._pads and len(part) < self._size:
                missing = np.repeat(part[:1], self._size - len(part), axis=0)
                part = np.concatenate([part, missing])
            return tf.convert_to_tensor(part)

        return tf.nest.map_structure(taken, x)
