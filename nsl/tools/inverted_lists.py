"""Inverted lists (IVF): vectors are compared with the lists of near centroids.

Jégou et al. (2011), "Product quantization for nearest neighbor search", section 4,
without the quantization. Because every vector is a query, all queries that probe a list
are compared with it in one matrix product.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from nsl.progress import Progress
from nsl.tools.embeddings import Embeddings
from nsl.tools.similar_pairs import Search
from nsl.tools.similarity import Order, Pairs, at_most_kth, one_run
from nsl.tools.workers import in_order

_ROWS = 1024
_MAX_LISTS = 1 << 14
_ITERATIONS = 5
# The number of training vectors per centroid.
_TRAINED_PER_LIST = 24
_PART_PROBES = 1 << 23
# `tune` aims at a miss rate of this fraction of the one requested.
_MISS_MARGIN = 0.75

_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.integer]


class InvertedLists:
    """Inverted lists of vectors by nearest centroid.

    Each vector is in the list of its nearest centroid and probes some other lists. Two
    vectors are compared if they are in the same list, or one probes the list of the
    other. A vector whose lists have too few others, such as one far from all centroids,
    is compared with all vectors.

    Attributes:
      probes: The number of lists that a vector probes besides its own.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        seed: int | None,
        workers: int = 1,
        lists: int | None = None,
    ) -> None:
        """Trains the centroids and assigns the vectors to lists.

        Args:
          embeddings: The vectors.
          seed: The seed of the centroids; None draws one.
          workers: The number of threads.
          lists: The number of lists; by default 4 * sqrt(nodes), at most 16384.
        """
        nodes = len(embeddings)
        # Not the generator that `sample_pairs` draws from: nodes that centroids were
        # trained on are nearer to them, so their recall is higher.
        (random,) = np.random.default_rng(seed).spawn(1)
        lists = min(lists or int(4 * math.sqrt(nodes)), _MAX_LISTS)
        lists = max(1, min(lists, nodes // 2))
        sample = random.permutation(nodes)[: lists * _TRAINED_PER_LIST]
        self._embeddings = embeddings
        self._workers = workers
        self._centroids = _centroids(
            embeddings.unit_rows(np.sort(sample)), lists, random, workers
        )
        rows = (
            embeddings.unit_rows(slice(start, start + _ROWS))
            for start in range(0, nodes, _ROWS)
        )
        with Progress("Assigning to lists", nodes, "nodes") as progress:
            self._own = _nearest(rows, self._centroids, workers, progress)
        self._members = np.argsort(self._own, kind="stable").astype(np.int32)
        self._sizes = np.bincount(self._own, minlength=lists)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self.probes = 0
        self._probed = np.empty((nodes, 0), np.int16)
        self._compares_all = np.zeros(nodes, np.bool_)

    def tune(self, pairs: Pairs, recall: float, least: int) -> None:
        """Chooses the smallest number of probes that reaches a recall.

        Args:
          pairs: Pairs of similar nodes, a sample of the pairs to find.
          recall: The fraction of pairs to find; 1 probes all lists.
          least: The minimum number of others that a node is compared with.
        """
        probes = 0
        if recall >= 1:
            probes = len(self._centroids) - 1
        elif len(pairs.sources):
            ranks = self.probes_needed(pairs.sources, pairs.targets)
            # A margin for sampling error.
            aim = 1 - _MISS_MARGIN * (1 - recall)
            last = math.ceil(aim * len(ranks)) - 1
            probes = int(np.partition(ranks, last)[last])
        self.probe(probes, least)

    def probe(self, lists: int, least: int) -> None:
        """Sets the number of nearest lists that each node probes besides its own.

        Args:
          lists: The number of lists.
          least: The minimum number of others that a node is compared with.
        """
        self.probes = min(lists, len(self._centroids) - 1)
        if self._all:
            return
        self._probed = self._nearest_lists(self.probes)
        others = self._sizes[self._own] - 1
        for column in self._probed.T:
            others += self._sizes[column]
        self._compares_all = others < min(least, len(self._own) - 1)

    def probes_needed(self, sources: _Ints, targets: _Ints) -> _Ints:
        """Returns the number of probes from which on each pair is compared.

        Args:
          sources: The first node of each pair.
          targets: The second node of each pair.
        """
        return np.minimum(
            self._rank(sources, self._own[targets]),
            self._rank(targets, self._own[sources]),
        )

    def _rank(self, nodes: _Ints, lists: _Ints) -> _Ints:
        """Returns the rank of a list among those of each node, nearest first.

        A node's own list is nearest; it has rank 0.
        """
        ranks = np.empty(len(nodes), np.int64)
        for start in range(0, len(nodes), _ROWS):
            some = slice(start, start + _ROWS)
            products = self._embeddings.unit_rows(nodes[some]) @ self._centroids.T
            given = np.take_along_axis(products, lists[some, np.newaxis], axis=1)
            ranks[some] = (products > given).sum(axis=1)
        return ranks

    def _nearest_lists(self, count: int) -> npt.NDArray[np.int16]:
        """Returns the lists nearest to each node except its own, [nodes, count]."""
        nodes = len(self._own)
        result = np.empty((nodes, count), np.int16)

        def choose(start: int) -> int:
            own = self._own[start : start + _ROWS]
            rows = self._embeddings.unit_rows(slice(start, start + _ROWS))
            products = rows @ self._centroids.T
            products[np.arange(len(own)), own] = -np.inf
            least = at_most_kth(products, count, 1)
            row, lists = np.nonzero(products >= least[:, np.newaxis])
            order = np.lexsort((-products[row, lists], row))
            row, lists = row[order], lists[order]
            nearest = np.arange(len(row)) - np.searchsorted(row, row) < count
            result[start : start + _ROWS] = lists[nearest].reshape(-1, count)
            return len(own)

        if count:
            with Progress("Choosing lists to probe", nodes, "nodes") as progress:
                starts = range(0, nodes, _ROWS)
                for done in in_order(choose, starts, self._workers):
                    progress.advance(done)
        return result

    @property
    def _all(self) -> bool:
        return self.probes >= len(self._centroids) - 1

    def comparisons(self) -> float:
        """Returns the approximate number of pairs that are compared."""
        if self._all:
            return len(self._own) * (len(self._own) - 1) / 2
        sizes = self._sizes.astype(np.float64)
        queries = np.zeros(len(sizes))
        for column in self._probed.T:
            queries += np.bincount(column, minlength=len(sizes))
        with_all = float(self._compares_all.sum()) * len(self._own)
        return float((sizes * (sizes - 1) / 2 + sizes * queries).sum()) + with_all

    def searches(self) -> Iterator[Search]:
        """Yields the searches that together compare each pair exactly once."""
        if self._all:
            yield Search("Comparing", one_run(len(self._own)))
            return
        ends = np.repeat(self._starts + self._sizes, self._sizes)
        yield Search("Comparing within lists", Order(self._members, ends))
        lists = len(self._sizes)
        parts = -(-self._probed.size // _PART_PROBES)
        for part in range(parts):
            first, last = lists * part // parts, lists * (part + 1) // parts
            yield Search(
                f"Comparing between lists, part {part + 1} of {parts}",
                self._probes_of(first, last),
                self._is_new,
            )
        isolated = np.flatnonzero(self._compares_all).astype(np.int32)
        if len(isolated):
            rest = np.flatnonzero(~self._compares_all).astype(np.int32)
            ends = np.full(len(isolated), len(isolated))
            yield Search(
                "Comparing the rest", Order(isolated, ends), self._is_in_no_list
            )
            nodes = np.concatenate((isolated, rest))
            ends = np.full(len(nodes), len(nodes))
            order = Order(nodes, ends, np.full(len(nodes), len(isolated)))
            yield Search("Comparing the rest", order, self._is_in_no_list)

    def _probes_of(self, first: int, last: int) -> Order:
        """Returns an order in which each run has a list's members, then its queries."""
        nodes, places = np.nonzero((self._probed >= first) & (self._probed < last))
        probed = self._probed[nodes, places]
        order = np.argsort(probed, kind="stable")
        counts = np.bincount(probed - first, minlength=last - first)
        sizes = self._sizes[first:last]
        start, end = self._starts[first], self._starts[first] + sizes.sum()
        run = np.concatenate(
            (np.repeat(np.arange(last - first), sizes), probed[order] - first)
        )
        joined = np.concatenate(
            (self._members[start:end], nodes[order].astype(np.int32))
        )
        lengths = sizes + counts
        ends = np.cumsum(lengths)
        return Order(
            joined[np.argsort(run, kind="stable")],  # members stay before queries
            np.repeat(ends, lengths),
            np.repeat(ends - counts, lengths),
        )

    def _is_new(self, members: _Ints, queries: _Ints) -> npt.NDArray[np.bool_]:
        """Returns which pairs no other list's search compares, or only a later one."""
        lists, homes = self._own[members], self._own[queries]
        back = (self._probed[members] == homes[:, np.newaxis]).any(axis=1)
        return ~back | (lists < homes)

    def compares(self, sources: _Ints, targets: _Ints) -> npt.NDArray[np.bool_]:
        """See `Index`."""
        if self._all:
            return np.ones(len(sources), np.bool_)
        isolated = self._compares_all[sources] | self._compares_all[targets]
        return isolated | ~self._is_in_no_list(sources, targets)

    def _is_in_no_list(self, sources: _Ints, targets: _Ints) -> npt.NDArray[np.bool_]:
        first, second = self._own[sources], self._own[targets]
        return (
            (first != second)
            & (self._probed[sources] != second[:, np.newaxis]).all(axis=1)
            & (self._probed[targets] != first[:, np.newaxis]).all(axis=1)
        )


def _nearest(
    parts: Iterable[_Floats], centroids: _Floats, workers: int, progress: Progress
) -> npt.NDArray[np.int32]:
    """Returns the index of the nearest centroid to each row."""

    def nearest(rows: _Floats) -> npt.NDArray[np.int32]:
        return np.argmax(rows @ centroids.T, axis=1).astype(np.int32)

    lists = [np.empty(0, np.int32)]
    for part in in_order(nearest, parts, workers):
        lists.append(part)
        progress.advance(len(part))
    return np.concatenate(lists)


def _centroids(
    rows: _Floats, count: int, random: np.random.Generator, workers: int
) -> _Floats:
    """Trains centroids with spherical k-means."""
    centroids = rows[random.permutation(len(rows))[:count]]
    with Progress("Training centroids", _ITERATIONS * len(rows), "nodes") as progress:
        for _ in range(_ITERATIONS):
            parts = (
                rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)
            )
            own = _nearest(parts, centroids, workers, progress)
            order = np.argsort(own, kind="stable")
            found, first = np.unique(own[order], return_index=True)
            sums = np.add.reduceat(rows[order], first, axis=0)
            norms = np.linalg.norm(sums, axis=1, keepdims=True)
            centroids[found] = sums / np.maximum(norms, 1e-6)
    return centroids
