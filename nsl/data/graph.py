"""An in-memory graph in compressed sparse row (CSR) format."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from absl import logging

from nsl.data import powers, sparse_rows
from nsl.data.edges import read_edges
from nsl.data.node_ids import NodeIds, Numbering, unknown_ids_message
from nsl.data.sparse_matrices import is_sparse_matrix


class Graph:
    """A weighted directed graph in memory, at 8 bytes per edge plus the ids.

    The neighbors of the node in row i are `targets[row_splits[i]:row_splits[i + 1]]`,
    sorted by weight, heaviest first; ties are sorted by id, largest first. Duplicate
    edges are merged and keep the largest weight. Self-loops are dropped and counted.

    >>> graph = nsl.data.Graph({"a": {"b": 0.5}, "b": {"c": 1.0}}, undirected=True)
    >>> graph.num_edges
    4
    >>> graph.rows(["c", "a"]).tolist()
    [2, 0]

    ```python
    nsl.data.Graph("graph.tsv", ids=ids)  # ids in the order of the feature rows
    nsl.data.Graph((sources, targets), ids=range(2708))
    ```

    Attributes:
      row_splits: The start of each row and the end of the last, int64 of shape
        [nodes + 1].
      targets: The rows of the neighbors, int32 of shape [edges].
      weights: The weights of the edges, float32 of shape [edges].
      self_edges: The number of self-loops that were dropped.

    Args:
      edges: One of the following; missing weights are 1.

        - Files in any format that `nsl.tools.pack_nbrs` reads: a path, a glob pattern
          or a list of these.
        - A dict `{source: {target: weight}}` or `{source: [target]}`.
        - A square SciPy sparse matrix: entry (i, j) is the weight of the edge from i to
          j. Explicit zeros are not edges; duplicate entries are summed.
        - A tuple `(sources, targets)` or `(sources, targets, weights)` of arrays of
          shape [edges].
        - A list of tuples `(source, target)` or `(source, target, weight)`.
        - An array of shape [2, edges] or [edges, 2], or with 3 instead of 2 for
          weights.
        - A pandas, Polars or Arrow table with columns such as `source`, `target` and
          `weight`.
      ids: The distinct ids of all nodes, integers or strings of shape [nodes], in the
        order of the feature rows. By default, integers in the edges are the rows
        themselves (a sparse matrix has one node per row), and strings are sorted by
        code point. With integer `ids`, the ids in text files are parsed as integers.
      undirected: Whether to add the reverse of each edge.
      skip_unknown: Whether to drop edges with a node that is not in `ids` instead of
        raising an error.

    Raises:
      ImportError: If a file needs pyarrow, which is not installed.
      OSError: If a file cannot be read.
      TypeError: If `edges` has none of these forms, or ids mix integers and strings.
      ValueError: If an edge is malformed, lengths differ, `ids` has duplicates, or an
        edge has a node that is not in `ids`.
    """

    row_splits: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    self_edges: int

    def __init__(
        self,
        edges: Any,
        ids: Any = None,
        *,
        undirected: bool = False,
        skip_unknown: bool = False,
    ) -> None:
        is_matrix = is_sparse_matrix(edges)
        if is_matrix and (len(edges.shape) != 2 or edges.shape[0] != edges.shape[1]):
            raise ValueError(
                "A sparse matrix of edges must be square, but has shape "
                f"{tuple(edges.shape)}."
            )
        if ids is None and is_matrix:
            ids = np.arange(edges.shape[0])
        nodes = None if ids is None else NodeIds(ids)
        if is_matrix and nodes is not None:
            if edges.shape != (len(nodes), len(nodes)):
                raise ValueError(
                    f"The sparse matrix has shape {edges.shape}, but there are "
                    f"{len(nodes)} ids."
                )
            numbering = Numbering(NodeIds(np.arange(len(nodes))))
        else:
            numbering = Numbering(nodes)
        columns = sparse_rows.Columns()
        self.self_edges = 0
        for chunk in read_edges(edges, None if nodes is None else nodes.are_integers):
            sources = numbering.rows(chunk.sources)
            targets = numbering.rows(chunk.targets)
            weights = chunk.weights
            if numbering.unknown:
                if not skip_unknown:
                    message = unknown_ids_message(
                        numbering.unknown,
                        "The edges",
                        0 if nodes is None else len(nodes),
                    )
                    raise ValueError(
                        f"{message} Add them to ids, or pass skip_unknown=True to drop "
                        "their edges."
                    )
                known = (sources >= 0) & (targets >= 0)
                sources, targets = sources[known], targets[known]
                weights = weights[known]
            others = sources != targets
            if not others.all():
                self.self_edges += int((~others).sum())
                sources, targets = sources[others], targets[others]
                weights = weights[others]
            columns.append(sources, targets, weights)
        if self.self_edges:
            logging.info("Dropped %d self-loops.", self.self_edges)
        sparse_rows.release_freed_memory()
        found, final_rows = numbering.finish()
        del numbering
        self._nodes = found if nodes is None or not is_matrix else nodes
        self.row_splits, self.targets, self.weights = sparse_rows.compress(
            columns, self._nodes.ranks, final_rows, undirected
        )

    def __repr__(self) -> str:
        return f"Graph(num_nodes={self.num_nodes}, num_edges={self.num_edges})"

    @property
    def num_nodes(self) -> int:
        """The number of nodes."""
        return len(self._nodes)

    @property
    def num_edges(self) -> int:
        """The number of directed edges; an undirected edge counts twice."""
        return len(self.targets)

    @property
    def sources(self) -> npt.NDArray[np.int32]:
        """The rows of the source nodes, int32 of shape [edges], as `targets`.

        Computed anew each time.
        """
        rows = np.arange(self.num_nodes, dtype=np.int32)
        return np.repeat(rows, np.diff(self.row_splits))

    @property
    def nbytes(self) -> int:
        """The size of the graph in bytes, including the ids."""
        arrays = self.row_splits, self.targets, self.weights
        return sum(array.nbytes for array in arrays) + self._nodes.nbytes

    @property
    def ids(self) -> npt.NDArray[Any]:
        """The ids of the nodes, integers or strings of shape [nodes], in row order."""
        values = self._nodes.values
        return values if self._nodes.are_integers else np.strings.decode(values)

    def rows(self, ids: Any, name: str = "ids") -> npt.NDArray[np.int32]:
        """Returns the row of each node.

        Args:
          ids: Integers or strings of any shape.
          name: Their name in error messages.

        Returns:
          The rows, int32 of the same shape.

        Raises:
          TypeError: If the ids are strings and the graph's are integers, or vice versa.
          ValueError: If an id is not in the graph.
        """
        return self._nodes.rows(ids, name)

    def power(self, hops: int, max_neighbors: int | None = None) -> Graph:
        """Returns a power of the normalized graph: neighbors up to `hops` steps away.

        The weights are the off-diagonal entries of (D^-1/2 (A + I) D^-1/2)^hops, where
        A is the weighted adjacency matrix and D the diagonal of the row sums of A + I
        (Kipf and Welling, 2017, https://arxiv.org/abs/1609.02907).

        ```python
        graph.power(2, max_neighbors=20)
        ```

        Args:
          hops: The power, at least 1. With 1, the weights are only normalized.
          max_neighbors: The number of heaviest neighbors to keep per node. Without a
            limit the result can be very large.

        Returns:
          A graph with the same nodes.

        Raises:
          TypeError: If a number is not an integer.
          ValueError: If a number is less than 1, or a weight is negative.
        """
        result = Graph.__new__(Graph)
        result._nodes = self._nodes
        result.self_edges = 0
        result.row_splits, result.targets, result.weights = powers.power(
            (self.row_splits, self.targets, self.weights),
            self._nodes.ranks,
            hops,
            max_neighbors,
        )
        return result
