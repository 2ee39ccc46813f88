"""Converts every supported form of edges to columns of ids and weights."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nsl.data.sparse_matrices import canonical, is_sparse_matrix
from nsl.files import input_files
from nsl.files.edge_columns import (
    Edges,
    array_columns,
    edges_of,
    named_columns,
    table_columns,
)
from nsl.files.edge_files import EdgeFile
from nsl.files.id_table import Ids, as_strings


def read_edges(edges: Any, integer_ids: bool | None) -> Iterator[Edges]:
    """Reads edges in any of the forms that `Graph` accepts.

    Args:
      edges: See `Graph`.
      integer_ids: Whether ids are integers; those in text files are then parsed. None
        if unknown: ids are then integers if the file stores integers.

    Yields:
      Chunks of edges, with float32 weights.

    Raises:
      ImportError: If a file needs pyarrow, which is not installed.
      OSError: If a file cannot be read.
      TypeError: If `edges` has none of these forms.
      ValueError: If an edge is malformed.
    """
    for part in _chunks(edges, integer_ids):
        yield part._replace(weights=part.weights.astype(np.float32, copy=False))


def _chunks(edges: Any, integer_ids: bool | None) -> Iterator[Edges]:
    if _are_paths(edges):
        return _read_files(input_files.expand_paths(edges), integer_ids)
    if is_sparse_matrix(edges):
        matrix = canonical(edges)
        # Stored zeros are not edges.
        stored = matrix.data != 0
        return edges_of(matrix.row[stored], matrix.col[stored], matrix.data[stored])
    if isinstance(edges, Mapping):
        return edges_of(*_columns_of_dict(edges))
    names = getattr(edges, "column_names", getattr(edges, "columns", None))
    if names is not None:
        places = table_columns(list(names))
        return edges_of(*(edges[names[p]] for p in places if p is not None))
    if isinstance(edges, list) and edges and all(type(e) is tuple for e in edges):
        return edges_of(*_columns_of_tuples(edges))
    if isinstance(edges, tuple | list) and len(edges) in (2, 3):
        return edges_of(*edges)
    if hasattr(edges, "__array__"):
        return edges_of(*array_columns(np.asarray(edges)))
    hint = ""
    if hasattr(edges, "edges") and hasattr(edges, "nodes"):
        hint = (
            "; for a NetworkX graph pass networkx.to_scipy_sparse_array(graph), and "
            "list(graph) as ids"
        )
    raise TypeError(
        "edges must be paths, a dict {source: {target: weight}}, a sparse matrix of "
        "SciPy, a tuple (sources, targets) or (sources, targets, weights), a list of "
        "tuples (source, target[, weight]), an array or a table, but received "
        f"{type(edges).__name__}{hint}."
    )


def _are_paths(value: Any) -> bool:
    if isinstance(value, list | tuple) and value:
        return all(isinstance(item, str | os.PathLike) for item in value)
    return isinstance(value, str | os.PathLike)


def _columns_of_dict(graph: Mapping[Any, Any]) -> tuple[list[Any], ...]:
    sources: list[Any] = []
    targets: list[Any] = []
    weights: list[Any] = []
    names = [name for name in graph if isinstance(name, str)]
    if (
        len(names) == len(graph) <= 3
        and not any(isinstance(row, Mapping) for row in graph.values())
        and named_columns(names) is not None
    ):
        raise ValueError(
            f"The dict with keys {names} is ambiguous: its values may be columns or "
            "adjacency lists. Pass a tuple (sources, targets) or (sources, targets, "
            "weights)."
        )
    for source, row in graph.items():
        if isinstance(row, str | bytes) or not hasattr(row, "__len__"):
            raise TypeError(
                "A dict of edges must be {source: {target: weight}} or {source: "
                f"[target]}}, but its value for node {source!r} is {row!r}."
            )
        sources += [source] * len(row)
        targets += row
        weights += row.values() if isinstance(row, Mapping) else [1.0] * len(row)
    return sources, targets, weights


def _columns_of_tuples(edges: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    lengths = {len(edge) for edge in edges}
    if not lengths <= {2, 3}:
        number = next(n for n, edge in enumerate(edges) if len(edge) not in (2, 3))
        raise ValueError(
            f"Edge {number} must be (source, target) or (source, target, weight), but "
            f"is {edges[number]!r}."
        )
    columns = [[edge[0] for edge in edges], [edge[1] for edge in edges]]
    if 3 in lengths:
        columns.append([edge[2] if len(edge) == 3 else 1.0 for edge in edges])
    return columns


def _read_files(paths: Sequence[str], integer_ids: bool | None) -> Iterator[Edges]:
    for path in paths:
        file = EdgeFile(path)
        for sources, targets, weights in file:
            if integer_ids is None and weights.size:
                integer_ids = isinstance(sources, np.ndarray)
            if integer_ids:
                sources, targets = _integers(sources, file), _integers(targets, file)
            else:
                sources, targets = as_strings(sources), as_strings(targets)
            yield Edges(sources, targets, weights)


def _integers(ids: Ids, file: EdgeFile) -> npt.NDArray[np.int64]:
    if isinstance(ids, np.ndarray):
        return ids
    try:
        return np.fromiter(map(int, ids), np.int64, len(ids))
    except (ValueError, OverflowError):
        numbers = np.empty(len(ids), np.int64)
        for edge, text in enumerate(ids):
            try:
                numbers[edge] = _integer(text)
            except (ValueError, OverflowError) as error:
                raise ValueError(
                    f"{file.place(edge)}: {error}; the `ids` argument has integers."
                ) from None
        return numbers


def _integer(text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        # pandas writes a column of integers with missing values as 1.0.
        whole, point, zeros = text.partition(b".")
        if point and not zeros.strip(b"0"):
            return int(whole)
        raise
