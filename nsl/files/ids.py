"""Ids of nodes as they are given: integers or strings, in any array or sequence."""

from typing import Any

import numpy as np
import numpy.typing as npt

_IDS_AT_ONCE = 1 << 16


def as_ids(values: Any, name: str) -> npt.NDArray[Any]:
    """Returns ids as an array of integers or of UTF-8 bytes.

    Args:
      values: Integers or strings, in an array or sequence of any shape.
      name: What errors call them.

    Raises:
      TypeError: If they are neither all integers nor all strings.
      ValueError: If one does not fit into 64 bits, is empty, no UTF-8, or ends with a
        NUL.
    """
    if not isinstance(values, np.ndarray):
        # NumPy would turn the numbers of a mixed list into strings.
        values = np.array(values, dtype=object)
    if values.dtype.kind in "OT":
        kinds = {_kind(value) for value in values.flat}
        if len(kinds) > 1 or None in kinds:
            types = sorted({type(value).__name__ for value in values.flat})
            raise TypeError(
                f"{name} must be all integers or all strings, but hold {types}."
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
            raise ValueError(f"{name} must not be empty nor end with a NUL character.")
        encoded_array = np.array(encoded, np.bytes_).reshape(values.shape)
        _check_utf8(encoded_array, name)
        return encoded_array
    if values.dtype.kind in "iu":
        if values.dtype == np.uint64 and values.size and values.max() >> 63:
            raise ValueError(f"{name} must fit into 64 bits with a sign.")
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
    """Returns ids as UTF-8, integers in decimal digits.

    Args:
      values: Distinct integers or strings of shape [nodes].
      name: What errors call them.

    Raises:
      TypeError: If they are neither all integers nor all strings.
      ValueError: If they have another shape, or one stands twice, is empty or no UTF-8.
    """
    array = as_ids(values, name)
    if array.ndim != 1:
        raise ValueError(
            f"{name} must be of shape [nodes], but have shape {array.shape}."
        )
    is_text = array.dtype.kind == "S"
    nodes = [node if is_text else b"%d" % node for node in array.tolist()]
    rows: dict[bytes, int] = {}
    for row, node in enumerate(nodes):
        if rows.setdefault(node, row) != row:
            raise ValueError(
                f"{name} must differ, but {node.decode()!r} stands twice: in row "
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
        for start in range(0, len(flat), _IDS_AT_ONCE):
            np.strings.decode(flat[start : start + _IDS_AT_ONCE], "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} must be UTF-8, but one is {error.object!r} ({error.reason})."
        ) from None
