"""Graphs in memory, from every form of edges."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from sklearn.neighbors import NearestNeighbors

import nsl
from nsl.data import Graph

NODES = 7
EDGES = st.lists(
    st.tuples(
        st.integers(0, NODES - 1),
        st.integers(0, NODES - 1),
        st.sampled_from([0.25, 0.5, 1.0, -2.0]),
    )
)


def neighbors(graph: Graph) -> list[list[tuple[Any, float]]]:
    """Returns (id, weight) of the neighbors of each row."""
    pairs = list(zip(graph.ids[graph.targets].tolist(), graph.weights, strict=True))
    splits = graph.row_splits.tolist()
    return [pairs[a:b] for a, b in itertools.pairwise(splits)]


def expected(edges: Any, ids: list[Any], undirected: bool) -> list[Any]:
    """Computes the same with the graph functions of `nsl.tools`."""
    graph: dict[Any, Any] = {}
    for edge in edges:
        nsl.tools.add_edge(graph, edge)
    if undirected:
        nsl.tools.add_undirected_edges(graph)
    return [
        sorted(
            (edge for edge in graph.get(node, {}).items() if edge[0] != node),
            key=lambda edge: (edge[1], edge[0]),
            reverse=True,
        )
        for node in ids
    ]


@given(EDGES, st.booleans(), st.permutations(range(NODES)))
def test_integers(edges: Any, undirected: bool, ids: list[int]) -> None:
    columns = [[edge[i] for edge in edges] for i in range(3)]
    graph = Graph(tuple(columns), ids=ids, undirected=undirected)
    assert graph.ids.tolist() == ids
    assert neighbors(graph) == expected(edges, ids, undirected)
    assert graph.self_edges == sum(a == b for a, b, _ in edges)
    assert graph.num_edges == graph.row_splits[-1] == len(graph.weights)


@given(EDGES, st.booleans(), st.booleans())
def test_strings(edges: Any, undirected: bool, ids_given: bool) -> None:
    names = ["é", "z", "Ω", "a", "aa", "\U0001f600", "\uffee"]
    edges = [(names[a], names[b], w) for a, b, w in edges]
    columns = [[edge[i] for edge in edges] for i in range(3)]
    ids = names if ids_given else sorted({edge[i] for edge in edges for i in (0, 1)})
    graph = Graph(
        tuple(columns), ids=names if ids_given else None, undirected=undirected
    )
    assert graph.ids.tolist() == ids
    assert neighbors(graph) == expected(edges, ids, undirected)


def test_all_forms_give_the_same_graph(tmp_path: Path) -> None:
    sources, targets, weights = [0, 3, 0, 2], [1, 0, 3, 1], [1.0, 2.0, 0.5, 4.0]
    path = tmp_path / "graph.tsv"
    path.write_text("0\t1\t1\n3\t0\t2\n0\t3\t.5\n2\t1\t4\n")
    matrix = scipy.sparse.coo_array((weights, (sources, targets)), shape=(4, 4))
    as_dict = {0: {1: 1.0, 3: 0.5}, 3: {0: 2.0}, 2: {1: 4.0}}
    graphs = [
        Graph((sources, targets, weights)),
        Graph((np.array(sources, np.uint8), np.array(targets), np.array(weights))),
        Graph(as_dict),
        Graph(path, ids=range(4)),
        Graph(matrix),
        Graph(matrix.tocsr()),
    ]
    for graph in graphs:
        assert neighbors(graph) == [[(1, 1), (3, 0.5)], [], [(1, 4)], [(0, 2)]]
    named = Graph(matrix, ids=["d", "c", "b", "a"])
    assert neighbors(named) == [[("c", 1), ("a", 0.5)], [], [("c", 4)], [("d", 2)]]
    assert neighbors(Graph(path)) == [
        [("1", 1), ("3", 0.5)],
        [],
        [("1", 4)],
        [("0", 2)],
    ]


def test_the_graph_of_many_blocks() -> None:
    rng = np.random.default_rng(0)
    sources, targets = rng.integers(0, 50_000, (2, 600_000))
    targets += sources == targets
    targets %= 50_000
    weights = rng.integers(1, 1000, 600_000)
    graph = Graph((sources, targets, weights), undirected=True)
    matrix = scipy.sparse.csr_array((50_000, 50_000))
    for columns in ((sources, targets), (targets, sources)):
        order = np.argsort(weights, kind="stable")
        last = dict(
            zip(
                (columns[0][order] * 50_000 + columns[1][order]).tolist(),
                weights[order].tolist(),
                strict=True,
            )
        )
        pairs = np.array(list(last))
        matrix = matrix.maximum(
            scipy.sparse.csr_array(
                (list(last.values()), (pairs // 50_000, pairs % 50_000)),
                shape=matrix.shape,
            )
        )
    ours = scipy.sparse.csr_array(
        (graph.weights, graph.targets, graph.row_splits), shape=matrix.shape
    )
    assert abs(ours - matrix).max() == 0
    np.testing.assert_array_equal(graph.sources, ours.tocoo().row)
    assert graph.num_edges == matrix.nnz
    falls = np.diff(graph.weights) <= 0
    falls[graph.row_splits[1:-1][graph.row_splits[1:-1] < graph.num_edges] - 1] = True
    assert falls.all()
    assert graph.nbytes <= 20 * graph.num_edges


def test_unknown_ids() -> None:
    edges = {"a": {"b": 1.0, "x": 1.0}, "y": {"a": 1.0}}
    with pytest.raises(ValueError, match=r"'y'.*'x'.*skip_unknown=True"):
        Graph(edges, ids=["a", "b"])
    graph = Graph(edges, ids=["b", "a"], skip_unknown=True)
    assert neighbors(graph) == [[], [("b", 1.0)]]
    with pytest.raises(TypeError, match=r"ids are integers, but .* strings"):
        Graph(edges, ids=[0, 1])


def test_no_node_is_its_own_neighbor(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(20, 3))
    index = NearestNeighbors(n_neighbors=4).fit(x)
    with_self = index.kneighbors_graph(x)
    graph, without = Graph(with_self), Graph(index.kneighbors_graph())
    assert (graph.self_edges, without.self_edges) == (20, 0)
    assert graph.num_edges == 60
    for nearest, more in zip(neighbors(graph), neighbors(without), strict=True):
        assert set(nearest) < set(more)
    # A node that has no other edge is a node all the same.
    path = tmp_path / "graph.tsv"
    path.write_text("a\ta\nb\tb\t3\nb\ta\t2\n")
    for graph in (Graph(path), Graph({"a": {"a": 1}, "b": {"b": 3.0, "a": 2.0}})):
        assert neighbors(graph) == [[], [("a", 2.0)]]
        assert (graph.self_edges, graph.power(2).self_edges) == (2, 0)


def test_a_matrix_means_what_it_means_to_scipy() -> None:
    places = ([0, 0, 1, 2, 2], [1, 1, 2, 0, 1])
    repeated = scipy.sparse.coo_array(([1.0, 2.0, 0.0, 4.0, 0.5], places), shape=(3, 3))
    unsorted = scipy.sparse.csr_array(
        ([1.0, 2.0, 0.0, 0.5, 4.0], [1, 1, 2, 1, 0], [0, 2, 3, 5]), shape=(3, 3)
    )
    by_keys = scipy.sparse.dok_array(repeated.toarray())
    for matrix in (repeated, unsorted, by_keys, scipy.sparse.lil_array(repeated)):
        assert neighbors(Graph(matrix)) == [[(1, 3.0)], [], [(0, 4.0), (1, 0.5)]]
    assert (repeated.nnz, unsorted.nnz) == (5, 5)


def test_a_matrix_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 2\), but there are 3 ids"):
        Graph(scipy.sparse.eye_array(2), ids=range(3))
    with pytest.raises(ValueError, match="square"):
        Graph(scipy.sparse.csr_array((2, 3)))


def test_no_edges(tmp_path: Path) -> None:
    (tmp_path / "empty.tsv").touch()
    for graph in (Graph(([], []), ids=range(3)), Graph({}, ids=range(3))):
        assert graph.num_nodes == 3
        assert graph.row_splits.tolist() == [0] * 4
        assert graph.power(2).num_edges == 0
    assert Graph(tmp_path / "empty.tsv").num_nodes == 0


def test_rows_of_ids() -> None:
    graph = Graph({"a": {"b": 1.0}})
    assert repr(graph) == "Graph(num_nodes=2, num_edges=1)"
    assert graph.rows([["b", "a"], ["a", "a"]]).tolist() == [[1, 0], [0, 0]]
    with pytest.raises(ValueError, match=r"ids have .*: 'c'"):
        graph.rows(["c"])


def test_ids_in_tables_are_integers_or_strings(tmp_path: Path) -> None:
    """Numbers stay numbers, unless the nodes are named by strings."""
    path = tmp_path / "g.parquet"
    parquet.write_table(pa.table({"src": [0, 2], "dst": [1, 0]}), path)
    by_number = nsl.data.Graph(path)
    assert by_number.ids.tolist() == [0, 1, 2]
    assert by_number.targets.tolist() == [1, 0]
    assert nsl.data.Graph(path, ids=[2, 1, 0]).targets.tolist() == [2, 1]
    assert nsl.data.Graph(path, ids=["2", "1", "0"]).targets.tolist() == [2, 1]
    (tmp_path / "g.csv").write_text("source,target\n0,1\n2,0\n")
    assert nsl.data.Graph(tmp_path / "g.csv").ids.tolist() == ["0", "1", "2"]
    both = [tmp_path / "g.csv", path]
    assert nsl.data.Graph(both).num_edges == 2
    assert nsl.data.Graph(both, ids=range(3)).num_edges == 2
