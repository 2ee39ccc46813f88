"""Propagates values along edges: label propagation, PageRank of predictions."""

from typing import Any

import numpy as np
import numpy.typing as npt

from nsl.data.feature_rows import plain_array
from nsl.data.graph import Graph
from nsl.data.powers import at_least_one

_BLOCK_EDGES = 1 << 20


def propagate(
    graph: Graph, values: Any, *, teleport: float = 0.1, hops: int = 10
) -> npt.NDArray[np.float32]:
    """Propagates values along the edges with personalized PageRank.

    Starting from H = values, iterates

        H <- (1 - teleport) P H + teleport * values

    `hops` times, where P = D^-1 (A + I), A is the weighted adjacency matrix and D the
    diagonal of the row sums of A + I (Gasteiger et al., 2019,
    https://arxiv.org/abs/1810.05997, equation 5, with rows that sum to 1). With one-hot
    labels, and zeros for unlabeled nodes, this is label propagation.

    ```python
    smooth = nsl.data.propagate(graph, model.predict(x))
    ```

    Time is proportional to hops * (edges + nodes) * columns. In addition to the values
    and the result, memory is twice their size plus about 8 MB per column.

    Args:
      graph: The graph, with weights that are not negative.
      values: Numbers of shape [nodes, columns]. Row i belongs to `graph.ids[i]`.
      teleport: The weight of a node's own value, in [0, 1]. With 1, values stay as they
        are.
      hops: The number of iterations, at least 1; values travel at most `hops` edges.

    Returns:
      The propagated values, float32 of shape [nodes, columns]. If all rows of `values`
      sum to 1, so do those of the result.

    Raises:
      TypeError: If an argument is of a wrong type.
      ValueError: If a shape or a number is wrong, or a weight is negative.
    """
    hops = at_least_one("hops", hops)
    if not 0 <= teleport <= 1:
        raise ValueError(f"teleport must be in [0, 1], but is {teleport!r}.")
    if (graph.weights < 0).any():
        raise ValueError(
            "propagate needs weights that are not negative, but the smallest weight "
            f"of the graph is {graph.weights.min()}."
        )
    start = plain_array(values, "values")
    if start.ndim != 2 or len(start) != graph.num_nodes:
        raise ValueError(
            f"values must have shape [{graph.num_nodes}, columns], one row for each "
            f"node of the graph, but have shape {start.shape}."
        )
    if start.dtype.kind not in "biuf":
        raise TypeError(f"values must be numbers, but are {start.dtype}.")
    start = np.ascontiguousarray(start, np.float32)
    with np.errstate(under="ignore"):
        ones = np.ones((graph.num_nodes, 1), np.float32)
        totals = 1 + _neighbor_sums(graph, ones)
        mixed = start
        for _ in range(hops):
            sums = _neighbor_sums(graph, mixed)
            sums += mixed
            sums *= (1 - teleport) / totals
            sums += np.float32(teleport) * start
            mixed = sums
    return mixed


def _neighbor_sums(
    graph: Graph, values: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Returns A @ values for the weighted adjacency matrix A."""
    sums = np.zeros_like(values)
    splits = graph.row_splits
    first = 0
    while first < graph.num_nodes:
        # Blocks of at most _BLOCK_EDGES edges, but at least one row.
        last = int(np.searchsorted(splits, splits[first] + _BLOCK_EDGES, "right")) - 1
        last = min(max(last, first + 1), graph.num_nodes)
        edges = slice(splits[first], splits[last])
        products = values[graph.targets[edges]] * graph.weights[edges, np.newaxis]
        linked = first + np.flatnonzero(np.diff(splits[first : last + 1]))
        if len(linked):
            starts = splits[linked] - splits[first]
            sums[linked] = np.add.reduceat(products, starts, axis=0)
        first = last
    return sums
