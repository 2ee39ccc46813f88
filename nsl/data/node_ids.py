"""Maps node ids to rows of the graph and of the features."""

from typing import Any

import numpy as np
import numpy.typing as npt

from nsl.files.id_table import Ids, IdTable
from nsl.files.ids import as_ids

_MAX_NODES = np.iinfo(np.int32).max
_SHOWN = 5


class NodeIds:
    """The ids of nodes, in row order.

    Attributes:
      values: The ids, int64 or UTF-8 bytes of shape [nodes].
      ranks: The rank of each id in ascending order, by number or by code point; int32
        of shape [nodes].
    """

    def __init__(self, values: Any) -> None:
        """Assigns rows to ids in order.

        Args:
          values: Distinct integers or strings of shape [nodes].

        Raises:
          TypeError: If the ids are neither all integers nor all strings.
          ValueError: If an id is duplicated.
        """
        self.values = as_ids(values, "ids")
        if self.are_integers:
            self.values = self.values.astype(np.int64)
        if self.values.ndim != 1:
            raise ValueError(
                f"ids must have shape [nodes], but have shape {self.values.shape}."
            )
        if len(self.values) > _MAX_NODES:
            raise ValueError(
                f"A graph may have at most {_MAX_NODES} nodes, but received "
                f"{len(self.values)} ids."
            )
        self._order = np.argsort(self.values, kind="stable").astype(np.int32)
        ordered = self.values[self._order]
        duplicates = np.flatnonzero(ordered[1:] == ordered[:-1])
        if len(duplicates):
            raise ValueError(
                f"ids must be unique, but {_shown(ordered[duplicates[0]])} is "
                "duplicated."
            )
        self.ranks = np.empty_like(self._order)
        self.ranks[self._order] = np.arange(len(ordered), dtype=np.int32)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def nbytes(self) -> int:
        """The size of the ids and their index in bytes."""
        return self.values.nbytes + self.ranks.nbytes + self._order.nbytes

    @property
    def are_integers(self) -> bool:
        """Whether the ids are integers."""
        return self.values.dtype.kind in "iu"

    def find(self, ids: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """Returns the row of each id, or -1 if it is unknown."""
        if not len(self):
            return np.full(ids.shape, -1, np.int32)
        if self.are_integers and self.values[0] == 0 == self.ranks[0]:
            contiguous = self.values[self._order[-1]] == len(self) - 1
            if contiguous and (self._order[:-1] < self._order[1:]).all():
                return np.where((ids >= 0) & (ids < len(self)), ids, -1).astype(
                    np.int32
                )
        places = np.searchsorted(self.values, ids, sorter=self._order)
        rows = self._order[np.minimum(places, len(self) - 1)]
        return np.where(self.values[rows] == ids, rows, np.int32(-1))

    def rows(self, ids: Any, name: str) -> npt.NDArray[np.int32]:
        """Returns the row of each id, int32 of the same shape.

        Args:
          ids: Integers or strings of any shape.
          name: Their name in error messages.

        Raises:
          TypeError: If the ids are strings and the graph's are integers, or vice versa.
          ValueError: If an id is unknown.
        """
        wanted = as_ids(ids, name)
        if wanted.dtype.kind in "iu":
            wanted = wanted.astype(np.int64, copy=False)
        if wanted.size and (wanted.dtype.kind == "i") != self.are_integers:
            kinds = ("strings", "integers")
            raise TypeError(
                f"The ids of the graph are {kinds[self.are_integers]}, but {name} are "
                f"{kinds[not self.are_integers]}."
            )
        rows = self.find(wanted)
        unknown = np.unique(wanted[rows < 0])
        if len(unknown):
            raise ValueError(unknown_ids_message(unknown.tolist(), name, len(self)))
        return rows


class Numbering:
    """Maps the ids in columns of edges to rows.

    Attributes:
      unknown: The first few ids that are not among the known ones.
    """

    def __init__(self, known: NodeIds | None) -> None:
        """Initializes the table of ids.

        Args:
          known: The nodes. With None, every id is a node.
        """
        self.unknown: list[Any] = []
        self._known = known
        self._largest = -1
        self._table = IdTable()
        if known is not None and not known.are_integers:
            for node in known.values.tolist():
                self._table.append(node)
            self._table.settle()

    def rows(self, ids: Ids) -> npt.NDArray[np.int32]:
        """Returns the row of each id, or -1 if it is unknown.

        Raises:
          TypeError: If the ids are strings and the known ones are integers, or vice
            versa.
          ValueError: If an integer is not a valid row, and no ids are known.
        """
        is_integer = isinstance(ids, np.ndarray)
        known = self._known
        if known is not None:
            if len(ids) and is_integer != known.are_integers:
                kinds = ("strings", "integers")
                raise TypeError(
                    f"ids are {kinds[known.are_integers]}, but the ids of the edges "
                    f"are {kinds[is_integer]}."
                )
            if isinstance(ids, np.ndarray):
                rows = known.find(ids)
            else:
                rows = self._table.find(ids)
            if len(self.unknown) <= _SHOWN:
                wrong = np.flatnonzero(rows < 0)[: _SHOWN + 1].tolist()
                self.unknown += [ids[place] for place in wrong]
            return rows
        if isinstance(ids, np.ndarray):
            if len(ids) and not 0 <= ids.min() <= ids.max() < _MAX_NODES:
                raise ValueError(
                    "Without ids, integers in edges are rows and must be in [0, "
                    f"{_MAX_NODES - 1}], but are {ids.min()} to {ids.max()}. Pass "
                    "ids, in the order of the features."
                )
            self._largest = max(self._largest, int(ids.max(initial=-1)))
            return ids.astype(np.int32)
        return self._table.number(ids)

    def finish(self) -> tuple[NodeIds, npt.NDArray[np.int32] | None]:
        """Returns the nodes, in their final order.

        Returns:
          The nodes; and the final row of each row that `rows` returned, int32 of shape
          [nodes], or None if rows stay the same.
        """
        if self._known is not None:
            return self._known, None
        if not len(self._table):
            return NodeIds(np.arange(self._largest + 1)), None
        ids = self._table.take()
        order = np.argsort(ids)
        rows = np.empty(len(ids), np.int32)
        rows[order] = np.arange(len(ids), dtype=np.int32)
        ids = ids[order]
        del order  # as large as the ids
        return NodeIds(ids), rows


def unknown_ids_message(unknown: list[Any], name: str, nodes: int) -> str:
    """Returns an error message that lists the first unknown ids."""
    shown = ", ".join(map(_shown, unknown[:_SHOWN]))
    more = ", ..." if len(unknown) > _SHOWN else ""
    return f"{name} have ids that are not among the graph's {nodes}: {shown}{more}."


def _shown(value: Any) -> str:
    return repr(value.decode() if isinstance(value, bytes) else int(value))
