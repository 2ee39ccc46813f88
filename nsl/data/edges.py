"""Converts every supported form of edges to columns of ids and weights."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nsl.data.sparse_matrices import canonical, is_sparse_matrix
from nsl.files import edge_lines, input_files
from nsl.files.edge_columns import array_columns, named_columns, table_columns
from nsl.files.edge_files import EdgeFile
from nsl.files.edge_lines import Edges
from nsl.files.id_table import Ids, Strings, as_strings
from nsl.files.ids import as_ids

_CHUNK_EDGES = 1 << 18


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
    if _are_paths(edges):
        return _read_files(input_files.expand_paths(edges), integer_ids)
    if is_sparse_matrix(edges):
        matrix = canonical(edges)
        # Stored zeros are not edges.
        stored = matrix.data != 0
        return _read_columns(
            matrix.row[stored], matrix.col[stored], matrix.data[stored]
        )
    if isinstance(edges, Mapping):
        return _read_columns(*_columns_of_dict(edges))
    names = getattr(edges, "column_names", getattr(edges, "columns", None))
    if names is not None:
        places = table_columns(list(names))
        return _read_columns(*(edges[names[p]] for p in places if p is not None))
    if isinstance(edges, list) and edges and all(type(e) is tuple for e in edges):
        return _read_columns(*_columns_of_tuples(edges))
    if isinstance(edges, tuple | list) and len(edges) in (2, 3):
        return _read_columns(*edges)
    if hasattr(edges, "__array__"):
        return _read_columns(*array_columns(np.asarray(edges)))
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


def _read_columns(sources: Any, targets: Any, weights: Any = None) -> Iterator[Edges]:
    sources, targets = as_ids(sources, "The sources"), as_ids(targets, "The targets")
    if weights is None:
        weights = np.broadcast_to(np.float32(1), sources.shape)
    weights = np.asarray(weights)
    if not sources.shape == targets.shape == weights.shape or sources.ndim != 1:
        raise ValueError(
            "The sources, targets and weights must be one-dimensional and of equal "
            f"length, but have shapes {sources.shape}, {targets.shape} and "
            f"{weights.shape}."
        )
    if (sources.dtype.kind == "S") != (targets.dtype.kind == "S"):
        raise TypeError(
            f"The sources have dtype {sources.dtype} and the targets {targets.dtype}: "
            "both must be integers, or both strings."
        )
    if weights.dtype.kind not in "biuf" and weights.size:
        raise TypeError(f"The weights must be numbers, but are {weights.dtype}.")
    for start in range(0, len(sources), _CHUNK_EDGES):
        chunk = slice(start, start + _CHUNK_EDGES)
        yield Edges(
            _as_chunk(sources[chunk]),
            _as_chunk(targets[chunk]),
            _checked_weights(weights[chunk], start),
        )


def _as_chunk(ids: npt.NDArray[Any]) -> Ids:
    return Strings.of(ids) if ids.dtype.kind == "S" else ids.astype(np.int64)


def _checked_weights(weights: npt.NDArray[Any], first: int) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        checked = weights.astype(np.float32, copy=False)
    wrong = edge_lines.first_infinite(checked)
    if wrong is not None:
        raise ValueError(
            f"Edge {first + wrong}: the weight must be finite in float32, but is "
            f"{weights[wrong]}."
        )
    return checked


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
            # The parser has checked the weights.
            yield Edges(sources, targets, weights.astype(np.float32))


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
