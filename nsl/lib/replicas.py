"""Sums, means and bounds of the batch that the replicas of a strategy share."""

from typing import Any

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


def largest_of_replicas(value: tf.Tensor) -> tf.Tensor:
    """Finds the largest of what each replica has of each element of a tensor."""
    # Replicas can be gathered or summed up, no more.
    gathered, _ = gather_from_replicas(value[tf.newaxis])
    return tf.reduce_max(gathered, axis=0)


def gather_from_replicas(rows: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """Gathers the rows that each replica has of a tensor.

    Args:
      rows: This replica's rows, of shape [n, ...], where n may differ.

    Returns:
      The rows of all replicas, and the index among them of the first of this one.
    """
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return rows, 0
    sizes = replica.all_gather(tf.shape(rows)[:1], axis=0)
    before = tf.range(tf.size(sizes)) < replica.replica_id_in_sync_group
    first = tf.reduce_sum(tf.where(before, sizes, 0))
    return replica.all_gather(rows, axis=0), first
