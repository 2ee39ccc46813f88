"""Statistics of a graph, computed in one pass over its edges."""

from typing import Any

import numpy as np
import numpy.typing as npt

_QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


class GraphStatistics:
    """Computes degrees, connected components and homophily.

    Memory is proportional to the number of nodes, regardless of the number of edges.
    """

    def __init__(
        self, num_nodes: int, labels: npt.NDArray[np.int32] | None = None
    ) -> None:
        """Initializes the statistics of a graph without edges.

        Args:
          num_nodes: The number of nodes.
          labels: An integer for each node's label, -1 for unlabeled nodes.
        """
        self._edges = 0
        self._degrees = np.zeros(num_nodes, np.int64)
        self._touched = np.zeros(num_nodes, np.bool_)
        self._parents = np.arange(num_nodes)
        self._labels = labels
        self._labeled_edges = 0
        self._equal_edges = 0

    def add(
        self,
        sources: npt.NDArray[np.integer],
        targets: npt.NDArray[np.integer],
        both_ways: bool = False,
    ) -> None:
        """Adds directed edges.

        Args:
          sources: The sources, of shape [edges].
          targets: The targets, of shape [edges].
          both_ways: Whether to add the reverse of each edge too.
        """
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
        if both_ways:
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
        """Merges the components of the ends of each edge."""
        a, b = self._roots(sources), self._roots(targets)
        while (apart := a != b).any():
            low, high = np.minimum(a[apart], b[apart]), np.maximum(a[apart], b[apart])
            # If a root gets several parents, the last write wins; the next pass merges
            # the others. Parents have smaller numbers, so there are no cycles.
            self._parents[high] = low
            a, b = self._roots(low), self._roots(high)

    def report(self) -> dict[str, Any]:
        """Returns the statistics, serializable as JSON."""
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
