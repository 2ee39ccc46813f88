"""A combiner that keeps the heaviest edges of each source."""

from collections.abc import Iterable

import apache_beam as beam

from nsl.tools.heaviest_edges import heaviest_targets

# Choosing takes microseconds whatever the number, so surplus is let gather first.
_SURPLUS = 64


class CombineHeaviest(beam.CombineFn):
    """Keeps the heaviest of the edges (target, weight) of a source.

    It chooses as `nsl.tools.heaviest_edges` does. What it holds of a source is
    bounded, however many edges come in, if there is a limit.
    """

    def __init__(self, limit: int | None) -> None:
        """Sets the limit.

        Args:
          limit: How many edges are kept, or None for all.
        """
        self._limit = limit

    def create_accumulator(self) -> dict[bytes, float]:
        """Returns the weights by target of no edges."""
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
        """Adds the edges that several accumulators hold."""
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
        """Drops what is not kept, before it travels."""
        if self._limit is None or len(weights) <= self._limit:
            return weights
        return dict(heaviest_targets(weights, self._limit))

    def extract_output(self, weights: dict[bytes, float]) -> list[tuple[bytes, float]]:
        """Returns targets and weights, the heaviest first."""
        return heaviest_targets(weights, self._limit)
