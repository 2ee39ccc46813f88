"""Training that is killed in the middle of an epoch and goes on from its backup."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tests.keras.contract.base import mlp
from tests.keras.distribution.cases import PGD, adversarial, graph
from tests.keras.distribution.nodes import counting, nodes

EPOCHS, KILL_IN_EPOCH = 3, 1
EXAMPLES = Path(__file__).parents[3] / "examples"


class FailureError(Exception):
    """Something that ends training."""


def fail() -> None:
    """Ends training and leaves the process alive."""
    raise FailureError


def kill_this_process() -> None:
    """Ends this process without giving it a chance to do anything."""
    os.kill(os.getpid(), signal.SIGKILL)


class Kill(keras.callbacks.Callback):
    """Calls a function when the second batch of an epoch is done."""

    def __init__(self, kill: Callable[[], None]) -> None:
        super().__init__()
        self._kill = kill
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self._epoch, batch) == (KILL_IN_EPOCH, 1):
            self._kill()


def fit(
    strategy: tf.distribute.Strategy,
    backup: Path,
    kill: Callable[[], None] | None = None,
) -> list[Any]:
    """Trains with `fit` and returns the weights.

    The chief saves, and all restore what it saved.
    """
    with strategy.scope():
        # With random starts, whose seeds have to be restored too.
        model = graph(adversarial(mlp(), random_init=True, **PGD))
        model.compile(
            keras.optimizers.Adam(0.05),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
    resolver = strategy.cluster_resolver
    is_chief = resolver is None or not resolver.task_id
    number = tf.Variable(0, dtype=tf.int64)
    data = strategy.distribute_datasets_from_function(
        lambda context: nodes("parts", context, number)
    )
    callbacks = [
        keras.callbacks.BackupAndRestore(
            backup,
            save_freq="epoch" if is_chief else sys.maxsize,
            delete_checkpoint=False,
        ),
        counting(number),
    ]
    if kill is not None:
        callbacks.append(Kill(kill))
    model.fit(data, epochs=EPOCHS, verbose=0, callbacks=callbacks)
    return model.get_weights()


def example() -> Any:
    """Imports examples/distributed_loop.py."""
    sys.path.insert(0, str(EXAMPLES))
    import distributed_loop

    return distributed_loop


def loop(
    strategy: tf.distribute.Strategy,
    backup: Path,
    kill: Callable[[], None] | None = None,
) -> list[Any]:
    """Trains with the loop of examples/distributed_loop.py."""
    distributed_loop = example()
    distributed_loop.TRAINING_IMAGES = 3 * distributed_loop.BATCH_SIZE

    def on_step(epoch: int, step: int) -> None:
        if kill is not None and (epoch, step) == (KILL_IN_EPOCH, 1):
            kill()

    model = distributed_loop.train(strategy, EPOCHS, 5, backup, on_step)
    return model.get_weights()
