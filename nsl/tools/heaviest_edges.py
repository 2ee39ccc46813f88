"""Selects the heaviest edges of each source."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nsl.ranks import ranks_in_groups


class _Ids(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> bytes: ...


def heaviest_edges(
    sources: npt.NDArray[np.int32],
    targets: npt.NDArray[np.int32],
    weights: npt.NDArray[np.float64],
    ids: _Ids,
    limit: int | None,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Sorts edges by source, heaviest first, and keeps the heaviest of each source.

    Duplicate edges are merged and keep the largest weight. Edges of equal weight are
    sorted by the id of the target, by code point, largest first.

    Args:
      sources: The sources as numbers, of shape [edges].
      targets: The targets as numbers, of shape [edges].
      weights: The weights, of shape [edges].
      ids: The ids, in UTF-8, by number.
      limit: The maximum number of edges per source, or None for no limit.

    Returns:
      The sources, targets and weights of the selected edges.
    """
    pairs = sources.astype(np.int64) * len(ids) + targets
    order = np.argsort(pairs)
    pairs = pairs[order]
    first = np.flatnonzero(np.diff(pairs, prepend=-1))
    if len(first):
        weights = np.maximum.reduceat(weights[order], first)
    order = order[first]
    sources, targets = sources[order], targets[order]
    # Two argsorts of integers are several times faster than np.lexsort.
    ranks = np.empty(len(weights), np.int64)
    ranks[np.argsort(-weights)] = np.arange(len(weights))
    order = np.argsort(sources * np.int64(len(weights)) + ranks)
    sources, targets, weights = sources[order], targets[order], weights[order]
    _sort_ties(sources, targets, weights, ids)
    if limit is not None:
        kept = ranks_in_groups(sources) < limit
        sources, targets, weights = sources[kept], targets[kept], weights[kept]
    return sources, targets, weights


def _sort_ties(
    sources: npt.NDArray[np.int32],
    targets: npt.NDArray[np.int32],
    weights: npt.NDArray[np.float64],
    ids: _Ids,
) -> None:
    """Sorts edges of equal source and weight by target id, in place."""
    tied = np.zeros(len(sources) + 1, np.bool_)
    tied[1:-1] = (sources[1:] == sources[:-1]) & (weights[1:] == weights[:-1])
    places = np.flatnonzero(tied[:-1] | tied[1:])
    if not len(places):
        return
    nodes, which = np.unique(targets[places], return_inverse=True)
    # UTF-8 sorts by code point.
    tied_ids = [ids[node] for node in nodes.tolist()]
    ranks = np.empty(len(tied_ids), np.int64)
    ranks[sorted(range(len(tied_ids)), key=tied_ids.__getitem__)] = np.arange(
        len(tied_ids)
    )
    order = np.lexsort((-ranks[which], -weights[places], sources[places]))
    targets[places] = targets[places[order]]


def heaviest_targets(
    weights: Mapping[bytes, float], limit: int | None
) -> list[tuple[bytes, float]]:
    """Like `heaviest_edges`, for the edges of a single source.

    Args:
      weights: The weight of the edge to each target, by target id.
      limit: The maximum number of edges, or None for no limit.

    Returns:
      The targets and weights of the selected edges, heaviest first.
    """
    ids = list(weights)
    zeros = np.zeros(len(ids), np.int32)
    numbers = np.arange(len(ids), dtype=np.int32)
    values = np.fromiter(weights.values(), np.float64, len(ids))
    _, targets, kept = heaviest_edges(zeros, numbers, values, ids, limit)
    return [
        (ids[target], weight)
        for target, weight in zip(targets.tolist(), kept.tolist(), strict=True)
    ]
