"""Packs an example with its neighbors."""

from collections.abc import Iterable, Iterator, Sequence

from nsl.tools import example_wire

_WEIGHT = b"weight"


class Packer:
    """Copies the features of neighbors into an example, under new names.

    The features of the i-th neighbor are named `NL_nbr_<i>_<name>`, and the weight of
    its edge `NL_nbr_<i>_weight`. `NL_num_nbrs` is the number of neighbors.

    Attributes:
      found: The features to copy that at least one neighbor had.
      packed_neighbors: Whether any example had a neighbor.
    """

    def __init__(self, neighbor_features: Iterable[str] | None = None) -> None:
        """Initializes the packer.

        Args:
          neighbor_features: The features to copy, or None for all.
        """
        self._wanted: set[bytes] | None = None
        if neighbor_features is not None:
            self._wanted = {name.encode() for name in neighbor_features}
        self.found: set[bytes] = set()
        self.packed_neighbors = False

    def pack(
        self, example: bytes, neighbors: Sequence[bytes], weights: Sequence[float]
    ) -> bytes:
        """Packs an example with its neighbors.

        Args:
          example: The serialized example.
          neighbors: The serialized neighbors.
          weights: The weights of their edges.

        Returns:
          The serialized example with the features of its neighbors.

        Raises:
          ValueError: If a neighbor has a feature named `weight`.
        """
        return example_wire.add_entries(example, self._entries(neighbors, weights))

    def _entries(
        self, neighbors: Sequence[bytes], weights: Sequence[float]
    ) -> Iterator[bytes]:
        """Yields the parts of the entries to add."""
        head, wanted = example_wire.entry_head, self._wanted
        yield example_wire.entry(
            example_wire.NUM_NEIGHBORS, example_wire.int64_value(len(neighbors))
        )
        for number, neighbor in enumerate(neighbors):
            prefix = b"NL_nbr_%d_" % number
            weight = example_wire.float_value(weights[number])
            yield head(prefix, _WEIGHT, len(weight))
            yield weight
            for name, rest in example_wire.split_features(neighbor):
                if wanted is not None:
                    if name not in wanted:
                        continue
                    self.found.add(name)
                if name == _WEIGHT:
                    raise ValueError(
                        "A neighbor has a feature named 'weight', whose copy would "
                        f"overwrite the edge weight {prefix.decode()}weight. Rename "
                        "the feature, or list the features to copy in "
                        "neighbor_features."
                    )
                yield head(prefix, name, len(rest))
                yield rest
        self.packed_neighbors = self.packed_neighbors or bool(neighbors)

    def trim(self, neighbor: bytes) -> bytes:
        """Drops the features of a neighbor that are not copied."""
        if self._wanted is None:
            return neighbor
        return example_wire.add_entries(
            b"",
            (
                example_wire.entry(name, rest)
                for name, rest in example_wire.split_features(neighbor)
                if name in self._wanted
            ),
        )

    def check_features_found(self) -> None:
        """Raises ValueError if no neighbor had one of the features to copy."""
        if self._wanted is None or not self.packed_neighbors:
            return
        missing = sorted(name.decode() for name in self._wanted - self.found)
        if missing:
            raise ValueError(
                f"neighbor_features has {missing}, but no neighbor has such a feature."
            )
