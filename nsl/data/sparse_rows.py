"""Edges sorted into compressed sparse rows, with little memory besides."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

# Rows of sources, rows of targets, weights.
Columns: TypeAlias = tuple[
    npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float32]
]
# Row splits, targets, weights.
Rows: TypeAlias = tuple[
    npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]
]

_BLOCK_EDGES = 1 << 18


def compress(
    columns: list[Columns],
    ranks: npt.NDArray[np.int32],
    final_rows: npt.NDArray[np.int32] | None,
    undirected: bool,
) -> Rows:
    """Sorts edges by source, weight (heaviest first) and id (largest first).

    Of repeated edges the largest weight stays. At the peak an edge takes 20 bytes: 12
    where it came from, 8 where it goes.

    Args:
      columns: The edges in parts; they are taken out of the list one by one.
      ranks: The place of each node's id in ascending order, of shape [nodes].
      final_rows: For each row in `columns` the row it becomes; None leaves them.
      undirected: Whether the reverse of each edge is added.

    Returns:
      Row splits of shape [nodes + 1], targets and weights of shape [edges].
    """
    nodes = len(ranks)
    if final_rows is not None:
        for part, (sources, targets, weights) in enumerate(columns):
            columns[part] = final_rows[sources], final_rows[targets], weights
    degrees = np.zeros(nodes, np.int64)
    for sources, targets, _ in columns:
        degrees += np.bincount(sources, minlength=nodes)
        if undirected:
            degrees += np.bincount(targets, minlength=nodes)
    splits = np.concatenate((np.zeros(1, np.int64), np.cumsum(degrees)))
    rows = (splits, np.empty(splits[-1], np.int32), np.empty(splits[-1], np.float32))
    ends = splits[:-1].copy()
    while columns:
        sources, targets, weights = columns.pop()
        _scatter((sources, targets, weights), ends, rows)
        if undirected:
            _scatter((targets, sources, weights), ends, rows)
    return _sort_each(rows, ranks)


def _scatter(columns: Columns, ends: npt.NDArray[np.int64], rows: Rows) -> None:
    """Writes edges at the ends of their rows, which move on."""
    order = np.argsort(columns[0], kind="stable")
    sources = columns[0][order]
    starts = np.flatnonzero(np.diff(sources, prepend=np.int32(-1)))
    counts = np.diff(starts, append=len(sources))
    places = ends[sources] + np.arange(len(sources)) - np.repeat(starts, counts)
    rows[1][places] = columns[1][order]
    rows[2][places] = columns[2][order]
    ends[sources[starts]] += counts


def blocks(
    splits: npt.NDArray[np.int64], size: int = _BLOCK_EDGES
) -> list[tuple[int, int]]:
    """Divides rows into blocks of about `size` edges.

    Args:
      splits: The row splits, of shape [nodes + 1].
      size: How many edges a block may have if it is more than one row.

    Returns:
      The first row of each block and the one after its last.
    """
    result = []
    first, nodes = 0, len(splits) - 1
    while first < nodes:
        fitting = int(np.searchsorted(splits, splits[first] + size, side="right")) - 1
        last = min(max(fitting, first + 1), nodes)
        result.append((first, last))
        first = last
    return result


def order_within_rows(
    rows: npt.NDArray[np.int64],
    targets: npt.NDArray[np.int32],
    weights: npt.NDArray[np.floating],
    ranks: npt.NDArray[np.int32],
) -> npt.NDArray[np.int64]:
    """Returns the order by row, weight (heaviest first) and id (largest first)."""
    return np.lexsort((-ranks[targets], -weights, rows))


def _sort_each(rows: Rows, ranks: npt.NDArray[np.int32]) -> Rows:
    """Sorts each row and drops repeated edges, in place."""
    splits, targets, weights = rows
    degrees = np.zeros(len(ranks), np.int64)
    end = 0
    for first, last in blocks(splits):
        part = slice(splits[first], splits[last])
        sources = np.repeat(np.arange(last - first), np.diff(splits[first : last + 1]))
        some_targets, some_weights = targets[part], weights[part]
        order = order_within_rows(sources, some_targets, some_weights, ranks)
        sources, some_targets = sources[order], some_targets[order]
        some_weights = some_weights[order]
        # The heaviest of repeated edges stands first, and a stable sort keeps it so.
        pairs = sources * len(ranks) + some_targets
        order = np.argsort(pairs, kind="stable")
        repeated = order[1:][pairs[order[1:]] == pairs[order[:-1]]]
        if len(repeated):
            kept = np.ones(len(pairs), np.bool_)
            kept[repeated] = False
            sources, some_targets = sources[kept], some_targets[kept]
            some_weights = some_weights[kept]
        # What is written never overtakes what is read.
        start, end = end, end + len(sources)
        targets[start:end], weights[start:end] = some_targets, some_weights
        degrees[first:last] = np.bincount(sources, minlength=last - first)
    targets.resize(end, refcheck=False)
    weights.resize(end, refcheck=False)
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(degrees))), targets, weights
