"""Finds similar pairs of nodes: all above a threshold, or the nearest of each node."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nsl.progress import Progress
from nsl.tools import similarity
from nsl.tools.embeddings import Embeddings
from nsl.tools.nearest_neighbors import NearestNeighbors
from nsl.tools.similarity import Candidates, Order, Pairs, Product

_Nodes = npt.NDArray[np.integer]


class Search(NamedTuple):
    """A set of pairs to compare.

    Attributes:
      title: The label of the progress line.
      order: The order whose runs are compared.
      is_new: Returns which pairs are not left to another search; None for all.
    """

    title: str
    order: Order
    is_new: Callable[[_Nodes, _Nodes], npt.NDArray[np.bool_]] | None = None


def _candidates(
    embeddings: Embeddings,
    searches: Iterable[Search],
    product: Product,
    bound: similarity.Bound,
    best: int = 0,
) -> Iterator[Candidates]:
    """Yields candidate pairs, each once."""
    for title, order, is_new in searches:
        total = similarity.num_comparisons(order)
        with Progress(title, total, "pairs") as progress:
            for found in similarity.candidate_pairs(
                embeddings, order, product, bound, progress, best
            ):
                if is_new is None:
                    yield found
                else:
                    yield found.only(is_new(found.sources, found.targets))


def similar_pairs(
    embeddings: Embeddings,
    searches: Iterable[Search],
    product: Product,
    threshold: float,
) -> Iterator[Pairs]:
    """Finds all pairs whose cosine similarity is at least a threshold.

    Args:
      embeddings: The vectors.
      searches: The pairs to compare.
      product: Multiplies two blocks.
      threshold: The smallest similarity, compared in float64.

    Yields:
      Pairs, each once and in one direction.
    """
    bound = float(threshold) - 2 * embeddings.error
    for found in _candidates(embeddings, searches, product, bound):
        sources, targets = found.sources, found.targets
        similarities = embeddings.similarities(sources, targets)
        similar = similarities >= threshold
        yield Pairs(sources[similar], targets[similar], similarities[similar])


def nearest_pairs(
    embeddings: Embeddings,
    searches: Iterable[Search],
    product: Product,
    threshold: float,
    num_neighbors: int,
    nodes: _Nodes | None = None,
) -> Iterator[Pairs]:
    """Finds the nearest neighbors of each node.

    Args:
      embeddings: The vectors.
      searches: The pairs to compare.
      product: Multiplies two blocks.
      threshold: The smallest similarity of a neighbor.
      num_neighbors: The maximum number of neighbors per node.
      nodes: The nodes to find neighbors of; None for all.

    Yields:
      Some nodes and their neighbors, sorted by node, the most similar first.
    """
    k = min(num_neighbors, max(len(embeddings) - 1, 1))
    nearest = NearestNeighbors(embeddings, k, threshold, nodes)
    for found in _candidates(embeddings, searches, product, nearest.bound, best=k):
        nearest.add(found)
    yield from nearest.pairs(product.workers)


def sample_pairs(
    embeddings: Embeddings,
    size: int,
    product: Product,
    threshold: float,
    k: int | None,
) -> Pairs:
    """Finds the edges of a random sample of nodes, comparing them with all nodes.

    Args:
      embeddings: The vectors.
      size: The number of nodes in the sample.
      product: Multiplies two blocks.
      threshold: The smallest similarity of an edge.
      k: The maximum number of neighbors per node, or None for no limit.

    Returns:
      The edges, with the sampled nodes as sources.
    """
    nodes = np.random.default_rng(0).permutation(len(embeddings)).astype(np.int32)
    sample = np.sort(nodes[:size])
    nodes[:size] = sample
    nodes[size:].sort()
    ends = np.full(len(nodes), len(nodes))
    searches = [
        Search("Sampling", Order(sample, ends[: len(sample)] * 0 + len(sample)))
    ]
    searches.append(Search("Sampling", Order(nodes, ends, ends * 0 + len(sample))))
    if k is not None:
        return Pairs.joined(
            nearest_pairs(embeddings, searches, product, threshold, k, sample)
        )
    inner, outer = (
        Pairs.joined(similar_pairs(embeddings, [search], product, threshold))
        for search in searches
    )
    reverse = Pairs(inner.targets, inner.sources, inner.similarities)
    return Pairs.joined([inner, reverse, outer])
