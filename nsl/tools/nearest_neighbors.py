"""The k nearest neighbors of each node, updated as pairs are found."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from nsl.ranks import ranks_in_groups
from nsl.tools.embeddings import Embeddings
from nsl.tools.similarity import Candidates, Pairs
from nsl.tools.workers import in_order

_BLOCK_NODES = 1 << 14
_MOST_PENDING = 1 << 15

_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.integer]


class NearestNeighbors:
    """Keeps the k most similar of the candidates added for each node.

    Each node has a buffer of k + max(k, 16) candidates with float32 similarities. When
    it is full, only those are kept that may be among the k largest given the float32
    rounding error. Similarities in float64 decide at the end, or earlier if too many
    candidates are within that error. Ties are broken by id: the largest ids are kept.

    Attributes:
      bound: The smallest float32 similarity that can still enter each node's k
        nearest and reach the threshold, float32 of shape [nodes].
    """

    def __init__(
        self,
        embeddings: Embeddings,
        k: int,
        threshold: float,
        nodes: _Ints | None = None,
    ) -> None:
        """Initializes empty buffers.

        Args:
          embeddings: The vectors.
          k: The number of neighbors per node.
          threshold: The smallest similarity of a neighbor.
          nodes: The nodes to find neighbors of; None for all.
        """
        self._embeddings = embeddings
        self._k = k
        self._threshold = threshold
        self._id_ranks = embeddings.id_ranks
        self._width = k + max(k, 16)
        shape = len(embeddings), self._width
        # Pages of np.empty take no memory until they are written.
        self._neighbors = np.empty(shape, np.int32)
        self._values = np.empty(shape, np.float32)
        self._filled = np.zeros(len(embeddings), np.int32)
        # Candidates that are not in the buffers yet: nodes, neighbors, similarities.
        self._pending: list[tuple[_Ints, _Ints, _Floats]] = []
        self._num_pending = 0
        self._least = _below(np.float64(threshold) - embeddings.error)
        self.bound = np.full(len(embeddings), self._least, np.float32)
        if nodes is not None:
            self.bound[:] = np.inf
            self.bound[nodes] = self._least

    def add(self, found: Candidates) -> None:
        """Adds pairs, each once and in one direction."""
        sources, targets, values = found.sources, found.targets, found.values
        for nodes, others in ((sources, targets), (targets, sources)):
            kept = np.flatnonzero(values >= self.bound[nodes])
            self._pending.append((nodes[kept], others[kept], values[kept]))
            self._num_pending += len(kept)
        if self._num_pending > _MOST_PENDING:
            self._settle()

    def _settle(self) -> None:
        """Moves the pending candidates into the buffers."""
        if not self._num_pending:
            return
        nodes, others, values = map(np.concatenate, zip(*self._pending, strict=True))
        self._pending, self._num_pending = [], 0
        # Sorting numbers is faster than argsort.
        keys = np.sort(nodes.astype(np.int64) << 32 | np.arange(len(nodes)))
        nodes, order = keys >> 32, keys & 0xFFFFFFFF
        others, values = others[order], values[order]
        while len(nodes):
            place = self._filled[nodes] + ranks_in_groups(nodes)
            fits = place < self._width
            entry = nodes[fits], place[fits]
            self._neighbors[entry], self._values[entry] = others[fits], values[fits]
            last = np.append(nodes[1:] != nodes[:-1], True)
            some, filled = nodes[last], np.minimum(place[last] + 1, self._width)
            self._filled[some] = filled
            # A node gets a bound as soon as it has k candidates.
            unbound = (filled >= self._k) & (self.bound[some] == self._least)
            self._drop(some[unbound | (filled == self._width)])
            rest = np.flatnonzero(~fits)
            rest = rest[values[rest] >= self.bound[nodes[rest]]]
            nodes, others, values = nodes[rest], others[rest], values[rest]

    def _drop(self, nodes: _Ints) -> None:
        """Drops candidates of nodes that are not among the k largest."""
        row, of, value, least = self._largest(nodes)
        count = np.bincount(row, minlength=len(nodes))
        close = count > (self._k + self._width) // 2
        if close.any():
            # Too many within the rounding error: keep exactly the k largest.
            some = np.flatnonzero(close[row])
            order, rank, similarities = self._sorted(nodes, row[some], of[some])
            kept = np.ones(len(row), np.bool_)
            kept[some[order[rank >= self._k]]] = False
            kth = similarities[rank == self._k - 1] - self._embeddings.error
            least[close] = np.maximum(_below(kth), self._least)
            row, of, value = row[kept], of[kept], value[kept]
            count = np.bincount(row, minlength=len(nodes))
        places = np.arange(len(row)) - (np.cumsum(count) - count)[row]
        self._neighbors[nodes[row], places] = of
        self._values[nodes[row], places] = value
        self._filled[nodes] = count
        self.bound[nodes] = least

    def _largest(
        self, nodes: _Ints
    ) -> tuple[_Ints, npt.NDArray[np.int32], _Floats, _Floats]:
        """Returns the candidates of nodes that may be among the k largest.

        Args:
          nodes: The nodes.

        Returns:
          For each such candidate, the index into `nodes`, the candidate and its
          similarity; and for each node, the smallest similarity of such candidates.
        """
        empty = np.arange(self._width) >= self._filled[nodes, np.newaxis]
        value = self._values[nodes]
        value[empty] = -np.inf
        # The true k-th largest is at least kth - error, and candidates below
        # kth - 2 * error are truly smaller than that.
        kth = np.partition(value, -self._k, axis=1)[:, -self._k].astype(np.float64)
        least = np.maximum(_below(kth - 2 * self._embeddings.error), self._least)
        row, place = np.nonzero(value >= least[:, np.newaxis])
        return row, self._neighbors[nodes[row], place], value[row, place], least

    def _sorted(
        self, nodes: _Ints, row: _Ints, of: _Ints
    ) -> tuple[_Ints, _Ints, npt.NDArray[np.float64]]:
        """Sorts the candidates of each node by float64 similarity, largest first.

        Args:
          nodes: The nodes.
          row: The index into `nodes` of each candidate's node, sorted.
          of: The candidates.

        Returns:
          The order; and, in this order, the rank of each candidate for its node and its
          similarity.
        """
        similarities = self._embeddings.similarities(nodes[row], of)
        rank = ranks_in_groups(row)
        # Complex numbers are sorted by the real part, then by the imaginary part.
        shape = len(nodes), int(rank.max(initial=-1)) + 1
        keys = np.full(shape, np.inf, np.complex128)
        keys.real[row, rank] = -similarities
        keys.imag[row, rank] = -self._id_ranks[of]
        order = np.argsort(keys, axis=1)[row, rank] + np.arange(len(row)) - rank
        return order, rank, similarities[order]

    def pairs(self, workers: int = 1) -> Iterator[Pairs]:
        """Yields the neighbors of each node, the most similar first.

        Args:
          workers: The number of threads.

        Yields:
          The neighbors of some nodes; nodes are in ascending order.
        """
        self._settle()

        def chosen(start: int) -> Pairs:
            filled = self._filled[start : start + _BLOCK_NODES]
            nodes = start + np.flatnonzero(filled)
            row, of, _, _ = self._largest(nodes)
            order, rank, similarities = self._sorted(nodes, row, of)
            wanted = (rank < self._k) & (similarities >= self._threshold)
            order = order[wanted]
            sources = nodes[row[order]].astype(np.int32)
            return Pairs(sources, of[order], similarities[wanted])

        yield from in_order(chosen, range(0, len(self._filled), _BLOCK_NODES), workers)


def _below(similarities: npt.NDArray[np.float64] | np.float64) -> _Floats:
    """Returns the next float32 below each number."""
    return np.nextafter(np.asarray(similarities, np.float32), np.float32(-2))


def mutual_pairs(pairs: Pairs, nodes: int) -> Pairs:
    """Returns the pairs that occur in both directions, in the same order.

    Args:
      pairs: Distinct directed pairs.
      nodes: The number of nodes.
    """
    sources, targets = pairs.sources.astype(np.int64), pairs.targets.astype(np.int64)
    back = np.isin(targets * nodes + sources, sources * nodes + targets)
    return Pairs(pairs.sources[back], pairs.targets[back], pairs.similarities[back])
