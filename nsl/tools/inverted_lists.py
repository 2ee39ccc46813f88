"""Approximate search: vectors in lists around centroids, of which a few are searched.

Jégou et al. (2011), "Product quantization for nearest neighbor search", section 4,
without the quantization; faiss does the work.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from nsl.progress import Progress
from nsl.tools.embeddings import Embeddings
from nsl.tools.nearest_neighbors import mutual_pairs
from nsl.tools.similarity import Pairs

_ROWS = 1 << 14
# Of the vectors, how many centroids are trained with; and how many times.
_TRAINED_PER_LIST = 64
_ITERATIONS = 8
_MOST_LISTS = 4096

_Nodes = npt.NDArray[np.integer]


class InvertedLists:
    """Lists of the vectors that are nearest to each of some centroids.

    Args:
      embeddings: The vectors. Their unit rows are copied.
      seed: Seed of the centroids. None draws a new one.

    Raises:
      ImportError: If faiss is missing.
    """

    def __init__(self, embeddings: Embeddings, seed: int | None) -> None:
        faiss = import_faiss()
        nodes, dimensions = embeddings.vectors.shape
        random = np.random.default_rng(seed)
        lists = min(max(1, int(2 * math.sqrt(nodes))), _MOST_LISTS)
        sample = random.permutation(nodes)[: lists * _TRAINED_PER_LIST]
        lists = min(lists, max(1, len(sample) // 2))
        self._embeddings, self._id_order = embeddings, embeddings.id_order()
        index = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(dimensions),
            dimensions,
            lists,
            faiss.METRIC_INNER_PRODUCT,
        )
        index.cp.niter = _ITERATIONS
        index.cp.seed = int(random.integers(1 << 30))
        index.cp.min_points_per_centroid = 1
        index.cp.spherical = True
        index.train(embeddings.unit_rows(np.sort(sample)))
        for rows in _blocks(nodes):
            index.add(embeddings.unit_rows(rows))
        self._index = index

    @property
    def share(self) -> float:
        """Which share of the lists is searched."""
        return float(self._index.nprobe / self._index.nlist)

    def tune(self, expected: Pairs, recall: float, k: int | None) -> float | None:
        """Searches as few lists as find a share of known edges.

        Args:
          expected: All edges of a sample of nodes, those of a node together.
          recall: The share; with 1 all lists are searched.
          k: How many neighbors a node keeps, or None for all.

        Returns:
          The share that is found of the second half of the sample, the first half
          having chosen; None without edges.
        """
        nodes = np.unique(expected.sources)
        if not len(nodes):
            return None
        halves = nodes[::2], nodes[1::2] if len(nodes) > 1 else nodes
        self._index.nprobe = 1 if recall < 1 else self._index.nlist
        while self._share_found(halves[0], expected, k) < recall:
            if self._index.nprobe >= self._index.nlist:
                break
            more = max(self._index.nprobe + 1, int(1.5 * self._index.nprobe))
            self._index.nprobe = min(more, self._index.nlist)
        return self._share_found(halves[1], expected, k)

    def pairs(
        self, threshold: float, k: int | None, nodes: _Nodes | None = None
    ) -> Iterator[Pairs]:
        """Finds similar vectors.

        Args:
          threshold: The least similarity, as float64 arithmetic decides it.
          k: How many of the most similar are wanted of each node, or None for all.
          nodes: The nodes to search for; None for all.

        Yields:
          Pairs of a node and a similar one, the nodes in order, the most similar first.
        """
        embeddings, id_order = self._embeddings, self._id_order
        count = len(embeddings) if nodes is None else len(nodes)
        with Progress("Searching", count, "nodes") as progress:
            for some in _blocks(count):
                rows = np.arange(some.start, some.stop)
                own = rows if nodes is None else nodes[rows]
                sources, targets = self._candidates(own, threshold, k)
                other = (targets >= 0) & (sources != targets)
                sources, targets = sources[other], targets[other]
                similarities = embeddings.similarities(sources, targets)
                order = np.lexsort((-id_order[targets], -similarities, sources))
                sources, targets = sources[order], targets[order]
                similarities = similarities[order]
                wanted = similarities >= threshold
                if k is not None:
                    first = np.searchsorted(sources, sources)
                    wanted &= np.arange(len(sources)) - first < k
                yield Pairs(sources[wanted], targets[wanted], similarities[wanted])
                progress.advance(len(rows))

    def nearest_pairs(self, threshold: float, k: int, mutual: bool = False) -> Pairs:
        """Finds each node's most similar others.

        Args:
          threshold: The least similarity of a neighbor.
          k: How many neighbors a node gets at most.
          mutual: Whether only pairs are wanted in which each has chosen the other.

        Returns:
          Each node with its neighbors, the most similar first.
        """
        parts = map(np.concatenate, zip(*self.pairs(threshold, k), strict=True))
        pairs = Pairs(*parts)
        return mutual_pairs(pairs, len(self._embeddings)) if mutual else pairs

    def pairs_once(self, threshold: float) -> Pairs:
        """Finds all similar pairs, each once and in one direction.

        Args:
          threshold: The least similarity.

        Returns:
          Pairs that the search for either of both found.
        """
        count, codes = len(self._embeddings), [np.empty(0, np.int64)]
        for sources, targets, _ in self.pairs(threshold, None):
            first, second = np.minimum(sources, targets), np.maximum(sources, targets)
            codes.append(np.unique(first.astype(np.int64) * count + second))
        sources, targets = np.divmod(np.unique(np.concatenate(codes)), count)
        similarities = self._embeddings.similarities(sources, targets)
        return Pairs(sources, targets, similarities)

    def _candidates(
        self, nodes: _Nodes, threshold: float, k: int | None
    ) -> tuple[_Nodes, _Nodes]:
        rows = self._embeddings.unit_rows(nodes)
        if k is not None:
            _, targets = self._index.search(rows, k + 1)
            return np.repeat(nodes, k + 1), targets.ravel()
        bound = threshold - 2 * self._embeddings.error
        starts, _, targets = self._index.range_search(rows, bound)
        return np.repeat(nodes, np.diff(starts.astype(np.int64))), targets

    def _share_found(self, nodes: _Nodes, expected: Pairs, k: int | None) -> float:
        """Returns the share of edges found; equally similar ones are as good."""
        of_nodes = np.isin(expected.sources, nodes)
        sources = expected.sources[of_nodes]
        similarities = expected.similarities[of_nodes]
        if not len(sources):
            return 1.0
        least = np.full(len(self._embeddings), np.inf)
        np.minimum.at(least, sources, similarities)
        found = 0
        for pairs in self.pairs(float(similarities.min()), k, np.sort(nodes)):
            found += int(np.sum(pairs.similarities >= least[pairs.sources]))
        return min(found / len(sources), 1.0)


def import_faiss() -> Any:
    """Returns the module faiss.

    Raises:
      ImportError: If it is missing; says how to get it.
    """
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "index='ivf' searches with faiss, which is not installed: "
            "pip install 'nsl[ann]'. Without it, index='exact' compares all pairs."
        ) from error
    return faiss


def _blocks(nodes: int) -> Iterator[slice]:
    for start in range(0, nodes, _ROWS):
        yield slice(start, min(start + _ROWS, nodes))
