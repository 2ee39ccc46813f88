"""Tests of `nsl.tools.graph_statistics`."""

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nsl.tools.graph_statistics import GraphStatistics


@pytest.mark.parametrize("edges", [0, 20, 100, 300])
def test_agrees_with_scipy(edges: int) -> None:
    random = np.random.default_rng(edges)
    nodes = 200
    pairs = random.integers(0, nodes, (2, edges))
    statistics = GraphStatistics(nodes)
    for some in np.array_split(pairs, 7, axis=1):
        statistics.add(*some)
    report = statistics.report()
    matrix = coo_array((np.ones(edges), tuple(pairs)), shape=(nodes, nodes))
    _, component = connected_components(matrix, directed=False)
    degrees = np.bincount(pairs[0], minlength=nodes)
    assert report["largest_component"] == np.bincount(component).max()
    assert report["edges"] == edges
    assert report["isolated_nodes"] == nodes - len(np.unique(pairs))
    assert report["degree_quantiles"]["1"] == degrees.max()


def test_a_long_path_is_one_component() -> None:
    order = np.random.default_rng(0).permutation(10_000)
    statistics = GraphStatistics(10_000)
    statistics.add(order[1:], order[:-1], both_ways=True)
    report = statistics.report()
    assert report["largest_component"] == 10_000
    assert report["edges"] == 2 * 9_999
    assert report["degree_quantiles"]["0"] == 1


def test_homophily_counts_labeled_ends_only() -> None:
    statistics = GraphStatistics(4, np.array([0, 0, 1, -1], np.int32))
    statistics.add(np.array([0, 0, 1, 2]), np.array([1, 2, 0, 3]))
    assert statistics.report()["homophily"] == pytest.approx(2 / 3)
    unlabeled = GraphStatistics(2, np.array([-1, -1], np.int32))
    unlabeled.add(np.array([0]), np.array([1]))
    assert unlabeled.report()["homophily"] is None
