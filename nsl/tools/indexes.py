"""Search indexes: the pairs of embeddings that the graph builder compares."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
from absl import logging

from nsl.configs import GraphBuilderConfig, SearchIndex
from nsl.ranks import ranks_in_groups
from nsl.tools.embeddings import Embeddings
from nsl.tools.inverted_lists import InvertedLists
from nsl.tools.lsh import Buckets
from nsl.tools.similar_pairs import Search, sample_pairs
from nsl.tools.similarity import Pairs, Product, one_run

_SAMPLE = 1000
# Exact search is as fast as inverted lists with fewer embeddings than this, or if the
# lists compare more than this fraction of all pairs.
_EXACT_NODES, _EXACT_FRACTION = 20_000, 0.6


class Index(Protocol):
    """Determines which pairs are compared."""

    def searches(self) -> Iterator[Search]:
        """Yields searches that together compare each of these pairs exactly once."""

    def compares(
        self, sources: npt.NDArray[np.integer], targets: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.bool_]:
        """Returns whether each pair is compared, of shape [pairs].

        Args:
          sources: The first node of each pair.
          targets: The second node of each pair.
        """


class AllPairs:
    """Compares every pair."""

    def __init__(self, nodes: int) -> None:
        """Initializes the index with the number of nodes."""
        self._nodes = nodes

    def searches(self) -> Iterator[Search]:
        """See `Index`."""
        yield Search("Comparing", one_run(self._nodes))

    def compares(
        self, sources: npt.NDArray[np.integer], targets: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.bool_]:
        """See `Index`."""
        return np.ones(len(sources), np.bool_)


def make_index(
    config: GraphBuilderConfig, embeddings: Embeddings, product: Product
) -> tuple[Index, float | None]:
    """Makes the index that a config selects.

    Args:
      config: The index to use, and the definition of an edge.
      embeddings: The embeddings.
      product: Multiplies two blocks.

    Returns:
      The index, and its recall on the edges of a sample of nodes; None if it compares
      all pairs, or the sample has no edges.
    """
    nodes = len(embeddings)
    few = nodes < (2 if config.index is SearchIndex.IVF else _EXACT_NODES)
    by_lists = config.index is not SearchIndex.EXACT and not few
    if not by_lists and not config.lsh_splits:
        return AllPairs(nodes), None
    edges = _sample_edges(config, embeddings, product)
    if not by_lists:
        buckets = Buckets.of(
            embeddings, config.lsh_splits, config.lsh_rounds, config.random_seed
        )
        return buckets, _recall(buckets, edges)
    lists = InvertedLists(embeddings, config.random_seed, product.workers)
    # One half of the sample tunes the number of probes, the other measures the recall.
    sample = np.unique(edges.sources)
    is_tuning = np.isin(edges.sources, sample[::2])
    is_test = ~is_tuning if len(sample) > 1 else is_tuning
    lists.tune(edges.only(is_tuning), config.recall, config.num_neighbors or 0)
    share = lists.comparisons() / (nodes * (nodes - 1) / 2)
    if config.index is SearchIndex.AUTO and share > _EXACT_FRACTION:
        logging.info(
            "Inverted lists would compare %.0f%% of all pairs; using exact search, "
            "which is as fast.",
            100 * share,
        )
        return AllPairs(nodes), None
    return lists, _recall(lists, edges.only(is_test))


def _sample_edges(
    config: GraphBuilderConfig, embeddings: Embeddings, product: Product
) -> Pairs:
    """Returns the edges of a sample of nodes, without ties at the k-th neighbor.

    Of equally similar nodes, such as zero vectors, any may be among the k nearest.
    """
    threshold, k = config.similarity_threshold, config.num_neighbors
    if k is None:
        return sample_pairs(embeddings, _SAMPLE, product, threshold, None)
    edges = sample_pairs(embeddings, _SAMPLE, product, threshold, k + 1)
    rank = ranks_in_groups(edges.sources)
    next_best = np.full(len(embeddings), -np.inf)
    next_best[edges.sources[rank == k]] = edges.similarities[rank == k]
    return edges.only((rank < k) & (edges.similarities > next_best[edges.sources]))


def _recall(index: Index, edges: Pairs) -> float | None:
    if not len(edges.sources):
        return None
    return float(index.compares(edges.sources, edges.targets).mean())
