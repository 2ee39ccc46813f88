"""The k nearest neighbors of each node, updated as pairs are found."""

import numpy as np
import numpy.typing as npt

from nsl.tools.embeddings import Embeddings
from nsl.tools.similarity import Candidates, Pairs
from nsl.tools.workers import in_order

_BLOCK_NODES = 1 << 14

_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.integer]


class NearestNeighbors:
    """Keeps the k most similar of the candidates added for each node.

    Each node has a buffer of 2k + 16 candidates with float32 similarities. When it is
    full, only those are kept that may be among the k largest given the float32 rounding
    error. Similarities in float64 decide at the end, or earlier if too many candidates
    are within that error. Ties are broken by id: the largest ids are kept.

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
        self._width = 2 * k + 16
        shape = len(embeddings), self._width
        # Pages of np.empty take no memory until they are written.
        self._neighbors = np.empty(shape, np.int32)
        self._values = np.empty(shape, np.float32)
        self._filled = np.zeros(len(embeddings), np.int32)
        self._least = _below(np.float64(threshold) - embeddings.error)
        self.bound = np.full(len(embeddings), self._least, np.float32)
        if nodes is not None:
            self.bound[:] = np.inf
            self.bound[nodes] = self._least

    def add(self, found: Candidates) -> None:
        """Adds pairs, each once and in one direction."""
        row_ends, column_ends = found.row_nodes, found.column_nodes
        self._add(row_ends, found.rows, column_ends[found.columns], found.values)
        kept = np.flatnonzero(found.values >= self.bound[column_ends][found.columns])
        columns = found.columns[kept]
        # NumPy's stable sort of 16-bit integers is a radix sort.
        small = len(column_ends) <= 1 << 16
        order = np.argsort(
            columns.astype(np.uint16) if small else columns, kind="stable"
        )
        kept = kept[order]
        self._add(
            column_ends,
            columns[order],
            row_ends[found.rows[kept]],
            found.values[kept],
        )

    def _add(self, nodes: _Ints, places: _Ints, others: _Ints, values: _Floats) -> None:
        """Adds candidates `others` of `nodes[places]`; `places` is sorted."""
        kept = values >= self.bound[nodes][places]
        places, others, values = places[kept], others[kept], values[kept]
        if not len(places):
            return
        counts = np.bincount(places, minlength=len(nodes))
        start = np.cumsum(counts) - counts
        filled = self._filled[nodes]
        rank = np.arange(len(places)) - start[places]
        # A node gets a bound as soon as it has k candidates.
        unbound = (self.bound[nodes] == self._least) & (counts > 0)
        most = np.where(unbound, self._k - 1, self._width)
        fits = filled + counts <= most
        if not fits.all():
            over = np.flatnonzero(~fits)
            self._select(nodes[over], counts[over], start[over], others, values)
            kept = fits[places]
            places, others, values = places[kept], others[kept], values[kept]
            rank = rank[kept]
        own, rank = nodes[places], filled[places] + rank
        self._neighbors[own, rank] = others
        self._values[own, rank] = values
        self._filled[nodes[fits]] += counts[fits].astype(np.int32)

    def _select(
        self,
        nodes: _Ints,
        counts: _Ints,
        start: _Ints,
        others: _Ints,
        values: _Floats,
    ) -> None:
        """Adds candidates to full nodes, and drops those not among the k largest.

        Args:
          nodes: The nodes.
          counts: The number of new candidates of each node.
          start: The start of each node's candidates in `others` and `values`.
          others: The candidates.
          values: Their float32 similarities.
        """
        width = self._width + int(counts.max())
        # Columns: the node's buffer, then its new candidates.
        of = np.full((len(nodes), width), -1, np.int32)
        value = np.full((len(nodes), width), -np.inf, np.float32)
        empty = np.arange(self._width) >= self._filled[nodes, np.newaxis]
        of[:, : self._width] = self._neighbors[nodes]
        value[:, : self._width] = np.where(empty, -np.inf, self._values[nodes])
        own = np.repeat(np.arange(len(nodes)), counts)
        place = np.arange(len(own)) - np.repeat(np.cumsum(counts) - counts, counts)
        new = np.repeat(start, counts) + place
        of[own, self._width + place] = others[new]
        value[own, self._width + place] = values[new]

        row, of, value, least = self._largest(of, value)
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
        self, of: npt.NDArray[np.int32], value: _Floats
    ) -> tuple[_Ints, npt.NDArray[np.int32], _Floats, _Floats]:
        """Returns the entries of each row that may be among its k largest.

        Args:
          of: Candidates, of shape [rows, places].
          value: Their float32 similarities, -inf for empty places.

        Returns:
          The row, candidate and similarity of each such entry; and the smallest
          similarity of such entries in each row.
        """
        # The true k-th largest is at least kth - error, and entries below
        # kth - 2 * error are truly smaller than that.
        place = value.shape[1] - self._k
        kth = np.partition(value, place, axis=1)[:, place].astype(np.float64)
        least = np.maximum(_below(kth - 2 * self._embeddings.error), self._least)
        row, place = np.nonzero(value >= least[:, np.newaxis])
        return row, of[row, place], value[row, place], least

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
        order = np.lexsort((-self._id_ranks[of], -similarities, row))
        count = np.bincount(row, minlength=len(nodes))
        rank = np.arange(len(row)) - (np.cumsum(count) - count)[row]
        return order, rank, similarities[order]

    def pairs(self, workers: int = 1) -> Pairs:
        """Returns the neighbors of each node, the most similar first.

        This frees the buffers: no method may be called afterwards.

        Args:
          workers: The number of threads.
        """

        def chosen(start: int) -> Pairs:
            filled = self._filled[start : start + _BLOCK_NODES]
            nodes = start + np.flatnonzero(filled)
            empty = np.arange(self._width) >= self._filled[nodes, np.newaxis]
            value = np.where(empty, np.float32(-np.inf), self._values[nodes])
            row, of, _, _ = self._largest(self._neighbors[nodes], value)
            order, rank, similarities = self._sorted(nodes, row, of)
            wanted = (rank < self._k) & (similarities >= self._threshold)
            order = order[wanted]
            sources = nodes[row[order]].astype(np.int32)
            return Pairs(sources, of[order], similarities[wanted])

        starts = range(0, max(len(self._filled), 1), _BLOCK_NODES)
        parts = list(in_order(chosen, starts, workers))
        del self._neighbors, self._values
        return Pairs(*map(np.concatenate, zip(*parts, strict=True)))


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
