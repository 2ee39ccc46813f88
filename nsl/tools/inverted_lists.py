"""Inverted lists (IVF): vectors are compared with the lists of near centroids.

Jégou et al. (2011), "Product quantization for nearest neighbor search", section 4,
without the quantization. Because every vector is a query, all queries that probe a list
are compared with it in one matrix product.
"""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from nsl.progress import Progress
from nsl.ranks import ranks_in_groups
from nsl.tools.embeddings import Embeddings
from nsl.tools.similar_pairs import Search
from nsl.tools.similarity import Order, Pairs, one_run
from nsl.tools.workers import in_order

_ROWS = 1024
_MAX_LISTS = 1 << 14
_ITERATIONS = 5
# The number of training vectors per centroid.
_TRAINED_PER_LIST = 24
_PART_PROBES = 1 << 21
# `tune` aims at a miss rate of this fraction of the one requested.
_MISS_MARGIN = 0.6
# The fraction of these misses that are due to the limit on the number of probes.
_LIMITED = 0.5
_LARGEST_GAP = 4.0

_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.integer]


class InvertedLists:
    """Inverted lists of vectors by nearest centroid.

    Each vector is in the list of its nearest centroid and probes the other lists whose
    centroids are almost as similar. Two vectors are compared if they are in the same
    list, or one probes the list of the other. A vector whose lists have too few others,
    such as one far from all centroids, is compared with all vectors.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        seed: int | None,
        workers: int = 1,
        lists: int | None = None,
    ) -> None:
        """Trains the centroids. `tune` or `probe` must be called before a search.

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
        self._all = False

    def tune(self, pairs: Pairs, recall: float, least: int) -> None:
        """Chooses lists to probe, as few as reach a recall.

        Args:
          pairs: Pairs of similar nodes, a sample of the pairs to find.
          recall: The fraction of pairs to find; 1 probes all lists.
          least: The minimum number of others that a node is compared with.
        """
        if recall >= 1:
            self.probe(len(self._centroids), least)
            return
        most, gap = 0, 0.0
        if len(pairs.sources):
            # A margin for sampling error.
            misses = _MISS_MARGIN * (1 - recall)
            ranks, gaps = self.probes_needed(pairs.sources, pairs.targets)
            # A node far from all centroids is about as similar to all of them, so that
            # the gap alone would have it probe them all.
            found = 1 - _LIMITED * misses
            most = int(np.quantile(ranks.min(axis=0), found, method="inverted_cdf"))
            gaps[ranks > most] = _LARGEST_GAP
            found = 1 - misses
            gap = float(np.quantile(gaps.min(axis=0), found, method="inverted_cdf"))
        self.probe(most, least, gap)

    def probe(self, lists: int, least: int, gap: float = math.inf) -> None:
        """Assigns the nodes to lists, and chooses the other lists that each one probes.

        Args:
          lists: The maximum number of other lists, those of the nearest centroids.
          least: The minimum number of others that a node is compared with.
          gap: How much less similar a node may be to the centroid of another list than
            to that of its own list.
        """
        nodes, count = len(self._embeddings), len(self._centroids)
        lists = min(lists, count - 1)
        self._all = lists == count - 1 and gap == math.inf
        if self._all:
            return
        self._own, self._probes = self._nearest_lists(np.arange(nodes), lists, gap)
        self._members = np.argsort(self._own, kind="stable").astype(np.int32)
        self._sizes = np.bincount(self._own, minlength=count)
        self._starts = np.cumsum(self._sizes) - self._sizes
        few = np.flatnonzero(self._others() < min(least, nodes - 1))
        if gap < math.inf and lists and len(few):
            _, more = self._nearest_lists(few, lists, math.inf)
            probes = np.sort(np.concatenate((self._probes, more)))
            self._probes = probes[np.append(True, probes[1:] != probes[:-1])]
        self._compares_all = self._others() < min(least, nodes - 1)
        queries, probed = np.divmod(self._probes, count)
        self._queries = queries[np.argsort(probed.astype(np.int16), kind="stable")]
        self._queries = self._queries.astype(np.int32)
        self._num_queries = np.bincount(probed, minlength=count)

    def _nearest_lists(
        self, nodes: _Ints, most: int, gap: float
    ) -> tuple[_Ints, _Ints]:
        """Returns the own list of nodes, and their probes.

        Args:
          nodes: The nodes, in ascending order.
          most: The maximum number of other lists.
          gap: See `probe`.

        Returns:
          The own lists; and `node * lists + list` for each probe, in ascending order.
        """
        count = len(self._centroids)

        def nearest(start: int) -> tuple[_Ints, _Ints]:
            some = nodes[start : start + _ROWS]
            products = self._products(some)
            each, own = np.arange(len(some)), np.argmax(products, axis=1)
            if not most:
                return own.astype(np.int16), np.empty(0, np.int64)
            bound = (products[each, own] - np.float32(gap))[:, np.newaxis]
            products[each, own] = -np.inf
            is_probed = products >= bound
            over = np.flatnonzero(np.count_nonzero(is_probed, axis=1) > most)
            rows = products[over]
            is_probed[over] = rows >= np.partition(rows, -most, axis=1)[:, [-most]]
            row, probed = np.divmod(np.flatnonzero(is_probed), count)
            kept = ranks_in_groups(row) < most  # More are equally similar.
            return own.astype(np.int16), some[row[kept]] * count + probed[kept]

        owns: list[_Ints] = [np.empty(0, np.int16)]
        probes: list[_Ints] = [np.empty(0, np.int64)]
        with Progress("Assigning to lists", len(nodes), "nodes") as progress:
            starts = range(0, len(nodes), _ROWS)
            for own, part in in_order(nearest, starts, self._workers):
                owns.append(own)
                probes.append(part)
                progress.advance(len(own))
        return np.concatenate(owns), np.concatenate(probes)

    def _others(self) -> _Ints:
        """Returns the number of others in the lists of each node."""
        nodes, lists = np.divmod(self._probes, len(self._centroids))
        others = np.bincount(nodes, self._sizes[lists], minlength=len(self._own))
        return others.astype(np.int64) + self._sizes[self._own] - 1

    def probes_needed(
        self, sources: _Ints, targets: _Ints
    ) -> tuple[_Ints, npt.NDArray[np.float32]]:
        """Returns when each pair is compared, as functions of the arguments of `probe`.

        Args:
          sources: The first node of each pair.
          targets: The second node of each pair.

        Returns:
          The number of lists and the gap from which on the first node probes the list
          of the second, and the second that of the first, both of shape [2, pairs].
        """
        nodes = np.concatenate((sources, targets))
        parts = [slice(i, i + _ROWS) for i in range(0, len(nodes), _ROWS)]
        own = np.empty(len(nodes), np.int64)
        for part in parts:
            own[part] = np.argmax(self._products(nodes[part]), axis=1)
        other = np.roll(own, len(sources))
        ranks, gaps = np.empty(len(nodes), np.int64), np.empty(len(nodes), np.float32)
        for part in parts:
            products = self._products(nodes[part])
            given = np.take_along_axis(products, other[part, np.newaxis], axis=1)
            ranks[part] = (products > given).sum(axis=1)
            gaps[part] = products.max(axis=1) - given[:, 0]
        return ranks.reshape(2, -1), gaps.reshape(2, -1)

    def _products(self, nodes: slice | _Ints) -> _Floats:
        """Returns the similarities of nodes to all centroids."""
        return self._embeddings.unit_rows(nodes) @ self._centroids.T

    def comparisons(self) -> float:
        """Returns the approximate number of pairs that are compared."""
        if self._all:
            return len(self._embeddings) * (len(self._embeddings) - 1) / 2
        sizes = self._sizes.astype(np.float64)
        with_all = float(self._compares_all.sum()) * len(self._own)
        return with_all + float((sizes * ((sizes - 1) / 2 + self._num_queries)).sum())

    def searches(self) -> Iterator[Search]:
        """Yields the searches that together compare each pair exactly once."""
        if self._all:
            yield Search("Comparing", one_run(len(self._embeddings)))
            return
        ends = np.repeat(self._starts + self._sizes, self._sizes)
        yield Search("Comparing within lists", Order(self._members, ends))
        lists = len(self._sizes)
        parts = -(-len(self._queries) // _PART_PROBES)
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
        sizes, counts = self._sizes[first:last], self._num_queries[first:last]
        ends, start = np.cumsum(sizes), self._num_queries[:first].sum()
        joined = np.insert(
            self._members[self._starts[first] :][: ends[-1]],
            np.repeat(ends, counts),
            self._queries[start:][: counts.sum()],
        )
        ends = np.cumsum(sizes + counts)
        return Order(
            joined,
            np.repeat(ends, sizes + counts),
            np.repeat(ends - counts, sizes + counts),
        )

    def _is_new(self, members: _Ints, queries: _Ints) -> npt.NDArray[np.bool_]:
        """Returns which pairs no other list's search compares, or only a later one."""
        lists, homes = self._own[members], self._own[queries]
        return ~self._probe(members, homes) | (lists < homes)

    def _probe(self, nodes: _Ints, lists: _Ints) -> npt.NDArray[np.bool_]:
        """Returns which nodes probe the given lists, one for each."""
        probes = nodes.astype(np.int64) * len(self._centroids) + lists
        place = np.searchsorted(self._probes, probes)
        found = place < len(self._probes)
        found[found] = self._probes[place[found]] == probes[found]
        return found

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
            & ~self._probe(sources, second)
            & ~self._probe(targets, first)
        )


def _centroids(
    rows: _Floats, count: int, random: np.random.Generator, workers: int
) -> _Floats:
    """Trains centroids with spherical k-means."""
    centroids = rows[random.permutation(len(rows))[:count]]

    def nearest(start: int) -> _Ints:
        return np.argmax(rows[start : start + _ROWS] @ centroids.T, axis=1)

    with Progress("Training centroids", _ITERATIONS * len(rows), "nodes") as progress:
        for _ in range(_ITERATIONS):
            parts: list[_Ints] = [np.empty(0, np.int64)]
            for part in in_order(nearest, range(0, len(rows), _ROWS), workers):
                parts.append(part)
                progress.advance(len(part))
            own = np.concatenate(parts)
            order = np.argsort(own, kind="stable")
            found, first = np.unique(own[order], return_index=True)
            sums = np.add.reduceat(rows[order], first, axis=0)
            norms = np.linalg.norm(sums, axis=1, keepdims=True)
            centroids[found] = sums / np.maximum(norms, 1e-6)
    return centroids
