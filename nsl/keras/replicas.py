"""Losses and random seeds under a distribution strategy."""

from typing import Any

import keras
import tensorflow as tf


def of_global_batch(loss: tf.Tensor) -> tf.Tensor:
    """Estimates the loss of the global batch from a replica's share.

    Args:
      loss: The replica's share of a loss, of any shape.

    Returns:
      The share times the number of replicas.
    """
    return loss * tf.cast(tf.distribute.get_strategy().num_replicas_in_sync, loss.dtype)


def share_of_replica(loss: tf.Tensor) -> tf.Tensor:
    """Returns a replica's share of a loss that is the same on all replicas.

    Args:
      loss: A loss of any shape, such as that of a weight regularizer.

    Returns:
      The loss divided by the number of replicas, as `keras.Model.fit` scales it.
    """
    return loss / tf.cast(tf.distribute.get_strategy().num_replicas_in_sync, loss.dtype)


def replica_seed(generator: keras.random.SeedGenerator) -> tf.Tensor:
    """Draws the next seed, a different one on each replica.

    The state of the generator is the same on all replicas. With the same seed, the i-th
    samples of all replicas would get the same random numbers.

    Args:
      generator: The generator.

    Returns:
      A seed, an integer tensor of shape [2].
    """
    seed = generator.next()
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return seed
    folded: Any = tf.random.fold_in(seed, replica.replica_id_in_sync_group)
    return folded
