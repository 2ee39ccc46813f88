"""The k most similar nodes of each node, kept while pairs come in."""

import numpy as np
import numpy.typing as npt

from nsl.tools.embeddings import Embeddings
from nsl.tools.similarity import Candidates, Pairs
from nsl.tools.workers import in_order

_NODES_AT_ONCE = 1 << 14

_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.integer]


class NearestNeighbors:
    """Keeps for each node the k most similar of the pairs it was shown.

    A node has room for a few times k float32 similarities. When it is full, those stay
    that may be among the k largest; float64 arithmetic decides at the end, or earlier
    where too many are too close to tell. Of equally similar nodes those with larger ids
    are kept.

    Attributes:
      bound: float32 [nodes]; a float32 similarity below it cannot be among the
        node's k largest any more, nor reach the threshold.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        k: int,
        threshold: float,
        nodes: _Ints | None = None,
    ) -> None:
        """Starts without pairs.

        Args:
          embeddings: The vectors.
          k: How many neighbors a node keeps.
          threshold: The least similarity of a neighbor.
          nodes: The nodes whose neighbors are wanted. None wants those of all.
        """
        self._embeddings = embeddings
        self._k = k
        self._threshold = threshold
        self._id_order = embeddings.id_order
        self._width = 2 * k + 16
        shape = len(embeddings), self._width
        # What has not been filled is never read, so these take up no memory yet.
        self._neighbors = np.empty(shape, np.int32)
        self._values = np.empty(shape, np.float32)
        self._filled = np.zeros(len(embeddings), np.int32)
        self._least = _below(np.float64(threshold) - embeddings.error)
        self.bound = np.full(len(embeddings), self._least, np.float32)
        if nodes is not None:
            self.bound[:] = np.inf
            self.bound[nodes] = self._least

    def add(self, found: Candidates) -> None:
        """Shows pairs that were not shown before, each in one direction."""
        row_ends, column_ends = found.row_nodes, found.column_nodes
        self._add(row_ends, found.rows, column_ends[found.columns], found.values)
        kept = np.flatnonzero(found.values >= self.bound[column_ends][found.columns])
        columns = found.columns[kept]
        # Stable sorting of 16 bits is by radix.
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
        """Shows some of `nodes`, by their places in ascending order, their others."""
        kept = values >= self.bound[nodes][places]
        places, others, values = places[kept], others[kept], values[kept]
        if not len(places):
            return
        counts = np.bincount(places, minlength=len(nodes))
        start = np.cumsum(counts) - counts
        filled = self._filled[nodes]
        rank = np.arange(len(places)) - start[places]
        # A node that has k for the first time gets a bound.
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
        """Keeps of what full nodes have and are shown what may be among the k largest.

        Args:
          nodes: The nodes.
          counts: How many others each is shown.
          start: Where these begin in `others` and `values`.
          others: The other ends.
          values: The float32 similarities.
        """
        width = self._width + int(counts.max())
        # Columns: what the node has, then what it is shown.
        of = np.full((len(nodes), width), -1, np.int32)
        value = np.full((len(nodes), width), -np.inf, np.float32)
        empty = np.arange(self._width) >= self._filled[nodes, np.newaxis]
        of[:, : self._width] = self._neighbors[nodes]
        value[:, : self._width] = np.where(empty, -np.inf, self._values[nodes])
        own = np.repeat(np.arange(len(nodes)), counts)
        place = np.arange(len(own)) - np.repeat(np.cumsum(counts) - counts, counts)
        shown = np.repeat(start, counts) + place
        of[own, self._width + place] = others[shown]
        value[own, self._width + place] = values[shown]

        row, of, value, least = self._largest(of, value)
        count = np.bincount(row, minlength=len(nodes))
        close = count > (self._k + self._width) // 2
        if close.any():
            # Too many to tell apart: exactly the k largest stay.
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
        """Returns what may be among the k largest of each row.

        Args:
          of: The other ends [rows, places].
          value: Their similarities, -inf for none.

        Returns:
          The row, the other end and the value of each that may be; and for each row the
          least value that may.
        """
        # The k-th largest is at least this, less an error; what is below that by
        # another error is smaller than k others.
        place = value.shape[1] - self._k
        kth = np.partition(value, place, axis=1)[:, place].astype(np.float64)
        least = np.maximum(_below(kth - 2 * self._embeddings.error), self._least)
        row, place = np.nonzero(value >= least[:, np.newaxis])
        return row, of[row, place], value[row, place], least

    def _sorted(
        self, nodes: _Ints, row: _Ints, of: _Ints
    ) -> tuple[_Ints, _Ints, npt.NDArray[np.float64]]:
        """Sorts the others of each node, the most similar first.

        Args:
          nodes: The nodes.
          row: For each other its node, by the place in `nodes`, in ascending order.
          of: The others.

        Returns:
          The order, and in this order the rank of each among its node's and its
          similarity.
        """
        similarities = self._embeddings.similarities(nodes[row], of)
        order = np.lexsort((-self._id_order[of], -similarities, row))
        count = np.bincount(row, minlength=len(nodes))
        rank = np.arange(len(row)) - (np.cumsum(count) - count)[row]
        return order, rank, similarities[order]

    def pairs(self, workers: int = 1) -> Pairs:
        """Takes out each node with its neighbors, the most similar first, in order.

        Nothing is left to be called afterwards, for the sake of memory.

        Args:
          workers: How many threads work at the same time.
        """

        def chosen(start: int) -> Pairs:
            filled = self._filled[start : start + _NODES_AT_ONCE]
            nodes = start + np.flatnonzero(filled)
            empty = np.arange(self._width) >= self._filled[nodes, np.newaxis]
            value = np.where(empty, np.float32(-np.inf), self._values[nodes])
            row, of, _, _ = self._largest(self._neighbors[nodes], value)
            order, rank, similarities = self._sorted(nodes, row, of)
            wanted = (rank < self._k) & (similarities >= self._threshold)
            order = order[wanted]
            sources = nodes[row[order]].astype(np.int32)
            return Pairs(sources, of[order], similarities[wanted])

        starts = range(0, max(len(self._filled), 1), _NODES_AT_ONCE)
        parts = list(in_order(chosen, starts, workers))
        del self._neighbors, self._values
        return Pairs(*map(np.concatenate, zip(*parts, strict=True)))


def _below(similarities: npt.NDArray[np.float64] | np.float64) -> _Floats:
    """Returns the next float32 below each number."""
    return np.nextafter(np.asarray(similarities, np.float32), np.float32(-2))


def mutual_pairs(pairs: Pairs, nodes: int) -> Pairs:
    """Returns the pairs that are there in both directions.

    Args:
      pairs: The pairs, each once in a direction.
      nodes: The number of nodes.

    Returns:
      Those pairs, in the same order.
    """
    sources, targets = pairs.sources.astype(np.int64), pairs.targets.astype(np.int64)
    back = np.isin(targets * nodes + sources, sources * nodes + targets)
    return Pairs(pairs.sources[back], pairs.targets[back], pairs.similarities[back])
