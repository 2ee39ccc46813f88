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
        found = table.find(Strings.of(queries)).tolist()
    assert found == [numbers.get(node, -1) for node in queries]
    assert [table[i] for i in range(len(table))] == first + second


def test_remove_renumbers() -> None:
    table = IdTable()
    for node in (b"a", b"b", b"c", b"d"):
        table.append(node)
    table.settle()
    table.remove(np.array([True, False, True, False]))
    assert table.find(Strings.of([b"a", b"b", b"c", b"d"])).tolist() == [-1, 0, -1, 1]
    table.append(b"e")
    assert table.settle().tolist() == [2]


@pytest.mark.parametrize("recent", [0, 3, 1000])
@settings(max_examples=60, deadline=None)
@given(groups=st.lists(st.lists(IDS), max_size=8))
def test_numbers_ids_as_they_come(recent: int, groups: list[list[bytes]]) -> None:
    table, numbers = IdTable(), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(id_table, "_MAX_RECENT_LOOKUPS", recent)
        for group in groups:
            expected = [numbers.setdefault(node, len(numbers)) for node in group]
            assert table.number(Strings.of(group)).tolist() == expected
    assert [table[i] for i in range(len(table))] == list(numbers)
    if all(node.rstrip(b"\0") for node in numbers):
        stripped = [node.rstrip(b"\0") for node in numbers]
        assert table.take().tolist() == stripped


@given(values=st.lists(st.text(st.characters(exclude_characters="\0"), min_size=1)))
def test_strings_of_a_list_and_of_an_array(values: list[str]) -> None:
    encoded = [value.encode() for value in values]
    for given_as in (encoded, np.array(encoded, np.bytes_)):
        taken = Strings.of(given_as)
        assert list(taken) == encoded
        assert [taken[i] for i in range(len(taken))] == encoded
