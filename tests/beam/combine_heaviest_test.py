"""Tests of `nsl.beam.combine_heaviest`."""

import pickle
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsl.beam import combine_heaviest
from nsl.beam.combine_heaviest import CombineHeaviest

EDGES = st.lists(
    st.tuples(
        st.sampled_from([name.encode() for name in ("a", "b", "é", "漢", "😀", "aa")]),
        st.sampled_from([-1.0, 0.0, 0.5, 0.5000001, 2.0]),
    ),
    max_size=20,
)


def directly(
    edges: Sequence[tuple[bytes, float]], limit: int | None
) -> list[tuple[bytes, float]]:
    weights: dict[bytes, float] = {}
    for target, weight in edges:
        weights[target] = max(weight, weights.get(target, weight))
    order = sorted(weights.items(), key=lambda edge: (edge[1], edge[0]), reverse=True)
    return order[:limit]


@pytest.mark.parametrize("surplus", [0, 64])
@settings(max_examples=100, deadline=None)
@given(parts=st.lists(EDGES, max_size=4), limit=st.sampled_from([None, 0, 1, 2, 4]))
def test_any_way_of_combining_gives_the_same(
    surplus: int, parts: list[list[tuple[bytes, float]]], limit: int | None
) -> None:
    combiner = CombineHeaviest(limit)
    accumulators = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(combine_heaviest, "_SURPLUS", surplus)
        for part in parts:
            accumulator = combiner.create_accumulator()
            for edge in part:
                accumulator = combiner.add_input(accumulator, edge)
            accumulators.append(pickle.loads(pickle.dumps(accumulator)))
        merged = combiner.merge_accumulators(
            combiner.compact(accumulator) for accumulator in accumulators
        )
        found = combiner.extract_output(merged)
    assert found == directly([edge for part in parts for edge in part], limit)


def test_a_seed_of_many_edges_takes_little_memory() -> None:
    combiner = CombineHeaviest(5)
    accumulator = combiner.create_accumulator()
    for number in range(5000):
        accumulator = combiner.add_input(accumulator, (b"%d" % number, number / 7))
        assert len(accumulator) < 100
    assert [target for target, _ in combiner.extract_output(accumulator)] == [
        b"4999",
        b"4998",
        b"4997",
        b"4996",
        b"4995",
    ]
