"""Values spread along the edges of a graph: label propagation, PageRank of answers."""

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
    """Mixes the values of each node with those of the nodes around it.

    Starting from H = values, H becomes (1 - teleport) P H + teleport * values, `hops`
    times, where P = D^-1 (A + I) holds the shares of each node's neighbors and of the
    node itself: personalized PageRank of the values (Gasteiger et al., 2019,
    https://arxiv.org/abs/1810.05997, equation 5, with rows that sum to 1). With the
    classes of labeled nodes as 0 and 1, and zeros for the others, it is label
    propagation.

    ```python
    smooth = nsl.data.propagate(graph, model.predict(x))
    ```

    Time follows hops * (edges + nodes) * columns; besides the values and the result it
    takes twice their bytes and about 8 MB a column.

    Args:
      graph: The graph; its weights are not negative.
      values: Numbers of shape [nodes, columns]. Row i belongs to `graph.ids[i]`.
      teleport: The share of a node's own value, in [0, 1]. With 1 nothing is mixed.
      hops: How many edges away a value may come from, at least 1.

    Returns:
      float32 of shape [nodes, columns]. Rows of `values` that sum to 1 still do.

    Raises:
      TypeError: If a number is of a wrong type.
      ValueError: If a shape or a number is wrong, or a weight negative.
    """
    hops = at_least_one("hops", hops)
    if not 0 <= teleport <= 1:
        raise ValueError(f"teleport must be in [0, 1], but is {teleport!r}.")
    if (graph.weights < 0).any():
        raise ValueError(
            "Values are mixed in proportion to weights, which must not be negative, "
            f"but one is {graph.weights.min()}."
        )
    start = plain_array(values, "values")
    if start.ndim != 2 or len(start) != graph.num_nodes:
        raise ValueError(
            f"values must have shape [{graph.num_nodes}, columns], a row for each node "
            f"of the graph, but have shape {start.shape}."
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
    """Sums the values of each node's neighbors, times the weights of the edges."""
    sums = np.zeros_like(values)
    splits = graph.row_splits
    first = 0
    while first < graph.num_nodes:
        # As many rows as have a block of edges, and at least one.
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
