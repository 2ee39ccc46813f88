"""A model that counts what goes through it."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


class CountedModel:
    """Calls a model, and counts the examples that it is called for.

    The count is kept in a variable, so that it goes on within compiled functions.

    Args:
      model: A callable whose first argument holds features, examples first.
    """

    def __init__(self, model: Callable[..., Any]) -> None:
        self._model = model
        self._count = tf.Variable(0, dtype=tf.int64, trainable=False)

    @property
    def count(self) -> int:
        """How many examples have gone through the model."""
        return int(self._count.numpy())

    def __getattr__(self, name: str) -> Any:
        # Attacks look at the model: what it takes, its variables, its batch size. What
        # Python asks for, as the owner of a method, is this object's own.
        if name.startswith("_"):
            raise AttributeError(name)
        if name == "call" and not hasattr(self._model, name):
            return self._model
        return getattr(self._model, name)

    def __call__(self, x: Any, **kwargs: Any) -> Any:
        """Calls the model."""
        batch = tf.shape(tf.nest.flatten(x)[0], tf.int64)[0]
        self._count.assign_add(batch)
        return self._model(x, **kwargs)
