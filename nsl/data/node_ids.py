"""Rows for ids: which row of the features and of the graph a node has."""

from typing import Any

import numpy as np
import numpy.typing as npt

from nsl.files.id_table import Ids, IdTable
from nsl.files.ids import as_ids

_MOST_NODES = np.iinfo(np.int32).max
_SHOWN = 5


class NodeIds:
    """The ids of nodes, in the order of their rows.

    Attributes:
      values: The ids as integers or UTF-8 bytes, of shape [nodes].
      ranks: The place of each in ascending order, by number or by code point.
    """

    def __init__(self, values: Any) -> None:
        """Numbers the ids as they come.

        Args:
          values: Distinct integers or strings of shape [nodes].

        Raises:
          TypeError: If they are neither all integers nor all strings.
          ValueError: If one stands twice.
        """
        self.values = as_ids(values, "ids")
        if self.are_integers:
            self.values = self.values.astype(np.int64)
        if self.values.ndim != 1:
            raise ValueError(
                f"ids must be of shape [nodes], but have shape {self.values.shape}."
            )
        if len(self.values) > _MOST_NODES:
            raise ValueError(
                f"A graph holds at most {_MOST_NODES} nodes, but received "
                f"{len(self.values)}."
            )
        self._order = np.argsort(self.values, kind="stable").astype(np.int32)
        ordered = self.values[self._order]
        twice = np.flatnonzero(ordered[1:] == ordered[:-1])
        if len(twice):
            raise ValueError(
                f"ids must differ, but {_shown(ordered[twice[0]])} stands twice."
            )
        self.ranks = np.empty_like(self._order)
        self.ranks[self._order] = np.arange(len(ordered), dtype=np.int32)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def nbytes(self) -> int:
        """How many bytes the ids and their order take."""
        return self.values.nbytes + self.ranks.nbytes + self._order.nbytes

    @property
    def are_integers(self) -> bool:
        """Whether the ids are numbers."""
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
        """Returns the row of each id.

        Args:
          ids: Ids in an array or sequence of any shape.
          name: What errors call them.

        Raises:
          TypeError: If they are strings where the nodes have numbers, or the reverse.
          ValueError: If one is unknown.
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
    """Gives rows to the ids of edges, column by column.

    Attributes:
      unknown: Some ids that are not among the known ones.
    """

    def __init__(self, known: NodeIds | None) -> None:
        """Starts.

        Args:
          known: The nodes; None takes every id that comes.
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
          TypeError: If they are strings where the nodes have numbers, or the reverse.
          ValueError: If one is negative or too large to be a row itself.
        """
        is_integer = isinstance(ids, np.ndarray)
        known = self._known
        if known is not None:
            if len(ids) and is_integer != known.are_integers:
                kinds = ("strings", "integers")
                raise TypeError(
                    f"ids are {kinds[known.are_integers]}, but those of the edges are "
                    f"{kinds[is_integer]}."
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
            if len(ids) and not 0 <= ids.min() <= ids.max() < _MOST_NODES:
                raise ValueError(
                    "Without ids, an integer is the row of a node, from 0 to "
                    f"{_MOST_NODES - 1}, but the edges have {ids.min()} to "
                    f"{ids.max()}. Pass ids, in the order of the features."
                )
            self._largest = max(self._largest, int(ids.max(initial=-1)))
            return ids.astype(np.int32)
        return self._table.number(ids)

    def finish(self) -> tuple[NodeIds, npt.NDArray[np.int32] | None]:
        """Returns the nodes.

        Returns:
          The nodes; and, if they are in another order than the rows given so far, the
          final row for each of these.
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
    """Returns an error that shows the first unknown ids."""
    shown = ", ".join(map(_shown, unknown[:_SHOWN]))
    more = ", ..." if len(unknown) > _SHOWN else ""
    return f"{name} hold ids that are none of the graph's {nodes} nodes: {shown}{more}."


def _shown(value: Any) -> str:
    return repr(value.decode() if isinstance(value, bytes) else int(value))
