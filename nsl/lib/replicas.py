"""Reductions over the replicas of a `tf.distribute` strategy."""

from typing import Any

import tensorflow as tf


def share_of_mean(total: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Divides a replica's sum by the count of all replicas.

    Args:
      total: This replica's sum.
      count: This replica's count, or its sum of weights.

    Returns:
      This replica's share of the mean. The shares sum to the mean over the global
      batch, or to 0 if all counts are 0.
    """
    return tf.math.divide_no_nan(total, sum_over_replicas(count))


def sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """Sums a tensor over the replicas."""
    replica = tf.distribute.get_replica_context()
    if replica is not None and replica.num_replicas_in_sync > 1:
        return replica.all_reduce("sum", value)
    return value


def largest_of_replicas(value: tf.Tensor) -> tf.Tensor:
    """Returns the elementwise maximum of a tensor over the replicas."""
    # Replica contexts can gather and sum, but have no maximum.
    gathered, _ = gather_from_replicas(value[tf.newaxis])
    return tf.reduce_max(gathered, axis=0)


def gather_from_replicas(rows: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """Concatenates the rows of all replicas.

    Args:
      rows: This replica's rows, of shape [n, ...]; n may differ between replicas.

    Returns:
      The rows of all replicas, and the index of this replica's first row among them.
    """
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return rows, 0
    sizes = replica.all_gather(tf.shape(rows)[:1], axis=0)
    before = tf.range(tf.size(sizes)) < replica.replica_id_in_sync_group
    first = tf.reduce_sum(tf.where(before, sizes, 0))
    return replica.all_gather(rows, axis=0), first
