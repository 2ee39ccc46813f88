"""Sorts edges into compressed sparse rows with little extra memory."""

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

# Row splits, targets, weights.
Rows: TypeAlias = tuple[
    npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]
]

_BLOCK_EDGES = 1 << 18
_PART_EDGES = 1 << 14


def release_freed_memory() -> None:
    """Makes glibc return freed memory to the operating system.

    After reading a large file, the heap holds as much freed memory as the edges take.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


class Columns:
    """Edges as three growing columns, at 12 bytes per edge."""

    def __init__(self) -> None:
        """Makes empty columns."""
        self._empty()

    def _empty(self) -> None:
        self._length = 0
        self._sources = np.empty(0, np.int32)
        self._targets = np.empty(0, np.int32)
        self._weights = np.empty(0, np.float32)

    def append(
        self,
        sources: npt.NDArray[np.int32],
        targets: npt.NDArray[np.int32],
        weights: npt.NDArray[np.float32],
    ) -> None:
        """Appends edges, given as source rows, target rows and weights."""
        start, self._length = self._length, self._length + len(sources)
        if self._length > len(self._sources):
            release_freed_memory()
        for column, values in (
            (self._sources, sources),
            (self._targets, targets),
            (self._weights, weights),
        ):
            if self._length > len(column):
                # resize lets the allocator remap pages instead of copying them.
                column.resize(self._length + self._length // 32, refcheck=False)
            column[start : self._length] = values

    def take(
        self,
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Returns the columns (sources, targets, weights) and empties this object."""
        taken = self._sources, self._targets, self._weights
        for column in taken:
            column.resize(self._length, refcheck=False)
        self._empty()
        return taken


def compress(
    columns: Columns,
    ranks: npt.NDArray[np.int32],
    final_rows: npt.NDArray[np.int32] | None,
    undirected: bool,
) -> Rows:
    """Sorts edges by source, weight (heaviest first) and id (largest first).

    Duplicate edges are merged and keep the largest weight. Peak memory is 16 bytes per
    edge of the result, because columns are moved one at a time.

    Args:
      columns: The edges; emptied.
      ranks: The rank of each node's id in ascending order, of shape [nodes].
      final_rows: The final row of each row in `columns`; None if they stay the same.
      undirected: Whether to add the reverse of each edge.

    Returns:
      Row splits of shape [nodes + 1], targets and weights of shape [edges].
    """
    sources, targets, weights = columns.take()
    if final_rows is not None:
        _relabel(sources, final_rows)
        _relabel(targets, final_rows)
    release_freed_memory()
    keys = [sources, targets] if undirected else [sources]
    values: list[list[npt.NDArray[Any]]]
    values = [[weights, weights], [targets, sources]]
    # keys and values now hold the only references, so that columns are freed early.
    del sources, targets, weights
    splits = _row_splits(keys, len(ranks))
    ordered_targets = _in_rows(keys, values.pop(), splits)
    release_freed_memory()
    ordered_weights = _in_rows(keys, values.pop(), splits)
    del keys
    return _sort_each((splits, ordered_targets, ordered_weights), ranks)


def _relabel(rows: npt.NDArray[np.int32], final_rows: npt.NDArray[np.int32]) -> None:
    for part in _parts(rows):
        rows[part] = final_rows[rows[part]]


def _row_splits(keys: list[npt.NDArray[np.int32]], nodes: int) -> npt.NDArray[np.int64]:
    splits = np.zeros(nodes + 1, np.int64)
    for rows in keys:
        for part in _parts(rows):
            np.add.at(splits[1:], rows[part], 1)
    return np.cumsum(splits, out=splits)


def _parts(column: npt.NDArray[Any]) -> Iterator[slice]:
    """Splits a column into slices small enough for the CPU cache."""
    for start in range(0, len(column), _PART_EDGES):
        yield slice(start, start + _PART_EDGES)


def _in_rows(
    keys: list[npt.NDArray[np.int32]],
    columns: list[npt.NDArray[Any]],
    splits: npt.NDArray[np.int64],
) -> npt.NDArray[Any]:
    """Returns values sorted by row; the order depends only on the keys.

    Args:
      keys: The row of each value, in one or more columns.
      columns: The values, in as many columns.
      splits: The row splits, of shape [nodes + 1].
    """
    result = np.empty(splits[-1], columns[0].dtype)
    ends = splits[:-1].copy()
    for rows, values in zip(keys, columns, strict=False):
        for part in _parts(rows):
            order = np.argsort(rows[part], kind="stable")
            ordered = rows[part][order]
            starts = np.flatnonzero(np.diff(ordered, prepend=np.int32(-1)))
            counts = np.diff(starts, append=len(ordered))
            places = ends[ordered] + np.arange(len(ordered)) - np.repeat(starts, counts)
            result[places] = values[part][order]
            ends[ordered[starts]] += counts
    return result


def blocks(
    splits: npt.NDArray[np.int64], size: int = _BLOCK_EDGES
) -> list[tuple[int, int]]:
    """Divides rows into blocks of about `size` edges.

    Args:
      splits: The row splits, of shape [nodes + 1].
      size: The maximum number of edges in a block of more than one row.

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
    """Sorts each row and drops duplicate edges, in place."""
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
        # The heaviest of duplicate edges comes first; a stable sort keeps it there.
        pairs = sources * len(ranks) + some_targets
        order = np.argsort(pairs, kind="stable")
        repeated = order[1:][pairs[order[1:]] == pairs[order[:-1]]]
        if len(repeated):
            kept = np.ones(len(pairs), np.bool_)
            kept[repeated] = False
            sources, some_targets = sources[kept], some_targets[kept]
            some_weights = some_weights[kept]
        # Writes never overtake reads, because rows only shrink.
        start, end = end, end + len(sources)
        targets[start:end], weights[start:end] = some_targets, some_weights
        degrees[first:last] = np.bincount(sources, minlength=last - first)
    targets.resize(end, refcheck=False)
    weights.resize(end, refcheck=False)
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(degrees))), targets, weights
