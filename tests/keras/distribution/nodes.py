"""A graph's nodes as training data, divided among workers in each way there is."""

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import nsl
from tests.keras.contract.base import SAMPLES, X, Y
from tests.keras.distribution.cases import Case, graph, untuned

NODES = SAMPLES

#: How the batches come to the workers: each makes its part (parts of one batch may
#: differ in size or be empty), or each makes the whole and the strategy takes its part.
VARIANTS = ("parts", "uneven-parts", "whole")


def nodes(variant: str, context: Any = None, epoch: Any = None) -> tf.data.Dataset:
    """The batches of an epoch; labels are the nodes' own where they are counted."""
    rows = np.arange(NODES)
    graph = nsl.data.Graph((rows, np.roll(rows, 1)), ids=rows, undirected=True)
    data = nsl.data.neighbor_dataset(
        graph,
        {"x": X},
        Y,
        neighbor_config=nsl.configs.GraphNeighborConfig(max_neighbors=2),
        batch_size=NODES - 1 if variant == "uneven-parts" else 12,
        # Neighbors drawn for a part are others than those for the whole batch.
        sampling="uniform" if variant == "whole" else "top",
        seed=3,
        input_context=context,
        epoch=epoch,
    )
    return untuned(data)


def node_data(strategy: tf.distribute.Strategy, variant: str, epoch: Any) -> Any:
    """The same, distributed."""
    if variant == "whole":
        return strategy.experimental_distribute_dataset(nodes(variant, epoch=epoch))
    return strategy.distribute_datasets_from_function(
        lambda context: nodes(variant, context, epoch)
    )


def counting(epoch: tf.Variable) -> keras.callbacks.Callback:
    """Tells the data which epoch begins.

    Under a strategy Keras looks at a batch before it trains, so that epochs that are
    counted as they are begun would be others than on one device.
    """
    return keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda number, logs: epoch.assign(number)
    )


@functools.cache
def _made_once(strategy: tf.distribute.Strategy) -> tuple[Any, list[Any]]:
    """A model that is traced once for all variants, and its initial weights."""
    with strategy.scope():
        # Without momentum, which the next variant would go on with.
        model = Case("nodes", graph).compiled(optimizer=keras.optimizers.SGD(0.1))
    return model, model.get_weights()


def train_on_nodes(
    strategy: tf.distribute.Strategy, variant: str
) -> tuple[list[Any], list[list[Any]]]:
    """Trains for two epochs.

    Returns:
      The weights, and the samples that this worker sees in each epoch.
    """
    epoch = tf.Variable(0, dtype=tf.int64)
    model, weights = _made_once(strategy)
    model.set_weights(weights)
    data = node_data(strategy, variant, epoch)
    model.fit(data, epochs=2, verbose=0, callbacks=[counting(epoch)])
    seen: list[list[Any]] = [[], []]
    for number, samples in enumerate(seen):
        epoch.assign(number)
        for x, *_ in data:
            for part in strategy.experimental_local_results(x["x"]):
                samples += part.numpy().tolist()
    return model.get_weights(), seen
