"""The k most similar nodes of each node, kept while pairs come in."""

import numpy as np
import numpy.typing as npt

from nsl.tools.embeddings import Embeddings
from nsl.tools.similarity import Pairs

_COLUMNS_AT_ONCE = 8192


class NearestNeighbors:
    """Keeps for each node the k most similar of the pairs it was shown.

    Of equally similar nodes those with larger ids are kept.

    Attributes:
      bound: float32 [nodes]; a float32 similarity below it cannot be among the
        node's k largest any more, nor reach the threshold.
    """

    def __init__(self, embeddings: Embeddings, k: int, threshold: float) -> None:
        """Starts without pairs.

        Args:
          embeddings: The vectors.
          k: How many neighbors a node keeps.
          threshold: The least similarity of a neighbor.
        """
        self._embeddings = embeddings
        self._k = k
        self._threshold = threshold
        self._id_order = embeddings.id_order()
        self._neighbors = np.full((len(embeddings), k), -1, np.int32)
        self._similarities = np.full((len(embeddings), k), -np.inf)
        self.bound = np.full(len(embeddings), self._with_margin(threshold), np.float32)

    def _with_margin(
        self, similarity: float | npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float32]:
        below = np.asarray(similarity - self._embeddings.error, np.float32)
        return np.nextafter(below, np.float32(-2))

    def add(
        self, sources: npt.NDArray[np.integer], targets: npt.NDArray[np.integer]
    ) -> None:
        """Shows pairs that were not shown before, each in one direction."""
        similarities = self._embeddings.similarities(sources, targets)
        nodes = np.concatenate((sources, targets))
        others = np.concatenate((targets, sources))
        values = np.concatenate((similarities, similarities))
        # Most pairs interest only one of their ends.
        better = values >= np.maximum(self._similarities[nodes, -1], self._threshold)
        nodes, others, values = nodes[better], others[better], values[better]
        if not len(nodes):
            return
        touched = np.unique(nodes)
        kept_row, kept_place = np.nonzero(self._neighbors[touched] >= 0)
        kept = touched[kept_row]
        nodes = np.concatenate((nodes, kept))
        others = np.concatenate((others, self._neighbors[kept, kept_place]))
        values = np.concatenate((values, self._similarities[kept, kept_place]))
        order = np.lexsort((-self._id_order[others], -values, nodes))
        nodes, others, values = nodes[order], others[order], values[order]
        place = np.arange(len(nodes)) - np.searchsorted(nodes, nodes)
        best = place < self._k
        nodes, place = nodes[best], place[best]
        self._neighbors[nodes, place] = others[best]
        self._similarities[nodes, place] = values[best]
        worst = self._similarities[touched, -1]
        full = worst > -np.inf
        self.bound[touched[full]] = self._with_margin(worst[full])

    def pairs(self, mutual: bool) -> Pairs:
        """Returns each node with its neighbors, the most similar first.

        Args:
          mutual: Whether only pairs are wanted in which each has chosen the other.

        Returns:
          The pairs, in the order of the nodes.
        """
        rows, places = np.nonzero(self._neighbors >= 0)
        targets = self._neighbors[rows, places]
        pairs = Pairs(rows, targets, self._similarities[rows, places])
        return mutual_pairs(pairs, len(self._neighbors)) if mutual else pairs


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


def sample_pairs(
    embeddings: Embeddings, size: int, threshold: float, k: int | None
) -> Pairs:
    """Finds all edges that start at a random sample of nodes.

    Args:
      embeddings: The vectors.
      size: The number of nodes in the sample.
      threshold: The least similarity of an edge.
      k: How many neighbors a node keeps, or None for all.

    Returns:
      The edges.
    """
    random = np.random.default_rng(0)
    sample = random.choice(len(embeddings), min(size, len(embeddings)), replace=False)
    rows = embeddings.unit_rows(sample)
    margin = 2 * embeddings.error
    bound = np.full((len(sample), 1), threshold - margin)
    best = np.full((len(sample), k or 0), -np.inf, np.float32)
    all_places, all_targets = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
    for start in range(0, len(embeddings), _COLUMNS_AT_ONCE):
        some = slice(start, start + _COLUMNS_AT_ONCE)
        products = rows @ embeddings.unit_rows(some).T
        own = np.flatnonzero((sample >= start) & (sample < start + products.shape[1]))
        products[own, sample[own] - start] = -np.inf
        if k is not None:
            # What is below the k-th largest so far is not among the k largest of all.
            best = np.concatenate((best, products), axis=1)
            best = np.partition(best, -k, axis=1)[:, -k:]
            bound = np.maximum(bound, best.min(axis=1, keepdims=True) - margin)
        places, targets = np.nonzero(products >= bound)
        all_places.append(places)
        all_targets.append(targets + start)
    places, targets = np.concatenate(all_places), np.concatenate(all_targets)
    similarities = embeddings.similarities(sample[places], targets)
    order = np.lexsort((-similarities, places))
    places, targets, similarities = places[order], targets[order], similarities[order]
    wanted = similarities >= threshold
    if k is not None:
        wanted &= np.arange(len(places)) - np.searchsorted(places, places) < k
    return Pairs(sample[places[wanted]], targets[wanted], similarities[wanted])
