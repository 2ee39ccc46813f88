"""Embeddings and their cosine similarities."""

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_MIN_SQUARED_NORM = 1e-12  # a vector is divided by max(its norm, 1e-6)
_LARGE_NORM = 1e30
_BLOCK_ROWS = 1024


class Embeddings:
    """Embeddings of nodes, and their cosine similarities.

    Attributes:
      ids: The ids of the nodes.
      vectors: The embeddings, float32 of shape [nodes, dimensions].
      labels: An integer for each node, equal for equal labels and -1 for none; None if
        no labels were requested.
      duplicates: The number of examples that were skipped because an earlier input had
        their ids.
    """

    def __init__(
        self,
        ids: Sequence[bytes],
        vectors: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int32] | None = None,
        duplicates: int = 0,
    ) -> None:
        """Computes the norms.

        Args:
          ids: The ids of the nodes.
          vectors: Finite float32 values of shape [nodes, dimensions]. Rows with norms
            above 1e30 are scaled down by a power of two, which changes no similarity:
            in place, or in a copy if the array is read-only.
          labels: An integer for each node; see the attribute.
          duplicates: The number of examples that were skipped.
        """
        self.ids = ids
        self.vectors = vectors
        self.labels = labels
        self.duplicates = duplicates
        self._squared_norms = np.empty(len(vectors))
        for start in range(0, len(vectors), _BLOCK_ROWS):
            block = vectors[start : start + _BLOCK_ROWS]
            squared = _dot_rows(block, block)
            large = squared > _LARGE_NORM**2
            if large.any():
                if not vectors.flags.writeable:
                    vectors = self.vectors = vectors.copy()
                    block = vectors[start : start + _BLOCK_ROWS]
                block[large] *= np.float32(2.0**-60)
                squared[large] *= 2.0**-120
            self._squared_norms[start : start + len(block)] = squared
        np.maximum(self._squared_norms, _MIN_SQUARED_NORM, out=self._squared_norms)
        self._scales = (1 / np.sqrt(self._squared_norms)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def error(self) -> float:
        """A bound on the error of a similarity computed from unit rows in float32."""
        # Higham, Accuracy and Stability of Numerical Algorithms, section 3.1: d u for
        # the sum, and a few u for rounding the norms and both factors.
        return (self.vectors.shape[1] + 8) * 2.0**-24

    def unit_rows(
        self, nodes: slice | npt.NDArray[np.integer]
    ) -> npt.NDArray[np.float32]:
        """Returns the normalized vectors of nodes, float32."""
        scales = self._scales[nodes, np.newaxis]
        if isinstance(nodes, slice):
            return self.vectors[nodes] * scales
        rows = self.vectors.take(nodes, axis=0)
        rows *= scales
        return rows

    def similarities(
        self, sources: npt.NDArray[np.integer], targets: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.float64]:
        """Computes cosine similarities in float64.

        Args:
          sources: The first node of each pair.
          targets: The second node of each pair.

        Returns:
          The similarity of each pair; exactly 1 for equal vectors.
        """
        result = np.empty(len(sources))
        for start in range(0, len(sources), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            result[rows] = _dot_rows(
                self.vectors[sources[rows]], self.vectors[targets[rows]]
            ) / np.sqrt(
                self._squared_norms[sources[rows]] * self._squared_norms[targets[rows]]
            )
        return result

    @functools.cached_property
    def id_ranks(self) -> npt.NDArray[np.int32]:
        """The rank of each node's id in ascending order, int32 of shape [nodes]."""
        order = np.array(sorted(range(len(self)), key=self.ids.__getitem__), np.int32)
        ranks = np.empty_like(order)
        ranks[order] = np.arange(len(order), dtype=np.int32)
        return ranks


def _dot_rows(
    a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    products: npt.NDArray[np.float64] = np.einsum(
        "ij,ij->i", a, b, dtype=np.float64, casting="same_kind"
    )
    return products
