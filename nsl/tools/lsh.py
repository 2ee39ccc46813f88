"""Locality-sensitive hashing: comparing only vectors on the same sides of hyperplanes.

Vectors of a small angle are rarely separated by a random hyperplane (Charikar, 2002,
"Similarity estimation techniques from rounding algorithms"). Several hyperplanes make
buckets; several rounds with new hyperplanes find most of the pairs that one misses.
"""

import numpy as np
import numpy.typing as npt

from nsl.tools.embeddings import Embeddings
from nsl.tools.similarity import Order, Pairs

_ROWS = 8192
_BITS = 31


class Buckets:
    """The bucket of each node in each round.

    Attributes:
      codes: int32 [rounds, nodes]; in a round, nodes of one bucket have one code.
    """

    def __init__(
        self, embeddings: Embeddings, splits: int, rounds: int, seed: int | None
    ) -> None:
        """Draws the hyperplanes and hashes all vectors.

        Args:
          embeddings: The vectors.
          splits: Hyperplanes a round.
          rounds: The number of rounds.
          seed: Seed of the hyperplanes, which are those of NSL 1.4 for this seed.
            None draws a new one.
        """
        # NSL 1.4 drew from this generator, so a seed gives the same graph as there.
        random = np.random.RandomState(seed)
        self.codes = np.empty((rounds, len(embeddings)), np.int32)
        for codes in self.codes:
            planes = random.rand(splits, embeddings.vectors.shape[1]) * 2 - 1
            codes[:] = _bucket_codes(embeddings, planes)

    def order(self, number: int) -> Order:
        """Returns the order of a round, in which each bucket is a run."""
        codes = self.codes[number]
        nodes = np.argsort(codes, kind="stable")
        ordered = codes[nodes]
        return Order(nodes, np.searchsorted(ordered, ordered, side="right"))

    def share_found(self, pairs: Pairs) -> float | None:
        """Returns the share of pairs that stand in one bucket in some round."""
        if not len(pairs.sources):
            return None
        missed = self.is_new(len(self.codes), pairs.sources, pairs.targets)
        return float(1 - missed.mean())

    def is_new(
        self,
        number: int,
        sources: npt.NDArray[np.integer],
        targets: npt.NDArray[np.integer],
    ) -> npt.NDArray[np.bool_]:
        """Tells which pairs no round before had in one bucket.

        Args:
          number: The round that compares the pairs.
          sources: The first node of each pair.
          targets: The second node of each pair.

        Returns:
          Whether each pair is compared for the first time.
        """
        new = np.ones(len(sources), np.bool_)
        for codes in self.codes[:number]:
            new &= codes[sources] != codes[targets]
        return new


def _bucket_codes(
    embeddings: Embeddings, planes: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    result = np.zeros(len(embeddings), np.int64)
    for start in range(0, len(planes), _BITS):
        some = planes[start : start + _BITS]
        powers = 1 << np.arange(len(some))
        codes = np.empty(len(embeddings), np.int64)
        for row in range(0, len(embeddings), _ROWS):
            rows = embeddings.vectors[row : row + _ROWS].astype(np.float64)
            codes[row : row + _ROWS] = (rows @ some.T > 0) @ powers
        # Numbering the distinct codes keeps them small, whatever the number of planes.
        result = np.unique(result << _BITS | codes, return_inverse=True)[1]
    return result
