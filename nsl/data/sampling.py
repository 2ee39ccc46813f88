"""Samples the neighbors of a batch with TensorFlow ops."""

from typing import Any

import tensorflow as tf

from nsl.configs.choice import Choice


class Sampling(Choice):
    """How to sample the neighbors of a node, without replacement.

    Attributes:
      TOP: The neighbors with the heaviest edges.
      UNIFORM: Uniformly at random.
      WEIGHTED: One by one, with probabilities proportional to the edge weights of the
        remaining neighbors (Efraimidis and Spirakis, 2006,
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

    A sample has m nodes. A neighbor of a sample replaces exactly one of its nodes by a
    neighbor of that node; neighbors are chosen among all of these.

    Args:
      row_splits: The row splits of the graph, int64 of shape [nodes + 1].
      targets: The rows of the neighbors, int32 of shape [edges]; within each row, the
        heaviest first.
      weights: The weights of the edges, float32 of shape [edges].
      rows: The nodes of each sample, int32 of shape [batch, m].
      count: The number of neighbors to choose, k.
      sampling: How to choose them.
      seed: The seed, an integer tensor of shape [2].

    Returns:
      The nodes of the neighbors, int32 of shape [batch, k, m], and the weights of their
      edges, float32 of shape [batch, k]. If a sample has fewer neighbors, the rest is
      padded with the sample itself, with weight 0.
    """
    members: Any = rows.shape[1]
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
    # The rows of a graph are already sorted by weight.
    if sampling is not Sampling.TOP or members > 1:
        order = tf.argsort(_keys(edge_weights, sampling, seed), stable=True)
        by_sample = tf.argsort(tf.gather(samples, order), stable=True)
        order = tf.gather(order, by_sample)
        owners = tf.gather(owners, order)
        candidates = tf.gather(candidates, order)
        edge_weights = tf.gather(edge_weights, order)

    totals = tf.reduce_sum(tf.reshape(degrees, [-1, members]), axis=1)
    places = tf.range(count, dtype=tf.int64)
    exists = places < totals[:, tf.newaxis]
    # Padding points past the last edge.
    none = tf.size(candidates, out_type=tf.int64)
    chosen = tf.cumsum(totals, exclusive=True)[:, tf.newaxis] + places
    chosen = tf.where(exists, chosen, none)
    chosen_weights = tf.gather(tf.pad(edge_weights, [[0, 1]]), chosen)
    candidates = tf.gather(tf.pad(candidates, [[0, 1]]), chosen)
    changed = tf.gather(tf.pad(owners % members, [[0, 1]]), chosen)
    changed = tf.one_hot(changed, members, on_value=True, off_value=False)
    changed &= exists[:, :, tf.newaxis]
    neighbors = tf.where(changed, candidates[:, :, tf.newaxis], rows[:, tf.newaxis, :])
    return neighbors, chosen_weights


def _keys(weights: tf.Tensor, sampling: Sampling, seed: tf.Tensor) -> Any:
    """Returns a sort key for each edge; the edges with the smallest are chosen."""
    if sampling is Sampling.TOP:
        return -weights
    # float64, because ties, which float32 makes likely, would favor heavy edges.
    uniform = tf.random.stateless_uniform(tf.shape(weights), seed, dtype=tf.float64)
    if sampling is Sampling.UNIFORM:
        return uniform
    weights = tf.cast(weights, tf.float64)
    exponential = -tf.math.log1p(-uniform)
    infinity = tf.constant(float("inf"), tf.float64)
    return tf.where(weights > 0, exponential / weights, infinity)
