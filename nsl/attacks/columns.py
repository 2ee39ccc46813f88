"""Columns of records, and the values that may replace theirs."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs
import numpy as np
import tensorflow as tf

from nsl.attacks.examples import Examples
from nsl.lib import features as feature_structures

# A single object, so that keys with missing numbers compare equal.
_NAN = float("nan")


@attrs.frozen(eq=False)
class Column:
    """A column, or a group of columns that are replaced together.

    Records with equal values share a code; each code has its own replacements.

    Attributes:
      name: The key of the column in `replacements`.
      cells: The leaf and the position in it of each column of the group.
      values: All replacement values, one array for each column of the group.
      codes: The code of each record, of shape [records].
      choices: The positions in `values` of each code's replacements, padded, of shape
        [codes, max replacements].
      sizes: The number of replacements of each code, of shape [codes].
      positions: The position in `values` of each replacement.
    """

    name: Any
    cells: list[tuple[int, int]]
    values: list[np.ndarray]
    codes: np.ndarray
    choices: np.ndarray
    sizes: np.ndarray
    positions: dict[tuple[Any, ...], int]

    @property
    def counts(self) -> np.ndarray:
        """The number of replacements of each record, of shape [records]."""
        return self.sizes[self.codes]

    def choice(self, records: np.ndarray, rank: np.ndarray) -> np.ndarray:
        """Returns positions in `values` of the replacements of a given rank."""
        return self.choices[self.codes[records], rank]

    def replace(self, leaves: list[np.ndarray], chosen: np.ndarray) -> None:
        """Writes `values[chosen]` into the leaves. -1 keeps a record's value."""
        rows = np.flatnonzero(chosen >= 0)
        for (leaf, place), values in zip(self.cells, self.values, strict=True):
            wide = leaves[leaf].dtype
            if wide.kind in "SU":
                wide = np.result_type(wide, values)
            leaves[leaf] = np.ascontiguousarray(leaves[leaf], wide)
            flat = leaves[leaf].reshape(len(chosen), -1)
            flat[rows, place] = values[chosen[rows]]

    def allowed(
        self, before: Examples, after: Examples
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns which records differ in this column, and which may have their value.

        Both are bool arrays of shape [records].
        """
        keys = _present(self.cells, after)
        pairs = zip(_present(self.cells, before), keys, strict=True)
        differs = np.array([one != other for one, other in pairs])
        position = np.array([self.positions.get(key, -1) for key in keys])
        real = np.arange(self.choices.shape[1]) < self.counts[:, None]
        is_choice = real & (self.choices[self.codes] == position[:, None])
        return differs, ~differs | is_choice.any(axis=1)


def lists_of_values(replacements: Any) -> dict[Any, Any]:
    """Converts the ranges, sets, arrays and iterators in replacements to lists.

    Raises:
      TypeError: If the replacements are not a dict.
    """
    if not isinstance(replacements, Mapping):
        raise TypeError(
            "replacements must be a dict from column names to lists of values, but "
            f"received {replacements!r}."
        )

    def listed(values: Any) -> Any:
        if isinstance(values, Mapping):
            return {key: listed(part) for key, part in values.items()}
        return list(values) if _is_list(values) else values

    return {key: listed(values) for key, values in replacements.items()}


def read_columns(replacements: Mapping[Any, Any], examples: Examples) -> list[Column]:
    """Returns the columns for `nsl.attacks.Substitution.replacements`.

    Raises:
      ValueError: If a column does not exist or is named twice.
      TypeError: If a value does not have its column's type.
    """
    columns = [
        _column(name, cells, given, examples)
        for name, cells, given in _entries(replacements, examples)
    ]
    if not columns:
        raise ValueError("replacements must name at least one column, but it is empty.")
    cells = [cell for column in columns for cell in column.cells]
    for i, (leaf, place) in enumerate(cells):
        if (leaf, place) in cells[:i]:
            name = feature_structures.names(examples.x)[leaf]
            raise ValueError(
                f"replacements names column {place}{f' of {name!r}' if name else ''} "
                "more than once: keep one entry, alone or in a group."
            )
    return columns


def _entries(
    replacements: Mapping[Any, Any], examples: Examples
) -> Iterator[tuple[Any, list[tuple[int, int]], Any]]:
    """Yields name, cells and replacements of each column."""
    widths = [leaf[:1].size for leaf in examples.leaves]

    def of_matrix(leaf: int, key: Any, where: str) -> list[tuple[int, int]]:
        places = key if isinstance(key, tuple) else (key,)
        for place in places:
            if not isinstance(place, int | np.integer) or not 0 <= place < widths[leaf]:
                raise ValueError(
                    f"replacements names column {place!r} of {where}, whose columns "
                    f"are 0 to {widths[leaf] - 1}. To use column names, pass x as a "
                    "dict of columns, such as dict(frame) of a DataFrame."
                )
        return [(leaf, int(place)) for place in places]

    if not tf.nest.is_nested(examples.x):
        for key, given in replacements.items():
            yield key, of_matrix(0, key, "x"), given
        return
    keys = feature_structures.keys(examples.x)
    for key, given in replacements.items():
        names = key if isinstance(key, tuple) and key not in keys else (key,)
        unknown = [name for name in names if name not in keys]
        if unknown or not names:
            raise ValueError(
                f"replacements names unknown features {unknown}: the features are "
                f"{keys}."
            )
        found = [keys.index(name) for name in names]
        if len(found) == 1 and widths[found[0]] > 1 and isinstance(given, Mapping):
            for inner, some in given.items():
                cells = of_matrix(found[0], inner, f"feature {key!r}")
                yield f"{key}/{inner}", cells, some
        else:
            yield key, [(leaf, i) for leaf in found for i in range(widths[leaf])], given


def _column(
    name: Any, cells: list[tuple[int, int]], given: Any, examples: Examples
) -> Column:
    present = _present(cells, examples)
    distinct = dict.fromkeys(present)
    readers = [
        _Reader(examples.leaves[leaf], [key[i] for key in distinct], name)
        for i, (leaf, _) in enumerate(cells)
    ]

    def read(value: Any) -> tuple[Any, ...]:
        parts = (value,) if len(cells) == 1 else value
        if not _is_list(parts) or len(parts) != len(cells):
            raise ValueError(
                f"replacements of {name!r} must be tuples of {len(cells)} values, one "
                f"for each of its columns, but received {value!r}."
            )
        return tuple(reader(part) for reader, part in zip(readers, parts, strict=True))

    def read_all(values: Any) -> dict[tuple[Any, ...], None]:
        if not _is_list(values):
            raise TypeError(
                f"replacements of {name!r} must be a list of values, or a dict from "
                f"current values to such lists, but received {values!r}."
            )
        return dict.fromkeys(map(read, values))

    if isinstance(given, Mapping):
        by_value = {read(value): read_all(to) for value, to in given.items()}
    else:
        by_value = dict.fromkeys(distinct, read_all(given))
    values = list(dict.fromkeys(v for to in by_value.values() for v in to))
    positions = {value: i for i, value in enumerate(values)}
    choices = [
        [positions[value] for value in by_value.get(key, ()) if value != key]
        for key in distinct
    ]
    code = {key: i for i, key in enumerate(distinct)}
    sizes = np.array([len(one) for one in choices])
    padded = np.zeros([len(choices), max(1, sizes.max())], np.int64)
    for row, one in zip(padded, choices, strict=True):
        row[: len(one)] = one
    arrays = [reader.array([v[i] for v in values]) for i, reader in enumerate(readers)]
    codes = np.array([code[key] for key in present])
    return Column(name, cells, arrays, codes, padded, sizes, positions)


def _present(cells: list[tuple[int, int]], examples: Examples) -> list[tuple[Any, ...]]:
    """Returns the values of some cells of each record, as dict keys."""
    parts = []
    for leaf, place in cells:
        column = examples.leaves[leaf].reshape(examples.count, -1)[:, place]
        parts.append([_NAN if _is_nan(value) else value for value in column.tolist()])
    return list(zip(*parts, strict=True))


class _Reader:
    """Converts values to the type of a column; raises TypeError if they do not fit."""

    def __init__(self, leaf: np.ndarray, present: list[Any], name: Any) -> None:
        self._dtype, self._name = leaf.dtype, name
        self._kinds = {_kind(value) for value in present} - {"missing"}

    def __call__(self, value: Any) -> Any:
        if tf.is_tensor(value):
            value = value.numpy()
        if isinstance(value, np.ndarray | np.generic) and np.size(value) == 1:
            value = value.item()
        if self._dtype.kind not in "OSU":
            return self._number(value)
        if isinstance(value, str) and self._kinds == {"bytes"}:
            value = value.encode()
        elif isinstance(value, bytes) and self._kinds == {"text"}:
            value = value.decode()
        kind, kinds = _kind(value), self._kinds
        fits = not kinds or kind in kinds
        if not (fits or (kind == "missing" and self._dtype.kind == "O")):
            raise self._error(value, " or ".join(sorted(kinds)))
        return _NAN if _is_nan(value) else value

    def array(self, values: list[Any]) -> np.ndarray:
        """Returns converted values as an array that can be written into the column."""
        texts = self._dtype.kind in "SU"
        return np.array(values, self._dtype.kind if texts else self._dtype)

    def _number(self, value: Any) -> Any:
        if _kind(value) != "number" and not _is_nan(value):
            raise self._error(value, self._dtype.name)
        with np.errstate(all="ignore"):
            found = np.array(value).astype(self._dtype)
        if self._dtype.kind in "biu" and found != value:
            raise self._error(value, self._dtype.name)
        return _NAN if _is_nan(value) else found.tolist()

    def _error(self, value: Any, expected: str) -> TypeError:
        return TypeError(
            f"replacements of {self._name!r} must have the column's type, {expected}, "
            f"but received {value!r} ({type(value).__name__})."
        )


def _kind(value: Any) -> str:
    if value is None or _is_nan(value):
        return "missing"
    if isinstance(value, bytes):
        return "bytes"
    if isinstance(value, str):
        return "text"
    return "number" if isinstance(value, int | float) else type(value).__name__


def _is_nan(value: Any) -> bool:
    return isinstance(value, float | np.floating) and bool(value != value)


def _is_list(values: Any) -> bool:
    return isinstance(values, Iterable) and not isinstance(
        values, str | bytes | Mapping
    )
