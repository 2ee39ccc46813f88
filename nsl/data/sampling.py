"""Samples neighbors with TensorFlow ops."""

import math
from typing import Any

import tensorflow as tf

from nsl.configs.choice import Choice

# A shuffle takes time proportional to the square of the number of neighbors.
_MOST_SHUFFLED = 32
_NARROWEST_BLOCK = 8


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
      rows: The nodes of each sample, int32 of shape [samples, m].
      count: The number of neighbors to choose, k.
      sampling: How to choose them.
      seed: The seed, an integer tensor of shape [2].

    Returns:
      The nodes of the neighbors, int32 of shape [samples, k, m], and the weights of
      their edges, float32 of shape [samples, k]. If a sample has fewer neighbors, the
      rest is padded with the sample itself, with weight 0.
    """
    members: Any = rows.shape[1]
    if not targets.shape[0]:
        return tf.repeat(rows[:, tf.newaxis], count, axis=1), tf.zeros(
            [tf.shape(rows)[0], count]
        )
    starts = tf.gather(row_splits, rows)
    degrees = tf.gather(row_splits, rows + 1) - starts
    # The candidates of a sample are numbered through the rows of its nodes.
    ends = tf.cumsum(degrees, axis=1)
    offsets = starts - ends + degrees
    totals = ends[:, -1]
    if sampling is Sampling.UNIFORM and count <= _MOST_SHUFFLED:
        places = _shuffle(totals, count, seed)
    else:
        places = tf.range(count, dtype=tf.int64)[tf.newaxis]
        # The rows of a graph are already sorted by weight.
        if sampling is not Sampling.TOP or members > 1:
            places = _largest(weights, ends, offsets, count, sampling, seed)
    edges, member, exists = _edges(places, ends, offsets)
    chosen = tf.gather(targets, edges)
    neighbors = [
        tf.where(exists & (member == i), chosen, rows[:, i : i + 1])
        for i in range(members)
    ]
    return tf.stack(neighbors, axis=2), tf.where(exists, tf.gather(weights, edges), 0.0)


def _edges(
    places: tf.Tensor, ends: tf.Tensor, offsets: tf.Tensor
) -> tuple[tf.Tensor, Any, tf.Tensor]:
    """Returns the edges of candidates.

    Args:
      places: The numbers of candidates of each sample, int64 of shape [samples, n] or
        [1, n].
      ends: The number of candidates up to the end of each node's row, int64 of shape
        [samples, m].
      offsets: The edge of each node's candidate 0, int64 of shape [samples, m].

    Returns:
      The edge of each candidate, 0 if there is no such candidate; which of the m nodes
      it belongs to; and whether it exists; all of shape [samples, n].
    """
    edges, member = places + offsets[:, :1], tf.constant(0)
    nodes: Any = ends.shape[1]
    for i in range(1, nodes):
        is_later = places >= ends[:, i - 1 : i]
        edges = tf.where(is_later, places + offsets[:, i : i + 1], edges)
        member += tf.cast(is_later, tf.int32)
    exists = places < ends[:, -1:]
    return tf.where(exists, edges, 0), member, exists


def _shuffle(totals: tf.Tensor, count: int, seed: tf.Tensor) -> tf.Tensor:
    """Draws integers below each total without replacement.

    These are the first steps of a Fisher-Yates shuffle of 0, 1, ..., total - 1.

    Args:
      totals: int64 of shape [samples].
      count: The number of integers to draw.
      seed: The seed, an integer tensor of shape [2].

    Returns:
      The integers, of shape [samples, count]. If the total is less than `count`,
      integers that are not below it follow.
    """
    steps = tf.range(count, dtype=tf.int64)[:, tf.newaxis]
    left = tf.maximum(totals - steps, 0)
    uniform = tf.random.stateless_uniform(tf.shape(left), seed, dtype=tf.float64)
    swaps = steps + tf.cast(uniform * tf.cast(left, tf.float64), tf.int64)
    drawn = swaps[count - 1 :]
    for step in reversed(range(count - 1)):
        # This step moved its integer to the place that it drew from.
        swap = swaps[step : step + 1]
        drawn = tf.where(drawn == swap, tf.constant(step, tf.int64), drawn)
        drawn = tf.concat([swap, drawn], axis=0)
    return tf.transpose(drawn)


def _largest(
    weights: tf.Tensor,
    ends: tf.Tensor,
    offsets: tf.Tensor,
    count: int,
    sampling: Sampling,
    seed: tf.Tensor,
) -> tf.Tensor:
    """Returns the candidates with the largest keys, of shape [samples, count]."""
    totals = ends[:, -1]
    most = tf.reduce_max(totals)

    # Samples with similar totals share a dense matrix.
    def choose(narrower: tf.Tensor, places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        width = tf.maximum(3 * narrower // 2, max(_NARROWEST_BLOCK, count))
        samples = tf.where((totals > narrower) & (totals <= width))
        rows = samples[:, 0]
        edges, _, exists = _edges(
            tf.range(width)[tf.newaxis], tf.gather(ends, rows), tf.gather(offsets, rows)
        )
        fold = tf.random.experimental.stateless_fold_in(seed, width)  # type: ignore[attr-defined]
        keys = _keys(tf.gather(weights, edges), sampling, fold)
        keys = tf.where(exists, keys, tf.constant(-math.inf, keys.dtype))
        best = tf.math.top_k(keys, count, index_type=tf.int64).indices
        return width, tf.tensor_scatter_nd_update(places, samples, best)

    places = tf.range(count, dtype=tf.int64)[tf.newaxis]
    places = tf.repeat(places, tf.shape(totals)[0], axis=0)
    _, places = tf.while_loop(
        lambda narrower, _: narrower < most,
        choose,
        [tf.constant(1, tf.int64), places],
        parallel_iterations=1,
    )
    return places


def _keys(weights: tf.Tensor, sampling: Sampling, seed: tf.Tensor) -> tf.Tensor:
    """Returns a sort key for each edge; the edges with the largest are chosen."""
    if sampling is Sampling.TOP:
        return weights
    # float64, because ties, which float32 makes likely, would favor heavy edges.
    uniform = tf.random.stateless_uniform(tf.shape(weights), seed, dtype=tf.float64)
    if sampling is Sampling.UNIFORM:
        return uniform
    # Less than any positive float32, so that edges of weight 0 come last.
    return tf.math.log(uniform) / tf.maximum(tf.cast(weights, tf.float64), 1e-300)
