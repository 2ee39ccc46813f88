"""Losses and random seeds where several replicas share a batch."""

import keras
import tensorflow as tf


def of_global_batch(loss: tf.Tensor) -> tf.Tensor:
    """Undoes the division of a loss among replicas.

    Args:
      loss: A replica's share of a loss, of any shape.

    Returns:
      What the loss of the global batch is if every replica has the same share.
    """
    return loss * tf.cast(tf.distribute.get_strategy().num_replicas_in_sync, loss.dtype)


def replica_seed(generator: keras.random.SeedGenerator) -> tf.Tensor:
    """Draws the next seed, another one on each replica.

    The state of the generator is the same on all replicas, so that without this the
    first sample of one would get the random numbers of the first of another.

    Args:
      generator: The generator.

    Returns:
      Two integers.
    """
    seed = generator.next()
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return seed
    return tf.random.fold_in(seed, replica.replica_id_in_sync_group)
