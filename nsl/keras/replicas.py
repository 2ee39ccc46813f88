"""Means, sums and random seeds where several replicas share a batch."""

import keras
import tensorflow as tf


def share_of_mean(total: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Divides a replica's sum by the count of all replicas.

    Args:
      total: This replica's sum.
      count: How many this replica adds to the count, or how much weight.

    Returns:
      This replica's share of the mean: the shares sum up to the mean of the global
      batch. 0 if there is nothing to count.
    """
    return tf.math.divide_no_nan(total, sum_over_replicas(count))


def sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """Adds up what each replica has of a tensor."""
    replica = tf.distribute.get_replica_context()
    if replica is not None and replica.num_replicas_in_sync > 1:
        return replica.all_reduce("sum", value)
    return value


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
