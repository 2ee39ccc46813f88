"""Settings that change while a model trains."""

from __future__ import annotations

from typing import Any

import attrs
import keras
import tensorflow as tf


def at_step(config: Any, step: Any) -> Any:
    """Replaces the schedules of a config by their values at a step.

    Args:
      config: A config. Its fields, and those of configs within it, may be callables
        from step to value, such as `keras.optimizers.schedules`.
      step: The number of optimizer updates so far, an integer or an integer scalar.

    Returns:
      A config with float32 scalars instead of schedules; `config` itself if it has no
      schedules.
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
    """Copies a config and the configs within it, to detect later changes.

    Args:
      config: A config. Any other value is returned unchanged.

    Returns:
      A copy that equals the original until a field of the original changes.
    """
    if not attrs.has(type(config)):
        return config
    fields = (field.name for field in attrs.fields(type(config)))
    copies = {name: snapshot(getattr(config, name)) for name in fields}
    return attrs.evolve(config, **copies)


class EpochCounter(keras.callbacks.Callback):
    """Writes the epoch of `fit` to a variable that compiled steps can read.

    Args:
      epoch: The variable, an integer scalar. Epochs count from 0.
    """

    def __init__(self, epoch: tf.Variable) -> None:
        super().__init__()
        self._epoch = epoch

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the epoch."""
        del logs
        self._epoch.assign(epoch)

    def added_to(self, callbacks: Any) -> Any:
        """Adds this callback to the callbacks of `fit`.

        Args:
          callbacks: None, a callback, a structure of callbacks, or a `CallbackList`.

        Returns:
          A list of callbacks, or the `CallbackList`.
        """
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks.callbacks.append(self)
            return callbacks
        return [self, *keras.tree.flatten(callbacks or [])]
