"""Columns of edges: which of a table they are, and how they become `Edges`."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nsl.files.id_table import Ids, Strings
from nsl.files.ids import as_ids

LARGEST_WEIGHT = np.float64(np.finfo(np.float32).max)
_CHUNK_EDGES = 1 << 18
_ENDS = {
    ("source", "target"),
    ("src", "dst"),
    ("src", "dest"),
    ("src", "tgt"),
    ("source", "destination"),
    ("from", "to"),
    ("start", "end"),
    ("head", "tail"),
    ("node1", "node2"),
    ("id1", "id2"),
    ("u", "v"),
}
_WEIGHTS = {"weight", "weights", "w", "edgeweight", "similarity", "score"}
# Other columns of edges, which never hold weights.
_OTHERS = {"", "index", "unnamed0", "level0", "type", "edgetype", "relation", "label"}
_SUFFIX = re.compile(r"(?<=.)(node|vertex)?(id|idx|index)?$")


class Edges(NamedTuple):
    """A chunk of edges, as columns of equal length.

    Attributes:
      sources: The ids of the sources: UTF-8, or int64 if they are stored as integers.
      targets: The ids of the targets.
      weights: The weights, finite in float32.
    """

    sources: Ids
    targets: Ids
    weights: npt.NDArray[Any]


class EdgeColumns(NamedTuple):
    """The indices of the columns.

    Attributes:
      source: The index of the sources.
      target: The index of the targets.
      weight: The index of the weights, or None if there are none.
    """

    source: int
    target: int
    weight: int | None


def _plain(name: object) -> str:
    return re.sub(r"[^a-z0-9]", "", str(name).casefold())


def _end_of(name: object) -> str:
    return _SUFFIX.sub("", _plain(name), count=1)


def named_columns(names: Sequence[object]) -> EdgeColumns | None:
    """Finds the columns by name.

    Args:
      names: The names of all columns, such as `source`, `target` and `weight`, or
        `FromNodeId` and `ToNodeId`.

    Returns:
      The columns, or None if no two are named like the ends of an edge.

    Raises:
      ValueError: If the names are ambiguous.
    """
    plain = [_end_of(name) for name in names]
    found = [
        (plain.index(source), plain.index(target))
        for source, target in _ENDS
        if source in plain and target in plain
    ]
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(
            f"The columns {list(names)} have several names for the ends of an edge; "
            "keep only source, target and weight."
        )
    ((source, target),) = found
    others = [place for place in range(len(names)) if place not in (source, target)]
    weights = [place for place in others if _plain(names[place]) in _WEIGHTS]
    if len(weights) == 1:
        return EdgeColumns(source, target, weights[0])
    unclear = weights or [
        place
        for place in others
        if _plain(names[place]) not in _OTHERS
        and not re.search(r"(?i)(^|[\W_])id$|[a-z]Id$", str(names[place]))
    ]
    if unclear:
        raise ValueError(
            f"It is ambiguous which of the columns {list(names)} holds the weights: "
            "rename it to 'weight', or, for weights of 1, remove "
            f"{[names[place] for place in unclear]}."
        )
    return EdgeColumns(source, target, None)


def table_columns(names: Sequence[object]) -> EdgeColumns:
    """Finds the columns by name, or else by position if there are two or three.

    Args:
      names: The names of all columns.

    Raises:
      ValueError: If the columns are ambiguous.
    """
    columns = named_columns(names)
    if columns is not None:
        return columns
    if len(names) not in (2, 3):
        raise ValueError(
            "A table of edges must have columns source, target and weight, but the "
            f"columns are {list(names)}."
        )
    return EdgeColumns(0, 1, 2 if len(names) == 3 else None)


def array_columns(array: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Splits an array of edges into its columns.

    Args:
      array: An array of shape [edges, 2] or [2, edges], or with 3 instead of 2 for
        weights; or a structured array with the columns of a table.

    Returns:
      The sources, the targets and, if present, the weights.

    Raises:
      ValueError: If the shape is invalid or ambiguous.
    """
    if array.dtype.names is not None:
        names = array.dtype.names
        places = table_columns(names)
        return [array[names[place]] for place in places if place is not None]
    if array.ndim != 2 or not {2, 3} & set(array.shape):
        hint = ""
        if array.ndim == 2 and array.shape[0] == array.shape[1]:
            hint = "; pass an adjacency matrix as scipy.sparse.csr_array(matrix)"
        raise ValueError(
            "An array of edges must have shape [edges, 2], [2, edges], [edges, 3] or "
            f"[3, edges], but has shape {array.shape}{hint}."
        )
    if {2, 3} >= set(array.shape):
        raise ValueError(
            f"An array of shape {array.shape} is ambiguous: edges may be rows or "
            "columns. Pass a tuple (sources, targets) or (sources, targets, weights)."
        )
    columns = list(array if array.shape[0] in (2, 3) else array.T)
    if array.dtype.kind == "f":
        # Ids next to weights in one array are floats.
        for place in range(2):
            with np.errstate(invalid="ignore"):
                ids = columns[place].astype(np.int64)
            if (ids != columns[place]).any():
                raise ValueError("The ids in an array of edges must be whole numbers.")
            columns[place] = ids
    return columns


def edges_of(sources: Any, targets: Any, weights: Any = None) -> Iterator[Edges]:
    """Converts columns to edges.

    Args:
      sources: The ids of the sources, integers or strings of shape [edges].
      targets: The ids of the targets.
      weights: The weights; 1 by default.

    Yields:
      Chunks of edges, with the dtype of the weights.

    Raises:
      TypeError: If ids are neither all integers nor all strings, or weights are not
        numbers.
      ValueError: If shapes differ, an id is invalid, or a weight is not finite in
        float32.
    """
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
        wrong = first_infinite(weights[chunk])
        if wrong is not None:
            raise ValueError(
                f"Edge {start + wrong}: the weight must be finite in float32, but is "
                f"{weights[start + wrong]}."
            )
        ends = [
            Strings.of(ids[chunk]) if ids.dtype.kind == "S" else ids[chunk].astype("i8")
            for ids in (sources, targets)
        ]
        yield Edges(ends[0], ends[1], weights[chunk])


def first_infinite(weights: npt.NDArray[Any]) -> int | None:
    """Returns the index of the first weight that is not finite in float32, or None."""
    fine = np.abs(weights) <= LARGEST_WEIGHT
    return None if fine.all() else int(np.argmin(fine))
