"""`fit` and `evaluate` with the workers of `tf.distribute.MultiWorkerMirroredStrategy`.

Keras 3.15 stops there with an error in two places, for any model:
https://github.com/keras-team/keras/issues/20585. This is all that it takes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


class MultiWorker(keras.Model):
    """A Keras model that trains on several workers as on several devices of one."""

    def _maybe_symbolic_build(
        self, iterator: Any = None, data_batch: Any = None
    ) -> Any:
        # Keras averages a batch over the replicas to see its shapes and cannot across
        # workers. One replica's part of it shows them too.
        strategy = self._distribute_strategy
        if strategy is not None and iterator is not None:
            for _, _, batches in iterator:
                data_batch = keras.tree.map_structure(
                    lambda part: strategy.experimental_local_results(part)[0],
                    next(batches),
                )
                break
            iterator = None
        super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)

    def _make_function(self, step_function: Callable[..., Any]) -> Any:
        strategy = self.distribute_strategy
        if (
            isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
            and strategy.extended._in_multi_worker_mode()
        ):
            step_function = _with_an_axis(step_function)
        return super()._make_function(step_function)


def _with_an_axis(step_function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives logged numbers the axis over which Keras averages them across workers."""

    @functools.wraps(step_function)
    def step(*args: Any, **kwargs: Any) -> Any:
        logs = step_function(*args, **kwargs)
        return keras.tree.map_structure(lambda value: value[tf.newaxis], logs)

    return step
