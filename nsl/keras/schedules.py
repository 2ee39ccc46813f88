"""Settings that change while a model trains."""

from __future__ import annotations

from typing import Any

import attrs
import keras
import tensorflow as tf


def at_step(config: Any, step: Any) -> Any:
    """Puts the values of a step in the place of schedules.

    Args:
      config: A config, of which fields may hold a callable from step to value, as
        `keras.optimizers.schedules` are.
      step: The number of optimizer updates so far, an integer or a tensor.

    Returns:
      A config with float32 tensors in the place of schedules; `config` itself if it has
      none.
    """
    changes: dict[str, Any] = {}
    for field in attrs.fields(type(config)):
        value = getattr(config, field.name)
        if attrs.has(type(value)):
            resolved = at_step(value, step)
            if resolved is not value:
                changes[field.name] = resolved
        elif callable(value):
            changes[field.name] = tf.cast(value(step), tf.float32)
    return attrs.evolve(config, **changes) if changes else config


def snapshot(config: Any) -> Any:
    """Copies a config and those within it, to compare it with later.

    Args:
      config: A config, or anything else, which is returned as it is.

    Returns:
      A config that is equal as long as no field of the original changes.
    """
    if not attrs.has(type(config)):
        return config
    fields = (field.name for field in attrs.fields(type(config)))
    copies = {name: snapshot(getattr(config, name)) for name in fields}
    return attrs.evolve(config, **copies)


class EpochCounter(keras.callbacks.Callback):
    """Notes the epoch of `fit` where a compiled train step can read it.

    Args:
      epoch: What to write the epoch to, counted from 0 as `initial_epoch` is.
    """

    def __init__(self, epoch: tf.Variable) -> None:
        super().__init__()
        self._epoch = epoch

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the epoch."""
        del logs
        self._epoch.assign(epoch)

    def among(self, callbacks: Any) -> Any:
        """Adds this callback to those that `fit` received.

        Args:
          callbacks: None, a callback, several, or a `CallbackList`.

        Returns:
          What Keras is to receive.
        """
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks.callbacks.append(self)
            return callbacks
        return [self, *keras.tree.flatten(callbacks or [])]
