"""Similar pairs of nodes: all above a threshold, or the nearest of each node."""

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
    """Which pairs are compared.

    Attributes:
      title: What the progress of the search is called.
      order: The order that says which nodes are compared.
      is_new: Tells which pairs no other search compares; None says all.
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
    """Yields pairs that may be similar enough, each once."""
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
      searches: Which pairs are compared.
      product: Multiplies two blocks.
      threshold: The least similarity, as float64 arithmetic decides it.

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
) -> Pairs:
    """Finds each node's most similar others.

    Args:
      embeddings: The vectors.
      searches: Which pairs are compared.
      product: Multiplies two blocks.
      threshold: The least similarity of a neighbor.
      num_neighbors: How many neighbors a node gets at most.
      nodes: The nodes whose neighbors are wanted. None wants those of all.

    Returns:
      Each node with its neighbors, the most similar first.
    """
    k = min(num_neighbors, max(len(embeddings) - 1, 1))
    nearest = NearestNeighbors(embeddings, k, threshold, nodes)
    for found in _candidates(embeddings, searches, product, nearest.bound, best=k):
        nearest.add(found)
    return nearest.pairs(product.workers)


def sample_pairs(
    embeddings: Embeddings,
    size: int,
    product: Product,
    threshold: float,
    k: int | None,
) -> Pairs:
    """Finds all edges that start at a random sample of nodes, by comparing it to all.

    Args:
      embeddings: The vectors.
      size: The number of nodes in the sample.
      product: Multiplies two blocks.
      threshold: The least similarity of an edge.
      k: How many neighbors a node keeps, or None for all.

    Returns:
      The edges.
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
        return nearest_pairs(embeddings, searches, product, threshold, k, sample)
    inner, outer = (
        list(similar_pairs(embeddings, [search], product, threshold))
        for search in searches
    )
    reverse = [Pairs(targets, sources, values) for sources, targets, values in inner]
    none = Pairs(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0))
    parts = [none, *inner, *reverse, *outer]
    return Pairs(*map(np.concatenate, zip(*parts, strict=True)))
