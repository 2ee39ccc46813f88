r"""Weighted graphs as dictionaries and as TSV files.

A graph is `{source: {target: weight}}` with string ids. In a file, each edge is a line
`source<TAB>target[<TAB>weight]`. Duplicate edges are merged; the largest weight is
kept.

Example:
  graph = {}
  add_edge(graph, ["A", "B", 0.5])
  add_undirected_edges(graph)
  graph  # {"A": {"B": 0.5}, "B": {"A": 0.5}}
"""

import os
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from absl import logging

from nsl.files import edge_lines
from nsl.files.edge_files import EdgeFile, check_edge_output, edge_output
from nsl.files.id_table import as_strings

GraphDict: TypeAlias = dict[str, dict[str, float]]


def add_edge(graph: GraphDict, edge: Sequence[Any]) -> bool:
    """Adds an edge to a graph; an existing edge keeps the larger weight.

    Args:
      graph: The graph, which is modified.
      edge: `[source, target]` or `[source, target, weight]`. The weight is a number or
        a string, 1.0 by default.

    Returns:
      Whether the edge is new.

    Raises:
      ValueError: If `edge` has another length, or its weight is not a finite number.
    """
    if len(edge) not in (2, 3):
        raise ValueError(
            "An edge must be [source, target] or [source, target, weight], but "
            f"received {len(edge)} elements: {edge!r}."
        )
    weight = edge_lines.parse_weight(edge[2]) if len(edge) == 3 else 1.0
    targets = graph.setdefault(edge[0], {})
    is_new = edge[1] not in targets
    if is_new or weight > targets[edge[1]]:
        targets[edge[1]] = weight
    return is_new


def add_undirected_edges(graph: GraphDict) -> None:
    """Adds the reverse of each edge; opposite edges both get the larger weight.

    Args:
      graph: The graph, which is modified.
    """
    edges = [
        (target, source, weight)
        for source, targets in graph.items()
        for target, weight in targets.items()
    ]
    for edge in edges:
        add_edge(graph, edge)


def read_tsv_graph(filename: str | os.PathLike[str]) -> GraphDict:
    """Reads a graph from a file.

    Args:
      filename: The file, in any of the formats that `pack_nbrs` reads.

    Returns:
      The graph.

    Raises:
      OSError: If the file cannot be read.
      ValueError: If a line is not an edge; the error names the line.
    """
    file = EdgeFile(os.fspath(filename))
    graph: GraphDict = {}
    edges = 0
    for sources, targets, weights in file:
        ends = as_strings(sources), as_strings(targets)
        for source, target, weight in zip(*ends, weights.tolist(), strict=True):
            edges += add_edge(graph, (source.decode(), target.decode(), weight))
    logging.info("Read %d edges from %s: %s.", edges, file.path, file.counts)
    return graph


def write_tsv_graph(filename: str | os.PathLike[str], graph: GraphDict) -> None:
    """Writes a graph to a TSV file, with six decimals per weight.

    Args:
      filename: The file to write, atomically; Parquet if it ends in `.parquet`.
      graph: The graph.

    Raises:
      OSError: If the file cannot be written.
      ValueError: If an id is empty or contains a tab or a line break, or a weight is
        not a finite number.
    """
    path = os.fspath(filename)
    check_edge_output(path)
    numbers: dict[str, int] = {}
    edges = [
        (
            numbers.setdefault(source, len(numbers)),
            numbers.setdefault(target, len(numbers)),
            edge_lines.parse_weight(weight),
        )
        for source, targets in graph.items()
        for target, weight in targets.items()
    ]
    ids = list(map(_encode, numbers))
    sources, targets, weights = np.array(edges, np.float64).reshape(-1, 3).T
    with edge_output(path) as file:
        file.write(ids, sources.astype(np.int64), targets.astype(np.int64), weights)


def _encode(node: str) -> bytes:
    encoded = node.encode()
    if not encoded:
        raise ValueError("An id is empty, which files of edges do not allow.")
    edge_lines.check_node_id(encoded)
    return encoded
