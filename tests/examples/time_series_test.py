"""examples/time_series.py in small."""

import numpy as np
import pytest
import time_series


@pytest.mark.arithmetic
def test_the_graph_helps_where_labels_are_few(
    capsys: pytest.CaptureFixture[str],
) -> None:
    time_series.main(["--quick"])
    lines = capsys.readouterr().out.splitlines()
    [cells] = [line.split() for line in lines if line.startswith("all ")]
    plain, regularized = float(cells[1]), float(cells[4])
    assert regularized > plain + 8


def test_series_are_what_their_kinds_say() -> None:
    series, kinds = time_series.make_series(900, seed=1)
    assert np.bincount(kinds).tolist() == [300, 300, 300]
    np.testing.assert_allclose(series.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(series.std(axis=1), 1, rtol=1e-4)
    # Bells are highest late in their event, funnels early.
    bell, funnel = (series[kinds == kind].mean(axis=0).argmax() for kind in (1, 2))
    assert funnel + 10 < bell
    again, _ = time_series.make_series(900, seed=1)
    np.testing.assert_array_equal(series, again)


def test_similarity_does_not_mind_a_shift() -> None:
    rng = np.random.default_rng(0)
    event = np.zeros(time_series.LENGTH)
    event[20:60] = rng.normal(size=40)
    series = np.stack([event, np.roll(event, 50), rng.normal(size=event.shape)])
    series -= series.mean(axis=1, keepdims=True)
    series /= series.std(axis=1, keepdims=True)
    similarity = time_series.similarities(series)
    np.testing.assert_allclose(np.diag(similarity), 1, rtol=1e-6)
    assert similarity[0, 1] > 0.9
    assert similarity[0, 2] < 0.5


def test_edges_join_series_of_the_same_kind() -> None:
    series, kinds = time_series.make_series(150, seed=2)
    graph = time_series.make_graph(series, neighbors=3)
    assert np.mean(kinds[graph.sources] == kinds[graph.targets]) > 0.95
    assert not np.any(graph.sources == graph.targets)
