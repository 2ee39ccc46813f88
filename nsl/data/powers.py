"""Powers of the normalized adjacency matrix: neighbors several steps away."""

import operator

import numpy as np
import numpy.typing as npt

from nsl.data import sparse_rows
from nsl.data.sparse_rows import Rows
from nsl.ranks import ranks_in_groups

_BLOCK_WALKS = 1 << 20


def power(
    graph: Rows,
    ranks: npt.NDArray[np.int32],
    hops: int,
    max_neighbors: int | None = None,
) -> Rows:
    """Computes (D^-1/2 (A + I) D^-1/2)^hops without its diagonal.

    Works on blocks of rows, so that memory is proportional to the result.

    Args:
      graph: Row splits, targets and weights of A.
      ranks: The rank of each node's id in ascending order, of shape [nodes].
      hops: The power.
      max_neighbors: The number of largest entries to keep per row; None keeps all.

    Returns:
      Row splits, targets and weights; each row is sorted by weight, heaviest first.

    Raises:
      TypeError: If a number is not an integer.
      ValueError: If a number is less than 1, or a weight is negative.
    """
    at_least_one("hops", hops)
    if max_neighbors is not None:
        at_least_one("max_neighbors", max_neighbors)
    splits, targets, weights = graph
    if (weights < 0).any():
        raise ValueError(
            "The normalized adjacency matrix needs weights that are not negative, but "
            f"the smallest is {weights.min()}."
        )
    nodes = len(ranks)
    sums = np.add.reduceat(np.append(weights, np.float32(0)), splits[:-1], dtype=float)
    sums[np.diff(splits) == 0] = 0
    scales = 1 / np.sqrt(sums + 1)
    # The number of walks from each node bounds the cost of its row.
    walks = np.ones(nodes, np.int64)
    for _ in range(hops):
        running = np.concatenate(([0], np.cumsum(walks[targets])))
        walks = walks + running[splits[1:]] - running[splits[:-1]]
    results = []
    degrees = np.zeros(nodes, np.int64)
    for first, last in sparse_rows.blocks(
        np.concatenate(([0], np.cumsum(walks))), _BLOCK_WALKS
    ):
        rows = np.arange(last - first)
        columns = np.arange(first, last)
        values = np.ones(last - first)
        for _ in range(hops):
            rows, columns, values = _step(graph, scales, rows, columns, values)
        others = columns != rows + first
        rows, columns, values = rows[others], columns[others], values[others]
        order = sparse_rows.order_within_rows(rows, columns, values, ranks)
        rows, columns, values = rows[order], columns[order], values[order]
        if max_neighbors is not None:
            kept = ranks_in_groups(rows) < max_neighbors
            rows, columns, values = rows[kept], columns[kept], values[kept]
        degrees[first:last] = np.bincount(rows, minlength=last - first)
        results.append((columns.astype(np.int32), values.astype(np.float32)))
    new_splits = np.concatenate((np.zeros(1, np.int64), np.cumsum(degrees)))
    if not results:
        return new_splits, targets[:0], weights[:0]
    new_targets, new_weights = map(np.concatenate, zip(*results, strict=True))
    return new_splits, new_targets, new_weights


def _step(
    graph: Rows,
    scales: npt.NDArray[np.float64],
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    values: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Multiplies some sparse rows by the normalized adjacency matrix."""
    splits, targets, weights = graph
    counts = splits[columns + 1] - splits[columns]
    entries = np.repeat(np.arange(len(rows)), counts)
    edges = np.arange(len(entries)) + np.repeat(
        splits[columns] - np.cumsum(counts) + counts, counts
    )
    scaled = values * scales[columns]
    new_columns = np.concatenate((columns, targets[edges]))
    new_values = np.concatenate((scaled, scaled[entries] * weights[edges]))
    new_values *= scales[new_columns]
    new_rows = np.concatenate((rows, rows[entries]))
    nodes = len(scales)
    pairs, places = np.unique(new_rows * nodes + new_columns, return_inverse=True)
    sums = np.bincount(places, new_values).astype(np.float64, copy=False)
    return pairs // nodes, pairs % nodes, sums


def at_least_one(name: str, value: int) -> int:
    """Checks that an argument is an integer of at least 1, and returns it.

    Args:
      name: The name of the argument in error messages.
      value: Its value.

    Raises:
      TypeError: If the value is not an integer.
      ValueError: If the value is less than 1.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, but is {value!r}.") from None
    if number < 1:
        raise ValueError(f"{name} must be at least 1, but is {number}.")
    return number
