"""A combiner that keeps the heaviest edges of each source."""

from collections.abc import Iterable

import apache_beam as beam

from nsl.tools.heaviest_edges import heaviest_targets

# Selecting has a fixed cost, so it waits until this many surplus edges accumulate.
_SURPLUS = 64


class CombineHeaviest(beam.CombineFn):
    """Keeps the heaviest of the edges (target, weight) of a source.

    Selects edges like `nsl.tools.heaviest_edges`. With a limit, the size of an
    accumulator is bounded regardless of the number of edges.
    """

    def __init__(self, limit: int | None) -> None:
        """Initializes the combiner.

        Args:
          limit: The maximum number of edges per source, or None for no limit.
        """
        self._limit = limit

    def create_accumulator(self) -> dict[bytes, float]:
        """Returns an empty dict of weights by target."""
        return {}

    def add_input(
        self, weights: dict[bytes, float], edge: tuple[bytes, float]
    ) -> dict[bytes, float]:
        """Adds an edge."""
        target, weight = edge
        if weight > weights.get(target, float("-inf")):
            weights[target] = weight
            return self._bounded(weights)
        return weights

    def merge_accumulators(
        self, accumulators: Iterable[dict[bytes, float]]
    ) -> dict[bytes, float]:
        """Merges the edges of several accumulators."""
        merged: dict[bytes, float] = {}
        for weights in accumulators:
            for edge in weights.items():
                merged = self.add_input(merged, edge)
        return merged

    def _bounded(self, weights: dict[bytes, float]) -> dict[bytes, float]:
        if self._limit is None or len(weights) < 2 * self._limit + _SURPLUS:
            return weights
        return dict(heaviest_targets(weights, self._limit))

    def compact(self, weights: dict[bytes, float]) -> dict[bytes, float]:
        """Drops surplus edges before an accumulator is sent to another worker."""
        if self._limit is None or len(weights) <= self._limit:
            return weights
        return dict(heaviest_targets(weights, self._limit))

    def extract_output(self, weights: dict[bytes, float]) -> list[tuple[bytes, float]]:
        """Returns targets and weights, heaviest first."""
        return heaviest_targets(weights, self._limit)
