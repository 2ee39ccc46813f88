"""Converts node ids, integers or strings in any array or sequence."""

from typing import Any

import numpy as np
import numpy.typing as npt

_CHUNK_IDS = 1 << 16


def as_ids(values: Any, name: str) -> npt.NDArray[Any]:
    """Converts ids to an array of integers or UTF-8 bytes.

    Args:
      values: Integers or strings of any shape.
      name: Their name in error messages.

    Returns:
      An array of the same shape, of an integer or bytes dtype.

    Raises:
      TypeError: If the ids are neither all integers nor all strings.
      ValueError: If an id does not fit into 64 bits, is empty or not UTF-8, or ends
        with a NUL.
    """
    if not isinstance(values, np.ndarray):
        # NumPy would convert the numbers of a mixed list to strings.
        values = np.array(values, dtype=object)
    if values.dtype.kind in "OT":
        kinds = {_kind(value) for value in values.flat}
        if len(kinds) > 1 or None in kinds:
            types = sorted({type(value).__name__ for value in values.flat})
            raise TypeError(
                f"{name} must be all integers or all strings, but are {types}."
            )
        if not kinds:
            return np.empty(values.shape, np.int64)
        if kinds == {int}:
            try:
                return values.astype(np.int64)
            except OverflowError:
                raise ValueError(f"{name} must fit into 64 bits.") from None
        encoded = [_encode(value) for value in values.flat]
        if any(not value or value.endswith(b"\0") for value in encoded):
            raise ValueError(f"{name} must not be empty or end with a NUL character.")
        encoded_array = np.array(encoded, np.bytes_).reshape(values.shape)
        _check_utf8(encoded_array, name)
        return encoded_array
    if values.dtype.kind in "iu":
        if values.dtype == np.uint64 and values.size and values.max() >> 63:
            raise ValueError(f"{name} must fit into signed 64 bits.")
        return values
    if values.dtype.kind == "U":
        values = np.strings.encode(values, "utf-8")
    elif values.dtype.kind == "S":
        _check_utf8(values, name)
    else:
        raise TypeError(
            f"{name} must be integers or strings, but have dtype {values.dtype}."
        )
    if (values == b"").any():
        raise ValueError(f"{name} must not be empty.")
    return values


def distinct_ids(values: Any, name: str) -> list[bytes]:
    """Converts distinct ids to UTF-8; integers become decimal digits.

    Args:
      values: Distinct integers or strings of shape [nodes].
      name: Their name in error messages.

    Raises:
      TypeError: If the ids are neither all integers nor all strings.
      ValueError: If the shape is wrong, or an id is duplicated, empty or not UTF-8.
    """
    array = as_ids(values, name)
    if array.ndim != 1:
        raise ValueError(
            f"{name} must have shape [nodes], but have shape {array.shape}."
        )
    is_text = array.dtype.kind == "S"
    nodes = [node if is_text else b"%d" % node for node in array.tolist()]
    rows: dict[bytes, int] = {}
    for row, node in enumerate(nodes):
        if rows.setdefault(node, row) != row:
            raise ValueError(
                f"{name} must be unique, but {node.decode()!r} is duplicated: in row "
                f"{rows[node]} and in row {row}."
            )
    return nodes


def _kind(value: Any) -> type | None:
    if isinstance(value, str | bytes):
        return str
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return int if is_integer else None


def _encode(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _check_utf8(values: npt.NDArray[np.bytes_], name: str) -> None:
    flat = values.reshape(-1)
    try:
        for start in range(0, len(flat), _CHUNK_IDS):
            np.strings.decode(flat[start : start + _CHUNK_IDS], "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} must be UTF-8, but one is {error.object!r} ({error.reason})."
        ) from None
