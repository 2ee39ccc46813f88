"""Locality-sensitive hashing: comparing only vectors on the same sides of hyperplanes.

Vectors of a small angle are rarely separated by a random hyperplane (Charikar, 2002,
"Similarity estimation techniques from rounding algorithms"). Several hyperplanes make
buckets; several rounds with new hyperplanes find most of the pairs that one misses.
"""

import functools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from nsl.tools.embeddings import Embeddings
from nsl.tools.similar_pairs import Search
from nsl.tools.similarity import Order

_ROWS = 8192
_BITS = 31


class Buckets:
    """The bucket of each node in each round.

    Attributes:
      codes: int32 [rounds, nodes]; in a round, nodes of one bucket have one code.
    """

    def __init__(self, codes: npt.NDArray[np.int32]) -> None:
        """Takes codes that are known.

        Args:
          codes: int32 [rounds, nodes].
        """
        self.codes = codes

    @classmethod
    def of(
        cls, embeddings: Embeddings, splits: int, rounds: int, seed: int | None
    ) -> "Buckets":
        """Draws the hyperplanes and hashes all vectors.

        Args:
          embeddings: The vectors.
          splits: Hyperplanes a round.
          rounds: The number of rounds.
          seed: Seed of the hyperplanes. None draws a new one.
        """
        dimensions = embeddings.vectors.shape[1]
        buckets = cls(np.empty((rounds, len(embeddings)), np.int32))
        for codes, planes in zip(
            buckets.codes, hyperplanes(splits, rounds, dimensions, seed), strict=True
        ):
            codes[:] = numbered(sides(embeddings.vectors, planes))
        return buckets

    def order(self, number: int) -> Order:
        """Returns the order of a round, in which each bucket is a run."""
        codes = self.codes[number]
        nodes = np.argsort(codes, kind="stable")
        ordered = codes[nodes]
        return Order(nodes, np.searchsorted(ordered, ordered, side="right"))

    def searches(self) -> Iterator[Search]:
        """Yields the searches that compare all pairs within buckets, one a round."""
        rounds = len(self.codes)
        for number in range(rounds):
            yield Search(
                f"Comparing, round {number + 1} of {rounds}",
                self.order(number),
                functools.partial(self.is_new, number),
            )

    def compares(
        self, sources: npt.NDArray[np.integer], targets: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.bool_]:
        """Tells which pairs stand in one bucket in some round.

        Args:
          sources: The first node of each pair.
          targets: The second node of each pair.
        """
        return ~self.is_new(len(self.codes), sources, targets)

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


def hyperplanes(
    splits: int, rounds: int, dimensions: int, seed: int | None
) -> Iterator[npt.NDArray[np.float64]]:
    """Draws the hyperplanes of each round.

    Args:
      splits: Hyperplanes a round.
      rounds: The number of rounds.
      dimensions: The dimensions of the vectors.
      seed: Seed of the hyperplanes, which are those of NSL 1.4 for this seed. None
        draws a new one.

    Yields:
      The normal vectors of a round's hyperplanes, [splits, dimensions].
    """
    # NSL 1.4 drew from this generator, so a seed gives the same graph as there.
    random = np.random.RandomState(seed)
    for _ in range(rounds):
        yield random.rand(splits, dimensions) * 2 - 1


def sides(
    vectors: npt.NDArray[np.float32], planes: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Tells on which side of some hyperplanes vectors are.

    Args:
      vectors: [nodes, dimensions].
      planes: The normal vectors of the hyperplanes, [planes, dimensions].

    Returns:
      One or more codes for each vector, [nodes, codes], of 31 hyperplanes each.
      Vectors with equal codes are on the same sides of all.
    """
    parts = range(0, len(planes), _BITS)
    codes = np.empty((len(vectors), len(parts)), np.int64)
    for row in range(0, len(vectors), _ROWS):
        rows = vectors[row : row + _ROWS].astype(np.float64)
        for part, start in enumerate(parts):
            some = planes[start : start + _BITS]
            powers = 1 << np.arange(len(some))
            codes[row : row + _ROWS, part] = (rows @ some.T > 0) @ powers
    return codes


def numbered(codes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Returns a small number for each row of `sides`, equal for equal rows.

    Args:
      codes: [nodes, codes].
    """
    result = np.zeros(len(codes), np.int64)
    for part in codes.T:
        result = np.unique(result << _BITS | part, return_inverse=True)[1]
    return result
