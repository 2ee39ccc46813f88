"""Which neighbors a sample gets, chosen with TensorFlow ops."""

from typing import Any

import tensorflow as tf

from nsl.configs.choice import Choice


class Sampling(Choice):
    """How the neighbors of a sample are chosen, none of them twice.

    Attributes:
      TOP: The heaviest ones.
      UNIFORM: Each with the same chance.
      WEIGHTED: One after the other, each with a chance in proportion to its weight
        among those left (Efraimidis and Spirakis, 2006,
        https://doi.org/10.1016/j.ipl.2005.11.003).
    """

    TOP = "top"
    UNIFORM = "uniform"
    WEIGHTED = "weighted"


def choose_neighbors(
    row_splits: tf.Tensor,
    targets: tf.Tensor,
    weights: tf.Tensor,
    rows: tf.Tensor,
    count: int,
    sampling: Sampling,
    seed: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Chooses neighbors of samples.

    A sample is one node or several. A neighbor of several nodes has a neighbor of one
    of them in its place and is the same elsewhere; all such neighbors together are
    those chosen from.

    Args:
      row_splits: Where the rows of the graph start and end, int64 [nodes + 1].
      targets: Rows of the neighbors, int32 [edges], the heaviest first in each row.
      weights: Weights of the edges, float32 [edges].
      rows: The nodes of each sample, int32 [batch, m].
      count: How many neighbors are chosen, k.
      sampling: How.
      seed: Two integers that all chance depends on.

    Returns:
      The nodes of the neighbors, int32 [batch, k, m], and the weights of the edges to
      them, float32 [batch, k]. Where a sample has fewer neighbors, its own nodes with
      weight 0 follow.
    """
    members = rows.shape[1]
    nodes = tf.reshape(rows, [-1])
    starts = tf.gather(row_splits, nodes)
    degrees = tf.gather(row_splits, nodes + 1) - starts
    if sampling is Sampling.TOP:
        degrees = tf.minimum(degrees, tf.cast(count, tf.int64))
    edges = tf.ragged.range(starts, starts + degrees)
    owners = edges.value_rowids()
    candidates = tf.gather(targets, edges.flat_values)
    edge_weights = tf.gather(weights, edges.flat_values)
    samples = owners // members
    # The rows of a graph are sorted already.
    if sampling is not Sampling.TOP or members > 1:
        order = tf.argsort(_keys(edge_weights, sampling, seed), stable=True)
        by_sample = tf.argsort(tf.gather(samples, order), stable=True)
        order = tf.gather(order, by_sample)
        owners = tf.gather(owners, order)
        candidates = tf.gather(candidates, order)
        edge_weights = tf.gather(edge_weights, order)

    totals = tf.reduce_sum(tf.reshape(degrees, [-1, members]), axis=1)
    places = tf.range(count, dtype=tf.int64)
    is_there = places < totals[:, tf.newaxis]
    # A place after the last edge stands for a neighbor that is not there.
    none = tf.size(candidates, out_type=tf.int64)
    chosen = tf.cumsum(totals, exclusive=True)[:, tf.newaxis] + places
    chosen = tf.where(is_there, chosen, none)
    chosen_weights = tf.gather(tf.pad(edge_weights, [[0, 1]]), chosen)
    candidates = tf.gather(tf.pad(candidates, [[0, 1]]), chosen)
    changed = tf.gather(tf.pad(owners % members, [[0, 1]]), chosen)
    changed = tf.one_hot(changed, members, on_value=True, off_value=False)
    changed &= is_there[:, :, tf.newaxis]
    neighbors = tf.where(changed, candidates[:, :, tf.newaxis], rows[:, tf.newaxis, :])
    return neighbors, chosen_weights


def _keys(weights: tf.Tensor, sampling: Sampling, seed: tf.Tensor) -> Any:
    """Returns a number for each edge; those with the smallest are chosen."""
    if sampling is Sampling.TOP:
        return -weights
    # Few float32 numbers lie between 0 and 1, and equal ones would favor the heavy.
    uniform = tf.random.stateless_uniform(tf.shape(weights), seed, dtype=tf.float64)
    if sampling is Sampling.UNIFORM:
        return uniform
    weights = tf.cast(weights, tf.float64)
    exponential = -tf.math.log1p(-uniform)
    infinity = tf.constant(float("inf"), tf.float64)
    return tf.where(weights > 0, exponential / weights, infinity)
