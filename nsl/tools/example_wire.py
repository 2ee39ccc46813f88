"""Adds features to a serialized `tf.train.Example` without parsing their values.

An Example is a protobuf map from names to features. Map entries are serialized
independently, and the last entry with a name wins. A feature can thus be copied to
another Example by writing a new name before its serialized value; only tags, lengths
and names are parsed. For the wire format, see
https://protobuf.dev/programming-guides/encoding.

These functions require valid Examples and do not validate them.
"""

import functools
import struct
from collections.abc import Iterable, Iterator

_VARINT, _FIXED64, _BYTES, _START_GROUP, _END_GROUP, _FIXED32 = range(6)
_TAG_1, _TAG_2 = 0x0A, 0x12  # fields 1 and 2, length-delimited
_FIELD_1, _FIELD_2 = b"\x0a", b"\x12"
# The feature that marks a packed example.
NUM_NEIGHBORS = b"NL_num_nbrs"
_FLOAT = struct.Struct("<f")
_FLOAT_HEAD = b"\x12\x08\x12\x06\x0a\x04"  # a value, a float list, four bytes


def varint(number: int) -> bytes:
    """Encodes a nonnegative integer as a base-128 varint."""
    if number < 0x80:
        return number.to_bytes(1, "little")
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns the varint at `at` and the position after it."""
    byte = data[at]
    at += 1
    if byte < 0x80:
        return byte, at
    number = byte & 0x7F
    shift = 7
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7


def _skip(data: bytes, at: int, wire_type: int) -> int:
    """Returns the position after a value that is skipped."""
    if wire_type == _VARINT:
        return _read_varint(data, at)[1]
    if wire_type == _FIXED64:
        return at + 8
    if wire_type == _FIXED32:
        return at + 4
    if wire_type == _BYTES:
        length, at = _read_varint(data, at)
        return at + length
    while True:  # a group ends with its end tag
        tag, at = _read_varint(data, at)
        if tag & 7 == _END_GROUP:
            return at
        at = _skip(data, at, tag & 7)


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yields (number if length-delimited else 0, start, value start, end) of fields."""
    while at < end:
        start = at
        tag, at = _read_varint(data, at)
        if tag & 7 == _BYTES:
            length, value = _read_varint(data, at)
            at = value + length
            yield tag >> 3, start, value, at
        else:
            value = at
            at = _skip(data, at, tag & 7)
            yield 0, start, value, at


def _one_map_from(example: bytes) -> int | None:
    """Returns the start of the map if an Example consists of one map, else None."""
    if example[:1] != _FIELD_1:
        return None
    length, start = _read_varint(example, 1)
    return start if start + length == len(example) else None


def check_example(data: bytes) -> None:
    """Raises ValueError if a record cannot be packed.

    The context of a `tf.train.SequenceExample` parses as the features of an Example,
    but its feature_lists would be lost. A packed example would keep its old neighbors,
    which may not be in the graph.

    Args:
      data: A valid serialized Example or SequenceExample.
    """
    if NUM_NEIGHBORS in data and any(
        name == NUM_NEIGHBORS for name, _ in split_features(data)
    ):
        raise ValueError(
            f"it is already packed: it has the feature {NUM_NEIGHBORS.decode()!r}. "
            "Pass the examples from before packing"
        )
    if _one_map_from(data) is None and any(
        number == 2 for number, *_ in _fields(data, 0, len(data))
    ):
        raise ValueError(
            "it is a tf.train.SequenceExample, whose feature_lists cannot be packed; "
            "write it as a tf.train.Example, with each list as a feature"
        )


def split_features(example: bytes) -> list[tuple[bytes, bytes]]:
    """Splits a serialized Example into its features.

    Args:
      example: A valid serialized Example.

    Returns:
      For each entry of the map, in order, the feature's name and the rest of the
      entry: the value with its tag and length, and any unknown fields.
    """
    features: list[tuple[bytes, bytes]] = []
    for number, _, start, end in _fields(example, 0, len(example)):
        if number == 1:
            _split_map(example, start, end, features)
    return features


