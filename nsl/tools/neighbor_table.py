"""Collects the heaviest neighbors of each seed in arrays."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nsl.files.edge_columns import Edges
from nsl.files.id_table import IdTable, as_strings
from nsl.ranks import ranks_in_groups
from nsl.tools.heaviest_edges import heaviest_edges

_Columns: TypeAlias = tuple[
    npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float64]
]

_PENDING_EDGES = 1 << 19
_UNKNOWN_SHOWN = 5


class NeighborTable:
    """Collects edges and keeps the heaviest ones of each seed.

    An edge takes 16 bytes. If the number of neighbors is limited, surplus edges are
    dropped repeatedly, so that memory is proportional to the edges that are kept.

    Attributes:
      edges: The number of edges that were added.
      unknown_edges: The number of edges with an unknown id, which are dropped.
      unknown_ids: The first few of the unknown ids.
      self_edges: The number of self-loops of known ids, which are dropped.
    """

    def __init__(
        self,
        ids: IdTable,
        num_seeds: int,
        max_nbrs: int | None,
        both_ways: bool,
    ) -> None:
        """Initializes an empty table.

        Args:
          ids: The known ids.
          num_seeds: The number of seeds: only the neighbors of ids 0 to
            `num_seeds - 1` are kept.
          max_nbrs: The number of neighbors to keep per seed, or None for all.
          both_ways: Whether to add the reverse of each edge.
        """
        self.edges = 0
        self.unknown_edges = 0
        self.unknown_ids: list[bytes] = []
        self.self_edges = 0
        self._ids = ids
        self._num_seeds = num_seeds
        self._max_nbrs = max_nbrs
        self._both_ways = both_ways
        # The smallest weight that can still enter a seed's heaviest edges.
        self._floor = np.full(num_seeds, np.inf if max_nbrs == 0 else -np.inf)
        self._kept = self._no_edges()
        self._pending: list[_Columns] = []
        self._num_pending = 0

    @staticmethod
    def _no_edges() -> _Columns:
        return np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float64)

    def add(self, edges: Edges) -> None:
        """Adds edges."""
        source_ids, target_ids = as_strings(edges.sources), as_strings(edges.targets)
        sources, targets = self._ids.find(source_ids), self._ids.find(target_ids)
        self.edges += len(sources)
        unknown = np.flatnonzero((sources < 0) | (targets < 0))
        self.unknown_edges += len(unknown)
        for edge in unknown.tolist():
            if len(self.unknown_ids) >= _UNKNOWN_SHOWN:
                break
            for found, ids in ((sources, source_ids), (targets, target_ids)):
                if found[edge] < 0 and ids[edge] not in self.unknown_ids:
                    self.unknown_ids.append(ids[edge])
        self.self_edges += int(((sources == targets) & (sources >= 0)).sum())
        self._keep(sources, targets, edges.weights)
        if self._both_ways:
            self._keep(targets, sources, edges.weights)
        if self._num_pending > max(_PENDING_EDGES, 2 * len(self._kept[0])):
            self._settle()

    def _keep(
        self,
        sources: npt.NDArray[np.int32],
        targets: npt.NDArray[np.int32],
        weights: npt.NDArray[np.float64],
    ) -> None:
        kept = np.flatnonzero(
            (sources >= 0)
            & (sources < self._num_seeds)
            & (targets >= 0)
            & (sources != targets)
        )
        kept = kept[weights[kept] >= self._floor[sources[kept]]]
        self._pending.append((sources[kept], targets[kept], weights[kept]))
        self._num_pending += len(self._pending[-1][0])

    def _settle(self) -> None:
        """Merges the pending edges into the kept ones, which are sorted."""
        parts = [self._kept, *self._pending]
        self._kept = self._no_edges()
        self._pending = []
        self._num_pending = 0
        sources, targets, weights = map(np.concatenate, zip(*parts, strict=True))
        del parts
        self._kept = heaviest_edges(
            sources, targets, weights, self._ids, self._max_nbrs
        )
        if self._max_nbrs:
            sources, _, weights = self._kept
            last = ranks_in_groups(sources) == self._max_nbrs - 1
            self._floor[sources[last]] = weights[last]

    def rows(
        self,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float64]]:
        """Returns the neighbors of all seeds.

        Returns:
          starts, targets and weights: the neighbors of seed i are
          `targets[starts[i]:starts[i + 1]]`, heaviest first; ties by id, largest first.
        """
        self._settle()
        sources, targets, weights = self._kept
        starts = np.searchsorted(sources, np.arange(self._num_seeds + 1))
        return starts, targets, weights
