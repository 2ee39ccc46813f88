"""Approximate search: vectors in lists around centroids, of which a few are compared.

Jégou et al. (2011), "Product quantization for nearest neighbor search", section 4,
without the quantization. Every vector is searched for, so the vectors that visit a list
are compared with it together, by one matrix product.
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
_MOST_LISTS = 1 << 14
_ITERATIONS = 5
# Of the vectors, how many centroids are trained with.
_TRAINED_PER_LIST = 24
_VISITS_AT_ONCE = 1 << 23
_AIM = 0.75

_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.integer]


class InvertedLists:
    """Lists of the vectors that are nearest to each of some centroids.

    A vector stands in one list and visits others: two vectors are compared if they
    stand in one list, or if one visits the list of the other. A vector whose lists hold
    too few others, such as one far from all centroids, is compared with all.

    Attributes:
      visits: How many lists a vector visits besides its own.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        seed: int | None,
        workers: int = 1,
        lists: int | None = None,
    ) -> None:
        """Makes the lists.

        Args:
          embeddings: The vectors.
          seed: Seed of the centroids. None draws a new one.
          workers: How many threads work at the same time.
          lists: The number of lists. None chooses it.
        """
        nodes = len(embeddings)
        random = np.random.default_rng(seed)
        lists = min(lists or int(4 * math.sqrt(nodes)), _MOST_LISTS)
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
        with Progress("Sorting into lists", nodes, "nodes") as progress:
            self._own = _nearest(rows, self._centroids, workers, progress)
        self._members = np.argsort(self._own, kind="stable").astype(np.int32)
        self._sizes = np.bincount(self._own, minlength=lists)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self.visits = 0
        self._visited = np.empty((nodes, 0), np.int16)
        self._compares_all = np.zeros(nodes, np.bool_)

    def tune(self, pairs: Pairs, recall: float, least: int) -> None:
        """Lets each node visit as few lists as it takes to compare a share of pairs.

        Args:
          pairs: Pairs of similar nodes.
          recall: The share of them that is to be compared; 1 visits all lists.
          least: With how many others a node is compared at least.
        """
        visits = 0
        if recall >= 1:
            visits = len(self._centroids) - 1
        elif len(pairs.sources):
            ranks = self.visits_needed(pairs.sources, pairs.targets)
            # A sample errs on either side, so a little more than the share is aimed at.
            aim = 1 - _AIM * (1 - recall)
            last = math.ceil(aim * len(ranks)) - 1
            visits = int(np.partition(ranks, last)[last])
        self.visit(visits, least)

    def visit(self, lists: int, least: int) -> None:
        """Lets each node visit some lists besides its own, the nearest ones.

        Args:
          lists: How many.
          least: With how many others a node is compared at least.
        """
        self.visits = min(lists, len(self._centroids) - 1)
        if self._all:
            return
        self._visited = self._nearest_lists(self.visits)
        others = self._sizes[self._own] - 1
        for column in self._visited.T:
            others += self._sizes[column]
        self._compares_all = others < min(least, len(self._own) - 1)

    def visits_needed(self, sources: _Ints, targets: _Ints) -> _Ints:
        """Tells how many lists besides its own a node visits before a pair is compared.

        Args:
          sources: The first node of each pair.
          targets: The second node of each pair.
        """
        return np.minimum(
            self._rank(sources, self._own[targets]),
            self._rank(targets, self._own[sources]),
        )

    def _rank(self, nodes: _Ints, lists: _Ints) -> _Ints:
        """Tells how many lists are nearer to each node than its own or a given one."""
        ranks = np.empty(len(nodes), np.int64)
        for start in range(0, len(nodes), _ROWS):
            some = slice(start, start + _ROWS)
            products = self._embeddings.unit_rows(nodes[some]) @ self._centroids.T
            given = np.take_along_axis(products, lists[some, np.newaxis], axis=1)
            ranks[some] = (products > given).sum(axis=1)
        return ranks

    def _nearest_lists(self, count: int) -> npt.NDArray[np.int16]:
        """Returns the lists nearest to each node, its own left out."""
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
            with Progress("Choosing lists to visit", nodes, "nodes") as progress:
                starts = range(0, nodes, _ROWS)
                for done in in_order(choose, starts, self._workers):
                    progress.advance(done)
        return result

    @property
    def _all(self) -> bool:
        return self.visits >= len(self._centroids) - 1

    def comparisons(self) -> float:
        """Returns how many pairs are compared."""
        if self._all:
            return len(self._own) * (len(self._own) - 1) / 2
        sizes = self._sizes.astype(np.float64)
        visitors = np.zeros(len(sizes))
        for column in self._visited.T:
            visitors += np.bincount(column, minlength=len(sizes))
        with_all = float(self._compares_all.sum()) * len(self._own)
        return float((sizes * (sizes - 1) / 2 + sizes * visitors).sum()) + with_all

    def searches(self) -> Iterator[Search]:
        """Yields the searches that compare these pairs."""
        if self._all:
            yield Search("Comparing", one_run(len(self._own)))
            return
        ends = np.repeat(self._starts + self._sizes, self._sizes)
        yield Search("Comparing within lists", Order(self._members, ends))
        lists = len(self._sizes)
        parts = -(-self._visited.size // _VISITS_AT_ONCE)
        for part in range(parts):
            first, last = lists * part // parts, lists * (part + 1) // parts
            yield Search(
                f"Comparing between lists, part {part + 1} of {parts}",
                self._visits_of(first, last),
                self._is_new,
            )
        alone = np.flatnonzero(self._compares_all).astype(np.int32)
        if len(alone):
            rest = np.flatnonzero(~self._compares_all).astype(np.int32)
            ends = np.full(len(alone), len(alone))
            yield Search("Comparing the rest", Order(alone, ends), self._is_in_no_list)
            nodes = np.concatenate((alone, rest))
            ends = np.full(len(nodes), len(nodes))
            order = Order(nodes, ends, np.full(len(nodes), len(alone)))
            yield Search("Comparing the rest", order, self._is_in_no_list)

    def _visits_of(self, first: int, last: int) -> Order:
        """Returns an order whose runs are the members of a list and its visitors."""
        nodes, places = np.nonzero((self._visited >= first) & (self._visited < last))
        visited = self._visited[nodes, places]
        order = np.argsort(visited, kind="stable")
        counts = np.bincount(visited - first, minlength=last - first)
        sizes = self._sizes[first:last]
        start, end = self._starts[first], self._starts[first] + sizes.sum()
        # The members come before the visitors, in each run.
        of = np.concatenate(
            (np.repeat(np.arange(last - first), sizes), visited[order] - first)
        )
        joined = np.concatenate(
            (self._members[start:end], nodes[order].astype(np.int32))
        )
        lengths = sizes + counts
        ends = np.cumsum(lengths)
        return Order(
            joined[np.argsort(of, kind="stable")],
            np.repeat(ends, lengths),
            np.repeat(ends - counts, lengths),
        )

    def _is_new(self, members: _Ints, visitors: _Ints) -> npt.NDArray[np.bool_]:
        """Tells of which pairs this list's search is the only one or the first."""
        lists, homes = self._own[members], self._own[visitors]
        back = (self._visited[members] == homes[:, np.newaxis]).any(axis=1)
        return ~back | (lists < homes)

    def compares(self, sources: _Ints, targets: _Ints) -> npt.NDArray[np.bool_]:
        """Tells which pairs are compared.

        Args:
          sources: The first node of each pair.
          targets: The second node of each pair.
        """
        if self._all:
            return np.ones(len(sources), np.bool_)
        alone = self._compares_all[sources] | self._compares_all[targets]
        return alone | ~self._is_in_no_list(sources, targets)

    def _is_in_no_list(self, sources: _Ints, targets: _Ints) -> npt.NDArray[np.bool_]:
        first, second = self._own[sources], self._own[targets]
        return (
            (first != second)
            & (self._visited[sources] != second[:, np.newaxis]).all(axis=1)
            & (self._visited[targets] != first[:, np.newaxis]).all(axis=1)
        )


def _nearest(
    parts: Iterable[_Floats], centroids: _Floats, workers: int, progress: Progress
) -> npt.NDArray[np.int32]:
    """Returns the list of each row of some parts."""

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
    """Returns the centers of a clustering by spherical k-means."""
    centroids = rows[random.permutation(len(rows))[:count]]
    with Progress("Choosing lists", _ITERATIONS * len(rows), "nodes") as progress:
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
