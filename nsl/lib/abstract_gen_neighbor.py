"""Abstract base class of neighbor generators."""

import abc
from typing import Any


class GenNeighbor(abc.ABC):
    """Generates a neighbor of each sample in a batch.

    Subclasses implement `gen_neighbor`.
    """

    @abc.abstractmethod
    def gen_neighbor(self, input_features: Any) -> tuple[Any, Any]:
        """Generates neighbors.

        Args:
          input_features: A structure of tensors of shape [batch, ...].

        Returns:
          The neighbors, in the same structure as `input_features`, and their weights,
          of shape [batch, 1].
        """
