"""Random walks on a graph, drawn with TensorFlow ops."""

import numpy as np
import tensorflow as tf

from nsl.data.graph import Graph


class Walks:
    """Draws where walks end that stop with a chance of `teleport` before each step.

    A step leads to a neighbor or stays, as likely as in the rows of D^-1 (A + I). So an
    end is drawn from the personalized PageRank of the start, and the mean of a value
    over ends is in expectation what `propagate` computes, at a cost that does not
    depend on the size of the graph.

    Args:
      graph: The graph; its weights are not negative.
      teleport: The chance of stopping, in [0, 1].
      hops: The largest number of steps.
    """

    def __init__(self, graph: Graph, teleport: float, hops: int) -> None:
        if (graph.weights < 0).any():
            raise ValueError(
                "Walks follow edges in proportion to weights, which must not be "
                f"negative, but one is {graph.weights.min()}."
            )
        sums = np.concatenate(([0.0], np.cumsum(graph.weights, dtype=np.float64)))
        with tf.device("CPU:0"):
            self._sums = tf.constant(sums)
            self._splits = tf.constant(graph.row_splits)
            self._targets = tf.constant(graph.targets)
        self._teleport, self._hops = teleport, hops

    def ends(self, nodes: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Draws the ends of one walk from each node.

        Args:
          nodes: Rows of the graph, int32 of shape [walks].
          seed: Two integers of type int64 that all chance depends on.

        Returns:
          Rows of the graph, int32 of shape [walks].
        """
        shape = [self._hops, 2, tf.size(nodes)]
        draws = tf.random.stateless_uniform(shape, seed, dtype=tf.float64)
        walking = tf.ones(tf.shape(nodes), tf.bool)
        for hop in range(self._hops):
            walking &= draws[hop, 0] >= self._teleport
            first = tf.gather(self._splits, nodes)
            last = tf.gather(self._splits, nodes + 1)
            low = tf.gather(self._sums, first)
            # The last unit of weight is the node's own.
            place = low + draws[hop, 1] * (tf.gather(self._sums, last) - low + 1)
            edge = tf.searchsorted(self._sums, place, "right", tf.int64) - 1
            moves = walking & (edge < last)
            targets = tf.gather(self._targets, tf.where(moves, edge, 0))
            nodes = tf.where(moves, targets, nodes)
        return nodes


def teleport_of_size(graph: Graph, hops: int, size: float = 10.0) -> float:
    """Chooses the chance of stopping with which walks spread over so many nodes.

    The walks from a node spread over 1 / P nodes, where P is the chance that two of
    them end at the same one. The choice depends on the graph alone.

    Args:
      graph: The graph.
      hops: The largest number of steps of a walk.
      size: How many nodes half of the nodes reach at most.

    Returns:
      A number from 0.1 to 0.9, a multiple of 0.05.
    """
    degrees = np.diff(graph.row_splits)
    linked = np.flatnonzero(degrees)
    if not len(linked):
        return 0.1
    chosen = np.random.default_rng(0).choice(linked, min(len(linked), 200), False)
    count = 200
    starts = tf.constant(np.repeat(chosen, count), tf.int32)
    for teleport in np.arange(2, 18) / 20:
        ends = Walks(graph, teleport, hops).ends(starts, tf.constant([0, 0], tf.int64))
        spread = []
        for row in ends.numpy().reshape(len(chosen), count):
            times = np.unique(row, return_counts=True)[1]
            pairs = max((times * (times - 1)).sum(), 1)
            spread.append(count * (count - 1) / pairs)
        if np.median(spread) <= size:
            return float(teleport)
    return 0.9
