"""What a graph looks like, counted while its edges pass by."""

from typing import Any

import numpy as np
import numpy.typing as npt

_QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


class GraphStatistics:
    """Counts edges, degrees, components and equal labels.

    Memory is a few numbers a node, whatever the number of edges.
    """

    def __init__(
        self, num_nodes: int, labels: npt.NDArray[np.int32] | None = None
    ) -> None:
        """Starts with a graph without edges.

        Args:
          num_nodes: The number of nodes.
          labels: A number for each node's label, -1 for none.
        """
        self._edges = 0
        self._degrees = np.zeros(num_nodes, np.int64)
        self._touched = np.zeros(num_nodes, np.bool_)
        self._parents = np.arange(num_nodes)
        self._labels = labels
        self._labeled_edges = 0
        self._equal_edges = 0

    def add(
        self, sources: npt.NDArray[np.integer], targets: npt.NDArray[np.integer]
    ) -> None:
        """Counts directed edges."""
        self._edges += len(sources)
        np.add.at(self._degrees, sources, 1)
        self._touched[sources] = True
        self._touched[targets] = True
        self._join(sources, targets)
        if self._labels is not None:
            source_labels, target_labels = self._labels[sources], self._labels[targets]
            labeled = (source_labels >= 0) & (target_labels >= 0)
            self._labeled_edges += int(labeled.sum())
            self._equal_edges += int((source_labels == target_labels)[labeled].sum())

    def add_both_ways(
        self, sources: npt.NDArray[np.integer], targets: npt.NDArray[np.integer]
    ) -> None:
        """Counts each edge and its reverse."""
        self.add(sources, targets)
        self._edges += len(sources)
        np.add.at(self._degrees, targets, 1)

    def _roots(self, nodes: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        roots = self._parents[nodes]
        while True:
            above = self._parents[roots]
            if (above == roots).all():
                self._parents[nodes] = roots
                return roots
            roots = above

    def _join(
        self, sources: npt.NDArray[np.integer], targets: npt.NDArray[np.integer]
    ) -> None:
        """Puts the ends of each edge into one component."""
        a, b = self._roots(sources), self._roots(targets)
        while (apart := a != b).any():
            low, high = np.minimum(a[apart], b[apart]), np.maximum(a[apart], b[apart])
            # Of several parents written to one root the last stays; the others are
            # found apart again in the next pass. Parents are smaller: no cycles.
            self._parents[high] = low
            a, b = self._roots(low), self._roots(high)

    def report(self) -> dict[str, Any]:
        """Returns the counts, ready for JSON."""
        num_nodes = len(self._degrees)
        report: dict[str, Any] = {
            "nodes": num_nodes,
            "edges": self._edges,
            "isolated_nodes": int(num_nodes - self._touched.sum()),
            "degree_quantiles": {},
            "largest_component": 0,
        }
        if num_nodes:
            values = np.quantile(self._degrees, _QUANTILES, method="nearest")
            report["degree_quantiles"] = {
                f"{share:g}": int(value)
                for share, value in zip(_QUANTILES, values, strict=True)
            }
            roots = self._roots(np.arange(num_nodes))
            report["largest_component"] = int(np.bincount(roots).max())
        if self._labels is not None:
            report["homophily"] = (
                self._equal_edges / self._labeled_edges if self._labeled_edges else None
            )
        return report
