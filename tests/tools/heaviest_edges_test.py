"""Tests of `nsl.tools.heaviest_edges`."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nsl.tools.heaviest_edges import heaviest_edges, heaviest_targets

IDS = [name.encode() for name in ("b", "a", "é", "漢", "😀", "aa")]
NODES = st.integers(0, len(IDS) - 1)


@given(
    edges=st.lists(st.tuples(NODES, NODES, st.sampled_from([-1.0, 0.5, 0.25]))),
    limit=st.sampled_from([None, 0, 1, 3]),
)
def test_agrees_with_sorting(
    edges: list[tuple[int, int, float]], limit: int | None
) -> None:
    largest: dict[tuple[int, int], float] = {}
    for source, target, weight in edges:
        pair = source, target
        largest[pair] = max(weight, largest.get(pair, weight))
    expected = []
    for source in range(len(IDS)):
        own = [(w, IDS[t], t) for (s, t), w in largest.items() if s == source]
        expected += [(source, t, w) for w, _, t in sorted(own, reverse=True)[:limit]]
    columns = list(zip(*edges, strict=True)) or [(), (), ()]
    found = heaviest_edges(
        np.array(columns[0], np.int32),
        np.array(columns[1], np.int32),
        np.array(columns[2], np.float64),
        IDS,
        limit,
    )
    assert list(zip(*map(np.ndarray.tolist, found), strict=True)) == expected
    for source in range(len(IDS)):
        weights = {IDS[t]: w for (s, t), w in largest.items() if s == source}
        assert heaviest_targets(weights, limit) == [
            (IDS[t], w) for s, t, w in expected if s == source
        ]
