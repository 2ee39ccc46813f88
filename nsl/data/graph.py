"""A graph as compressed sparse rows."""

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
    """A weighted graph in memory, at 8 bytes an edge and its ids.

    The neighbors of the node in row i are `targets[row_splits[i]:row_splits[i + 1]]`,
    the heaviest first and of equally heavy ones the one with the larger id first. Of
    an edge given several times the largest weight stays. No node is its own neighbor:
    an edge from a node to itself, such as nearest-neighbor searches give, is left out
    and counted.

    ```python
    graph = nsl.data.Graph({"a": {"b": 0.5}, "b": {"c": 1.0}}, undirected=True)
    graph.num_edges  # 4
    graph.rows(["c", "a"])  # [2, 0]
    nsl.data.Graph("graph.tsv", ids=ids)  # ids in the order of the features
    nsl.data.Graph((sources, targets), ids=range(2708))
    ```

    Attributes:
      row_splits: Where each row starts and the last ends, int64 of shape [nodes + 1].
      targets: Rows of the neighbors, int32 of shape [edges].
      weights: Weights of the edges, float32 of shape [edges].
      self_edges: How many of the given edges led from a node to itself.

    Args:
      edges: Files of edges in any format that `nsl.tools.pack_nbrs` reads: a path, a
        pattern or a list of these; a dict `{source: {target: weight}}` or `{source:
        [target]}`; a square SciPy sparse matrix, where entry (i, j) is the edge from i
        to j, a stored zero is none, and entries that stand twice are added; a tuple
        `(sources, targets)` or `(sources, targets, weights)` of vectors; a list of
        tuples `(source, target)` or `(source, target, weight)`; an array of shape
        [2, edges], [edges, 2], or with 3 for weights; or a table of pandas, Polars or
        Arrow with columns such as `source`, `target` and `weight`. Where weights are
        missing they are 1.
      ids: The distinct ids of all nodes, integers or strings of shape [nodes], in the
        order of the features. By default, nodes that the edges call by integers are
        numbered by these (a sparse matrix has as many nodes as rows); nodes with
        strings are sorted by code point. With integer `ids`, those in a text are read
        as numbers.
      undirected: Whether the reverse of each edge is added.
      skip_unknown: Whether edges of nodes that are not among `ids` are left out,
        instead of raising an error.

    Raises:
      ImportError: If a file needs pyarrow, which is missing.
      OSError: If a file cannot be read.
      TypeError: If `edges` has another form, or ids are not all of one kind.
      ValueError: If an edge is wrong, the lengths differ, an id stands twice in `ids`
        or an id of an edge is not among them.
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
                        f"{message} Add them to ids, or pass skip_unknown=True to "
                        "leave their edges out."
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
            logging.info("Left out %d edges from a node to itself.", self.self_edges)
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
        """The number of edges, each direction counted."""
        return len(self.targets)

    @property
    def nbytes(self) -> int:
        """How many bytes the graph takes, ids included."""
        arrays = self.row_splits, self.targets, self.weights
        return sum(array.nbytes for array in arrays) + self._nodes.nbytes

    @property
    def ids(self) -> npt.NDArray[Any]:
        """The ids of the nodes, integers or strings, in the order of the rows."""
        values = self._nodes.values
        return values if self._nodes.are_integers else np.strings.decode(values)

    def rows(self, ids: Any, name: str = "ids") -> npt.NDArray[np.int32]:
        """Returns the row of each node.

        Args:
          ids: Ids, in an array or sequence of any shape.
          name: What errors call them.

        Returns:
          An array of that shape.

        Raises:
          TypeError: If they are strings where the nodes have numbers, or the reverse.
          ValueError: If one is unknown.
        """
        return self._nodes.rows(ids, name)

    def power(self, hops: int, max_neighbors: int | None = None) -> Graph:
        """Returns the graph whose neighbors are up to some steps away.

        Its weights are those of the normalized adjacency matrix to that power, (D^-1/2
        (A + I) D^-1/2)^hops, where A holds the weights and D the row sums of A + I
        (Kipf and Welling, 2017, https://arxiv.org/abs/1609.02907). A node is no
        neighbor of its own.

        ```python
        graph.power(2, max_neighbors=20)
        ```

        Args:
          hops: The power, at least 1. With 1 the weights are normalized only.
          max_neighbors: How many neighbors of each node are kept, the heaviest ones.
            Without a limit there can be very many.

        Returns:
          A graph of the same nodes.

        Raises:
          TypeError: If a number is no integer.
          ValueError: If a number is less than 1, or a weight negative.
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