def _split_map(
    data: bytes, at: int, end: int, features: list[tuple[bytes, bytes]]
) -> None:
    """Appends the features of the map from `at` to `end`.

    This is the innermost loop of packing. Entries in the usual form, name then value,
    are split here; any others by `_split_entry`.
    """
    while at < end:
        start = at
        if data[at] == _TAG_1:
            length, at = _read_varint(data, at + 1)
            stop = at + length
            if length > 4 and data[at] == _TAG_1:
                name = at + 2
                rest = name + data[at + 1]
                if rest + 1 < stop and data[at + 1] < 0x80 and data[rest] == _TAG_2:
                    size, value = _read_varint(data, rest + 1)
                    if value + size == stop:
                        features.append((data[name:rest], data[rest:stop]))
                        at = stop
                        continue
        number, _, entry_start, at = next(_fields(data, start, end))
        if number == 1:
            features.append(_split_entry(data, entry_start, at))


def _split_entry(data: bytes, start: int, end: int) -> tuple[bytes, bytes]:
    name = b""
    rest = []
    for number, field, value, field_end in _fields(data, start, end):
        if number == 1:
            name = data[value:field_end]
        else:
            rest.append(data[field:field_end])
    return name, b"".join(rest)


@functools.lru_cache(maxsize=1 << 14)
def entry_head(prefix: bytes, name: bytes, size: int) -> bytes:
    """Returns the serialized head of a map entry: everything before the value.

    Args:
      prefix: The prefix of the feature's new name.
      name: The name without the prefix.
      size: The size in bytes of the rest of the entry, as in `split_features`.

    Returns:
      The entry's tag and length, and the name with its tag and length.
    """
    length = len(prefix) + len(name)
    named = b"".join((_FIELD_1, varint(length), prefix, name))
    return b"".join((_FIELD_1, varint(len(named) + size), named))


def entry(name: bytes, rest: bytes) -> bytes:
    """Serializes a map entry.

    Args:
      name: The feature's name.
      rest: The rest of the entry, as in `split_features`.

    Returns:
      The serialized entry, with its tag and length.
    """
    return entry_head(b"", name, len(rest)) + rest


def float_value(value: float) -> bytes:
    """Returns the rest of an entry for a float_list of one float32."""
    return _FLOAT_HEAD + _FLOAT.pack(value)


def packed_floats(values: bytes) -> bytes:
    """Returns the rest of an entry for a float_list.

    Args:
      values: At least one float32, little-endian.
    """
    return _value(_FIELD_2, _FIELD_1 + varint(len(values)) + values)


def bytes_value(value: bytes) -> bytes:
    """Returns the rest of an entry for a bytes_list of one value."""
    return _value(_FIELD_1, _FIELD_1 + varint(len(value)) + value)


def int64_value(value: int) -> bytes:
    """Returns the rest of an entry for an int64_list of one nonnegative integer."""
    packed = varint(value)
    return _value(b"\x1a", _FIELD_1 + varint(len(packed)) + packed)


def _value(kind: bytes, values: bytes) -> bytes:
    feature = kind + varint(len(values)) + values
    return _FIELD_2 + varint(len(feature)) + feature


def add_entries(example: bytes, entries: Iterable[bytes]) -> bytes:
    """Appends entries to the features of a serialized Example.

    Args:
      example: A valid serialized Example.
      entries: Serialized entries, or consecutive parts of them. An entry replaces any
        feature of the same name.

    Returns:
      The serialized Example with the added entries.
    """
    added = b"".join(entries)
    start = _one_map_from(example)
    if start is not None:
        length = len(example) - start + len(added)
        return b"".join((_FIELD_1, varint(length), example[start:], added))
    # Parsing merges concatenated messages of the same type.
    return b"".join((example, _FIELD_1, varint(len(added)), added))
