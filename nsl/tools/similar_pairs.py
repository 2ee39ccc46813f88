"""Similar pairs of nodes: all above a threshold, or the nearest of each node."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from nsl.progress import Progress
from nsl.tools import similarity
from nsl.tools.embeddings import Embeddings
from nsl.tools.lsh import Buckets
from nsl.tools.nearest_neighbors import NearestNeighbors
from nsl.tools.similarity import Order, Pairs, Product

_Nodes = np.ndarray[Any, Any]


class Search(NamedTuple):
    """Which pairs are compared.

    Attributes:
      title: What the progress of the search is called.
      order: The order that says which nodes are compared.
      is_new: Tells which pairs no earlier search has compared; None says all.
    """

    title: str
    order: Order
    is_new: Callable[[_Nodes, _Nodes], _Nodes] | None = None


def searches(num_nodes: int, buckets: Buckets | None) -> Iterator[Search]:
    """Yields the searches that find all pairs, or all within buckets.

    Args:
      num_nodes: The number of nodes.
      buckets: Buckets for several rounds, or None to compare every pair.
    """
    if buckets is None:
        yield Search("Comparing", similarity.one_run(num_nodes))
        return
    rounds = len(buckets.codes)
    for number in range(rounds):
        yield Search(
            f"Comparing, round {number + 1} of {rounds}",
            buckets.order(number),
            functools.partial(buckets.is_new, number),
        )


def _candidates(
    embeddings: Embeddings,
    searches: Iterable[Search],
    product: Product,
    bound: similarity.Bound,
    best: int = 0,
) -> Iterator[tuple[_Nodes, _Nodes]]:
    """Yields pairs that may be similar enough, each once."""
    for title, order, is_new in searches:
        total = similarity.num_comparisons(order)
        with Progress(title, total, "pairs") as progress:
            for sources, targets in similarity.candidate_pairs(
                embeddings, order, product, bound, progress, best
            ):
                if is_new is None:
                    yield sources, targets
                else:
                    new = is_new(sources, targets)
                    yield sources[new], targets[new]


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
    for sources, targets in _candidates(embeddings, searches, product, bound):
        similarities = embeddings.similarities(sources, targets)
        similar = similarities >= threshold
        yield Pairs(sources[similar], targets[similar], similarities[similar])


def nearest_pairs(
    embeddings: Embeddings,
    searches: Iterable[Search],
    product: Product,
    threshold: float,
    num_neighbors: int,
    mutual: bool = False,
) -> Pairs:
    """Finds each node's most similar others.

    Args:
      embeddings: The vectors.
      searches: Which pairs are compared.
      product: Multiplies two blocks.
      threshold: The least similarity of a neighbor.
      num_neighbors: How many neighbors a node gets at most.
      mutual: Whether only pairs are wanted in which each has chosen the other.

    Returns:
      Each node with its neighbors, the most similar first.
    """
    k = min(num_neighbors, max(len(embeddings) - 1, 1))
    nearest = NearestNeighbors(embeddings, k, threshold)
    for sources, targets in _candidates(
        embeddings, searches, product, nearest.bound, best=k
    ):
        nearest.add(sources, targets)
    return nearest.pairs(mutual)
