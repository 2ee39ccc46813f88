"""Tests of `nsl.ranks`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsl.ranks import ranks_in_groups


@given(st.lists(st.integers(0, 5)))
def test_counts_members_before(groups: list[int]) -> None:
    groups = sorted(groups)
    expected = [groups[:place].count(group) for place, group in enumerate(groups)]
    assert ranks_in_groups(np.array(groups, np.int32)).tolist() == expected


@pytest.mark.parametrize(
    ("groups", "expected"), [([], []), ([7], [0]), ([3, 3, 1, 1, 1], [0, 1, 0, 1, 2])]
)
def test_groups_in_any_order(groups: list[int], expected: list[int]) -> None:
    assert ranks_in_groups(np.array(groups, np.int64)).tolist() == expected
