"""Finds the source, target and weight columns of a table of edges."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

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
