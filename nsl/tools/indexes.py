"""Which pairs of embeddings a graph builder compares: one interface for all indexes."""

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
# Where comparing all pairs is as quick as inverted lists: so few embeddings, or such a
# share of all pairs to compare.
_AS_QUICK_NODES, _AS_QUICK_SHARE = 20_000, 0.6


class Index(Protocol):
    """Chooses the pairs that are compared."""

    def searches(self) -> Iterator[Search]:
        """Yields the searches that compare these pairs, each once."""

    def compares(
        self, sources: npt.NDArray[np.integer], targets: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.bool_]:
        """Tells which pairs are compared.

        Args:
          sources: The first node of each pair.
          targets: The second node of each pair.
        """


class AllPairs:
    """Compares every pair."""

    def __init__(self, nodes: int) -> None:
        """Takes the number of nodes."""
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
    """Makes the index that a config asks for.

    Args:
      config: Which index; and which edges are looked for.
      embeddings: The vectors.
      product: Multiplies two blocks.

    Returns:
      The index, and which share of the edges of a sample of nodes it compares. None
      stands for all edges, or for no edges in the sample.
    """
    nodes = len(embeddings)
    few = nodes < (2 if config.index is SearchIndex.IVF else _AS_QUICK_NODES)
    by_lists = config.index is not SearchIndex.EXACT and not few
    if not by_lists and not config.lsh_splits:
        return AllPairs(nodes), None
    edges = _sample_edges(config, embeddings, product)
    if not by_lists:
        buckets = Buckets.of(
            embeddings, config.lsh_splits, config.lsh_rounds, config.random_seed
        )
        return buckets, _share_compared(buckets, edges)
    lists = InvertedLists(embeddings, config.random_seed, product.workers)
    # One half of the sample chooses how many lists are visited, the other half judges.
    sample = np.unique(edges.sources)
    chooses = np.isin(edges.sources, sample[::2])
    judges = ~chooses if len(sample) > 1 else chooses
    lists.tune(edges.only(chooses), config.recall, config.num_neighbors or 0)
    share = lists.comparisons() / (nodes * (nodes - 1) / 2)
    if config.index is SearchIndex.AUTO and share > _AS_QUICK_SHARE:
        logging.info(
            "Inverted lists would compare %.0f%% of all pairs: comparing all is as "
            "quick.",
            100 * share,
        )
        return AllPairs(nodes), None
    return lists, _share_compared(lists, edges.only(judges))


def _sample_edges(
    config: GraphBuilderConfig, embeddings: Embeddings, product: Product
) -> Pairs:
    """Returns the edges of a sample of nodes, those that no other could stand for.

    Of nodes equally similar to a node, all zero vectors for example, any may be among
    its k nearest.
    """
    threshold, k = config.similarity_threshold, config.num_neighbors
    if k is None:
        return sample_pairs(embeddings, _SAMPLE, product, threshold, None)
    edges = sample_pairs(embeddings, _SAMPLE, product, threshold, k + 1)
    rank = ranks_in_groups(edges.sources)
    next_best = np.full(len(embeddings), -np.inf)
    next_best[edges.sources[rank == k]] = edges.similarities[rank == k]
    return edges.only((rank < k) & (edges.similarities > next_best[edges.sources]))


def _share_compared(index: Index, edges: Pairs) -> float | None:
    if not len(edges.sources):
        return None
    return float(index.compares(edges.sources, edges.targets).mean())
