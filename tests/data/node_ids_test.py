"""Rows for ids."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsl.data.node_ids import NodeIds, Numbering
from nsl.files.id_table import Strings


@given(
    st.one_of(
        st.lists(st.integers(-(2**40), 2**40), unique=True, min_size=1),
        st.permutations(range(6)),
        st.lists(
            st.text(
                st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"),
                min_size=1,
            ),
            unique=True,
            min_size=1,
        ),
    ),
    st.randoms(use_true_random=False),
)
def test_each_id_has_its_row_and_rank(ids: list[Any], random: Any) -> None:
    nodes = NodeIds(ids)
    wanted = random.choices(range(len(ids)), k=10)
    rows = nodes.rows([ids[row] for row in wanted], "ids")
    assert rows.tolist() == wanted
    ranks = sorted(range(len(ids)), key=ids.__getitem__)
    assert [nodes.ranks[row] for row in ranks] == list(range(len(ids)))

    numbering = Numbering(nodes)
    column = nodes.values[wanted]
    listed = column if nodes.are_integers else Strings.of(column)
    assert numbering.rows(listed).tolist() == wanted


def test_new_strings_are_sorted_at_last() -> None:
    numbering = Numbering(None)
    rows = [
        row
        for ids in ([b"b", b"a"], [b"c", b"b"])
        for row in numbering.rows(Strings.of(ids)).tolist()
    ]
    nodes, final = numbering.finish()
    assert nodes.values.tolist() == [b"a", b"b", b"c"]
    assert final is not None
    assert nodes.values[final[rows]].tolist() == [b"b", b"a", b"c", b"b"]


@pytest.mark.parametrize("wrong", [-1, 2**31])
def test_integers_without_ids_are_rows(wrong: int) -> None:
    numbering = Numbering(None)
    assert numbering.rows(np.array([3, 0])).tolist() == [3, 0]
    assert len(numbering.finish()[0]) == 4
    with pytest.raises(ValueError, match="Pass ids"):
        numbering.rows(np.array([0, wrong]))


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (["a", "b", "a"], ValueError, "'a' is duplicated"),
        ([3, 3], ValueError, "3 is duplicated"),
        ([[1], [2]], ValueError, r"shape \(2, 1\)"),
        ([1, "a"], TypeError, "all integers or all strings"),
    ],
)
def test_wrong_ids(ids: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        NodeIds(ids)


def test_unknown_ids_are_shown() -> None:
    with pytest.raises(ValueError, match="not among the graph's 2: 'x', 'y'"):
        NodeIds(["a", "b"]).rows(["x", "a", "y"], "ids")
    with pytest.raises(ValueError, match=r": 2, 3, 4, 5, 6, \.\.\."):
        NodeIds(range(2)).rows(range(10), "ids")
    with pytest.raises(TypeError, match="graph are strings, but seeds are integers"):
        NodeIds(["a", "b"]).rows([0], "seeds")
    with pytest.raises(TypeError, match="graph are integers, but seeds are strings"):
        NodeIds([0, 1]).rows(["0"], "seeds")
