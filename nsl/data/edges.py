"""The forms in which edges come in, all as columns of ids and weights."""

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from nsl.data.sparse_matrices import canonical, is_sparse_matrix
from nsl.files.edge_lines import EdgeFile
from nsl.files.id_table import Strings
from nsl.files.ids import as_ids

Ids: TypeAlias = npt.NDArray[np.int64] | Strings

_CHUNK_EDGES = 1 << 18


class Edges(NamedTuple):
    """Some edges, as columns of equal length.

    Attributes:
      sources: Ids of the sources, integers or UTF-8.
      targets: Ids of the targets.
      weights: Finite weights.
    """

    sources: Ids
    targets: Ids
    weights: npt.NDArray[np.float32]


def read_edges(edges: Any, integer_ids: bool) -> Iterator[Edges]:
    """Reads edges in any of the forms that `Graph` takes.

    Args:
      edges: As there.
      integer_ids: Whether the ids in a file are numbers.

    Yields:
      The edges, in parts.

    Raises:
      OSError: If the file cannot be read.
      TypeError: If `edges` has another form.
      ValueError: If an edge is wrong.
    """
    if isinstance(edges, str | os.PathLike):
        return _read_file(os.fspath(edges), integer_ids)
    if is_sparse_matrix(edges):
        matrix = canonical(edges)
        # To SciPy it makes no difference whether a zero is stored.
        there = matrix.data != 0
        return _read_columns(matrix.row[there], matrix.col[there], matrix.data[there])
    if isinstance(edges, Mapping):
        return _read_columns(*_columns_of_dict(edges))
    if isinstance(edges, tuple | list) and len(edges) in (2, 3):
        return _read_columns(*edges)
    raise TypeError(
        "edges must be the path of a TSV file, a dict {source: {target: weight}}, a "
        "SciPy sparse matrix, or a tuple (sources, targets) or (sources, targets, "
        f"weights) of arrays, but received {type(edges).__name__}"
        + (f" of shape {edges.shape}." if isinstance(edges, np.ndarray) else ".")
    )


def _columns_of_dict(graph: Mapping[Any, Any]) -> tuple[list[Any], ...]:
    sources: list[Any] = []
    targets: list[Any] = []
    weights: list[Any] = []
    for source, row in graph.items():
        if not isinstance(row, Mapping):
            raise TypeError(
                "The graph must be {source: {target: weight}}, but node "
                f"{source!r} has {row!r}."
            )
        sources += [source] * len(row)
        targets += row.keys()
        weights += row.values()
    return sources, targets, weights


def _read_columns(sources: Any, targets: Any, weights: Any = None) -> Iterator[Edges]:
    sources, targets = as_ids(sources, "The sources"), as_ids(targets, "The targets")
    if weights is None:
        weights = np.broadcast_to(np.float32(1), sources.shape)
    weights = np.asarray(weights)
    if not sources.shape == targets.shape == weights.shape or sources.ndim != 1:
        raise ValueError(
            "The sources, targets and weights must be vectors of the same length, but "
            f"have shapes {sources.shape}, {targets.shape} and {weights.shape}."
        )
    if (sources.dtype.kind == "S") != (targets.dtype.kind == "S"):
        raise TypeError(
            f"The sources have dtype {sources.dtype} and the targets {targets.dtype}: "
            "both must be integers, or both strings."
        )
    if weights.dtype.kind not in "biuf" and weights.size:
        raise TypeError(f"The weights must be numbers, but are {weights.dtype}.")
    for start in range(0, len(sources), _CHUNK_EDGES):
        part = slice(start, start + _CHUNK_EDGES)
        yield Edges(
            _listed(sources[part]),
            _listed(targets[part]),
            _checked_weights(weights[part], start),
        )


def _listed(ids: npt.NDArray[Any]) -> Ids:
    return Strings.of(ids) if ids.dtype.kind == "S" else ids.astype(np.int64)


def _checked_weights(weights: npt.NDArray[Any], first: int) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        checked = weights.astype(np.float32, copy=False)
    wrong = np.flatnonzero(~np.isfinite(checked))
    if len(wrong):
        raise ValueError(
            f"edge {first + wrong[0]}: the weight must be finite as a float32, but "
            f"is {weights[wrong[0]]}"
        )
    return checked


def _read_file(path: str, integer_ids: bool) -> Iterator[Edges]:
    file = EdgeFile(path)
    for sources, targets, weights in file:
        # The parser has checked the weights.
        checked = weights.astype(np.float32)
        if integer_ids:
            yield Edges(_integers(sources, file), _integers(targets, file), checked)
        else:
            yield Edges(sources, targets, checked)


def _integers(ids: Strings, file: EdgeFile) -> npt.NDArray[np.int64]:
    try:
        return np.fromiter(map(int, ids), np.int64, len(ids))
    except (ValueError, OverflowError):
        for text, line in zip(ids, file.line_numbers, strict=True):
            try:
                np.int64(int(text))
            except (ValueError, OverflowError) as error:
                raise ValueError(f"{file.path}, line {line}: {error}.") from None
        raise
