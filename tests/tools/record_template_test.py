"""Tests of `nsl.tools.record_template`."""

import struct
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from nsl.tools import example_wire
from nsl.tools.record_template import RecordTemplate
from tests.tools.example_files import example

NAMES = st.binary(min_size=1, max_size=4)
ROWS = st.lists(st.floats(width=32), min_size=1, max_size=5).map(
    lambda values: struct.pack(f"<{len(values)}f", *values)
)


def entry(name: str, value: Any) -> bytes:
    feature = example({"k": value}).features.feature["k"].SerializeToString()
    size = example_wire.varint(len(feature))
    return example_wire.entry(name.encode(), b"\x12" + size + feature)


def serialize(node: bytes, row: bytes, order: list[str], label: bytes) -> bytes:
    floats = list(struct.unpack(f"<{len(row) // 4}f", row))
    values = {"id": [node], "embedding": floats, "label": [label], "empty": []}
    return example_wire.add_entries(b"", [entry(name, values[name]) for name in order])


@settings(max_examples=200, deadline=None)
@given(
    nodes=st.lists(NAMES, min_size=2, max_size=2),
    rows=st.lists(ROWS, min_size=2, max_size=2),
    labels=st.lists(NAMES, min_size=2, max_size=2),
    order=st.permutations(["id", "embedding", "label", "empty"]),
)
def test_splits_what_differs_only_in_id_and_embedding(
    nodes: list[bytes], rows: list[bytes], labels: list[bytes], order: list[str]
) -> None:
    first, second = (
        serialize(*parts, label)
        for *parts, label in zip(nodes, rows, [order] * 2, labels, strict=True)
    )
    template = RecordTemplate.of(first, "id", nodes[0], "embedding", rows[0])
    assert template is not None
    assert template.split(first) == (nodes[0], rows[0])
    if len(first) == len(second):
        same_shape = len(nodes[0]) == len(nodes[1]) and len(rows[0]) == len(rows[1])
        expected = (
            (nodes[1], rows[1]) if same_shape and labels[0] == labels[1] else None
        )
        assert template.split(second) == expected


def test_only_the_usual_form_makes_a_template() -> None:
    node, row = b"a", struct.pack("<2f", 1, 2)
    usual = serialize(node, row, ["id", "embedding"], b"")
    assert RecordTemplate.of(usual, "id", node, "embedding", row) is not None
    unpacked = b"\x12\x0c\x12\x0a" + b"".join(b"\x0d" + row[i : i + 4] for i in (0, 4))
    for unusual in (
        usual + b"\x50\x01",
        usual + usual,
        b"\x0a\x00" + usual,
        example_wire.add_entries(usual, [entry("id", [b"a"])]),
        example_wire.add_entries(
            b"", [entry("id", [node]), example_wire.entry(b"embedding", unpacked)]
        ),
    ):
        assert RecordTemplate.of(unusual, "id", node, "embedding", row) is None
    assert RecordTemplate.of(usual, "id", node, "id", row) is None
