"""Tests of `nsl.files.id_table`."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsl.files import id_table
from nsl.files.id_table import IdTable, Strings

# Lengths around the 8 and 16 bytes that are looked at together, and long ones.
IDS = st.one_of(
    st.binary(min_size=1, max_size=3),
    st.sampled_from(
        [b"x" * n for n in range(1, 40)]
        + [b"x" * n + b"y" for n in range(30)]
        + [b"\0" * n for n in range(1, 20)]
    ),
)


def strings(values: list[bytes]) -> Strings:
    ends = np.cumsum([len(value) for value in values], dtype=np.int64)
    starts = ends - np.array([len(value) for value in values], np.int64)
    return Strings(b"".join(values), starts, ends)


@pytest.mark.parametrize("colliding", [False, True])
@settings(max_examples=60, deadline=None)
@given(first=st.lists(IDS), second=st.lists(IDS), queries=st.lists(IDS))
def test_agrees_with_a_dictionary(
    colliding: bool, first: list[bytes], second: list[bytes], queries: list[bytes]
) -> None:
    table, numbers = IdTable(), {}
    with pytest.MonkeyPatch.context() as patch:
        if colliding:  # every id then starts at the same place of the hash table
            patch.setattr(id_table, "_MULTIPLIER", np.uint64(0))
        for group in (first, second):
            start = len(table)
            for node in group:
                table.append(node)
            expected = [
                numbers.setdefault(node, start + i) for i, node in enumerate(group)
            ]
            assert table.settle().tolist() == expected
        found = table.find(strings(queries)).tolist()
    assert found == [numbers.get(node, -1) for node in queries]
    assert [table[i] for i in range(len(table))] == first + second


def test_remove_renumbers() -> None:
    table = IdTable()
    for node in (b"a", b"b", b"c", b"d"):
        table.append(node)
    table.settle()
    table.remove(np.array([True, False, True, False]))
    assert table.find(strings([b"a", b"b", b"c", b"d"])).tolist() == [-1, 0, -1, 1]
    table.append(b"e")
    assert table.settle().tolist() == [2]
