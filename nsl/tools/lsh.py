"""Locality-sensitive hashing: only vectors in the same bucket are compared.

A random hyperplane rarely separates vectors with a small angle (Charikar, 2002,
"Similarity estimation techniques from rounding algorithms"). The sides of several
hyperplanes form a bucket; rounds with new hyperplanes find pairs that one round misses.
"""

import functools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from nsl.tools.embeddings import Embeddings
from nsl.tools.similar_pairs import Search
from nsl.tools.similarity import Order

_BLOCK_ROWS = 8192
_BITS = 31


class Buckets:
    """The hash bucket of each node in each round.

    Attributes:
      codes: The bucket of each node, int32 of shape [rounds, nodes].
    """

    def __init__(self, codes: npt.NDArray[np.int32]) -> None:
        """Initializes the index with known buckets.

        Args:
          codes: The bucket of each node, int32 of shape [rounds, nodes].
        """
        self.codes = codes

    @classmethod
    def of(
        cls, embeddings: Embeddings, splits: int, rounds: int, seed: int | None
    ) -> "Buckets":
        """Hashes vectors with random hyperplanes.

        Args:
          embeddings: The vectors.
          splits: The number of hyperplanes per round.
          rounds: The number of rounds.
          seed: The seed of the hyperplanes; None draws one.
        """
        dimensions = embeddings.vectors.shape[1]
        buckets = cls(np.empty((rounds, len(embeddings)), np.int32))
        for codes, planes in zip(
            buckets.codes, hyperplanes(splits, rounds, dimensions, seed), strict=True
        ):
            codes[:] = numbered(sides(embeddings.vectors, planes))
        return buckets

    def order(self, number: int) -> Order:
        """Returns an order in which each bucket of a round is a run."""
        codes = self.codes[number]
        nodes = np.argsort(codes, kind="stable")
        ordered = codes[nodes]
        return Order(nodes, np.searchsorted(ordered, ordered, side="right"))

    def searches(self) -> Iterator[Search]:
        """Yields one search per round, which compares the pairs within buckets."""
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
        """See `Index`: pairs that share a bucket in some round."""
        return ~self.is_new(len(self.codes), sources, targets)

    def is_new(
        self,
        number: int,
        sources: npt.NDArray[np.integer],
        targets: npt.NDArray[np.integer],
    ) -> npt.NDArray[np.bool_]:
        """Returns whether each pair shares no bucket in any earlier round.

        Args:
          number: The number of the round.
          sources: The first node of each pair.
          targets: The second node of each pair.

        Returns:
          Booleans of shape [pairs].
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
      splits: The number of hyperplanes per round.
      rounds: The number of rounds.
      dimensions: The number of dimensions of the vectors.
      seed: The seed, which gives the same hyperplanes as in NSL 1.4; None draws one.

    Yields:
      The normal vectors of a round's hyperplanes, of shape [splits, dimensions].
    """
    # The generator of NSL 1.4, so that a seed gives the same graph.
    random = np.random.RandomState(seed)
    for _ in range(rounds):
        yield random.rand(splits, dimensions) * 2 - 1


def sides(
    vectors: npt.NDArray[np.float32], planes: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Encodes on which sides of hyperplanes vectors are.

    Args:
      vectors: The vectors, of shape [nodes, dimensions].
      planes: The normal vectors of the hyperplanes, of shape [planes, dimensions].

    Returns:
      Bit masks of 31 hyperplanes each, of shape [nodes, ceil(planes / 31)].
    """
    parts = range(0, len(planes), _BITS)
    codes = np.empty((len(vectors), len(parts)), np.int64)
    for row in range(0, len(vectors), _BLOCK_ROWS):
        rows = vectors[row : row + _BLOCK_ROWS].astype(np.float64)
        for part, start in enumerate(parts):
            some = planes[start : start + _BITS]
            powers = 1 << np.arange(len(some))
            codes[row : row + _BLOCK_ROWS, part] = (rows @ some.T > 0) @ powers
    return codes


def numbered(codes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Numbers the distinct rows of `sides`, and returns the number of each row.

    Args:
      codes: Bit masks, of shape [nodes, masks].
    """
    result = np.zeros(len(codes), np.int64)
    for part in codes.T:
        result = np.unique(result << _BITS | part, return_inverse=True)[1]
    return result
