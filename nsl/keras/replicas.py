"""Means and sums over the global batch of several replicas."""

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
