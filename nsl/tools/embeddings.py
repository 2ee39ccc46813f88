"""Embeddings and their cosine similarities."""

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_MIN_SQUARED_NORM = 1e-12  # a vector is divided by max(its norm, 1e-6)
_LARGE_NORM = 1e30
_ROWS_AT_ONCE = 4096


class Embeddings:
    """Vectors with ids, and their similarities.

    Attributes:
      ids: The id of each node.
      vectors: float32 [nodes, dimensions], as they were given.
      labels: A number for each node, equal for equal labels and -1 for none; or None
        if no labels were asked for.
      duplicates: How many examples were left out because their ids stood in an
        earlier input.
    """

    def __init__(
        self,
        ids: Sequence[bytes],
        vectors: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int32] | None = None,
        duplicates: int = 0,
    ) -> None:
        """Takes vectors whose values are finite.

        Args:
          ids: The id of each node.
          vectors: float32 [nodes, dimensions]. Rows of enormous norm are scaled down
            by a power of two, which changes no similarity: in place, or in a copy if
            the array is read-only.
          labels: A number for each node.
          duplicates: How many examples were left out.
        """
        self.ids = ids
        self.vectors = vectors
        self.labels = labels
        self.duplicates = duplicates
        self._squared_norms = np.empty(len(vectors))
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            block = vectors[start : start + _ROWS_AT_ONCE]
            squared = _dot_rows(block, block)
            large = squared > _LARGE_NORM**2
            if large.any():
                if not vectors.flags.writeable:
                    vectors = self.vectors = vectors.copy()
                    block = vectors[start : start + _ROWS_AT_ONCE]
                block[large] *= np.float32(2.0**-60)
                squared[large] *= 2.0**-120
            self._squared_norms[start : start + len(block)] = squared
        np.maximum(self._squared_norms, _MIN_SQUARED_NORM, out=self._squared_norms)
        self._scales = (1 / np.sqrt(self._squared_norms)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def error(self) -> float:
        """A bound on how far a float32 product of unit rows is from the similarity."""
        # Higham, Accuracy and Stability of Numerical Algorithms, section 3.1: d u for
        # the sum, and a few u for the rounding of the norms and of both factors.
        return (self.vectors.shape[1] + 8) * 2.0**-24

    def unit_rows(
        self, nodes: slice | npt.NDArray[np.integer]
    ) -> npt.NDArray[np.float32]:
        """Returns the vectors of some nodes, divided by their norms, as float32."""
        return self.vectors[nodes] * self._scales[nodes, np.newaxis]

    def similarities(
        self, sources: npt.NDArray[np.integer], targets: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.float64]:
        """Returns cosine similarities as float64 arithmetic gives them.

        Args:
          sources: The first node of each pair.
          targets: The second node of each pair.

        Returns:
          The similarity of each pair. Equal vectors have exactly 1.
        """
        result = np.empty(len(sources))
        for start in range(0, len(sources), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            result[rows] = _dot_rows(
                self.vectors[sources[rows]], self.vectors[targets[rows]]
            ) / np.sqrt(
                self._squared_norms[sources[rows]] * self._squared_norms[targets[rows]]
            )
        return result

    @functools.cached_property
    def id_order(self) -> npt.NDArray[np.int32]:
        """The place of each node among all, sorted by id."""
        order = np.array(sorted(range(len(self)), key=self.ids.__getitem__), np.int32)
        place = np.empty_like(order)
        place[order] = np.arange(len(order), dtype=np.int32)
        return place


def _dot_rows(
    a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    products: npt.NDArray[np.float64] = np.einsum(
        "ij,ij->i", a, b, dtype=np.float64, casting="same_kind"
    )
    return products
