"""Random walks on a graph, sampled with TensorFlow ops."""

import numpy as np
import tensorflow as tf

from nsl.data.graph import Graph


class Walks:
    """Samples the ends of random walks with restart probability `teleport`.

    A walk stops before each step with probability `teleport`. A step goes to a neighbor
    or stays, with the probabilities in the rows of D^-1 (A + I). The end thus has the
    distribution of the start's personalized PageRank, and the expectation of a value at
    the end is what `propagate` computes, at a cost independent of the graph's size.

    Args:
      graph: The graph, with weights that are not negative.
      teleport: The probability of stopping, in [0, 1]. The attribute can be changed.
      hops: The maximum number of steps.

    Raises:
      ValueError: If a weight is negative.
    """

    def __init__(self, graph: Graph, teleport: float, hops: int) -> None:
        if (graph.weights < 0).any():
            raise ValueError(
                "Random walks need weights that are not negative, but the smallest "
                f"weight of the graph is {graph.weights.min()}."
            )
        sums = np.concatenate(([0.0], np.cumsum(graph.weights, dtype=np.float64)))
        with tf.device("CPU:0"):
            self._sums = tf.constant(sums)
            self._splits = tf.constant(graph.row_splits)
            self._targets = tf.constant(graph.targets)
        self.teleport, self._hops = teleport, hops

    def ends(self, nodes: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Samples the end of one walk from each node.

        Args:
          nodes: The starts, rows of the graph, int32 of shape [walks].
          seed: The seed, int64 of shape [2].

        Returns:
          The ends, rows of the graph, int32 of shape [walks].
        """
        shape = [self._hops, 2, tf.size(nodes)]
        draws = tf.random.stateless_uniform(shape, seed, dtype=tf.float64)
        walking = tf.ones(tf.shape(nodes), tf.bool)
        for hop in range(self._hops):
            walking &= draws[hop, 0] >= self.teleport
            first = tf.gather(self._splits, nodes)
            last = tf.gather(self._splits, nodes + 1)
            low = tf.gather(self._sums, first)
            # The last unit of weight is the self-loop.
            place = low + draws[hop, 1] * (tf.gather(self._sums, last) - low + 1)
            edge = tf.searchsorted(self._sums, place, "right", tf.int64) - 1
            moves = walking & (edge < last)
            targets = tf.gather(self._targets, tf.where(moves, edge, 0))
            nodes = tf.where(moves, targets, nodes)
        return nodes


def teleport_of_size(graph: Graph, hops: int, size: float = 10.0) -> float:
    """Chooses a teleport probability by the number of nodes that walks spread over.

    The walks from a node spread over 1 / P nodes, where P is the probability that two
    of them end at the same node. The smallest probability is chosen for which the
    median of 1 / P over nodes is at most `size`, estimated from 200 nodes that have
    neighbors. The result depends only on the arguments.

    Args:
      graph: The graph.
      hops: The maximum number of steps of a walk.
      size: The upper bound of the median.

    Returns:
      A multiple of 0.05 in [0.1, 0.9].
    """
    degrees = np.diff(graph.row_splits)
    linked = np.flatnonzero(degrees)
    if not len(linked):
        return 0.1
    chosen = np.random.default_rng(0).choice(linked, min(len(linked), 200), False)
    count = 200
    starts = tf.constant(np.repeat(chosen, count), tf.int32)
    walks = Walks(graph, 0.0, hops)
    for teleport in np.arange(2, 18) / 20:
        walks.teleport = teleport
        ends = walks.ends(starts, tf.constant([0, 0], tf.int64))
        spread = []
        for row in ends.numpy().reshape(len(chosen), count):
            times = np.unique(row, return_counts=True)[1]
            pairs = max((times * (times - 1)).sum(), 1)
            spread.append(count * (count - 1) / pairs)
        if np.median(spread) <= size:
            return float(teleport)
    return 0.9
