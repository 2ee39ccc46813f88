"""Tests of `nsl.tools.tsv_graph`."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsl.tools import add_edge, add_undirected_edges, read_tsv_graph, write_tsv_graph
from tests.tools.example_files import write_lines

IDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6).filter(
    lambda node: not set(node) & set("\t\n\r")
)
GRAPHS = st.dictionaries(
    IDS,
    st.dictionaries(
        IDS, st.integers(-(10**7), 10**7).map(lambda n: n / 64), min_size=1, max_size=5
    ),
    max_size=8,
)


def test_add_edge_keeps_the_largest_weight() -> None:
    graph: dict[str, dict[str, float]] = {}
    assert add_edge(graph, ["a", "b", "0.5"]) is True
    assert add_edge(graph, ("a", "b", 0.75)) is False
    assert add_edge(graph, ["a", "b", 0.25]) is False
    assert add_edge(graph, ["a", "c"]) is True
    assert graph == {"a": {"b": 0.75, "c": 1.0}}


@pytest.mark.parametrize(
    ("edge", "message"),
    [
        (["a"], "1 element"),
        (["a", "b", 1.0, 2.0], "4 element"),
        (["a", "b", "heavy"], "the weight 'heavy' is not a number"),
        (["a", "b", float("nan")], "must be finite"),
    ],
)
def test_add_edge_refuses(edge: list[Any], message: str) -> None:
    graph: dict[str, dict[str, float]] = {}
    with pytest.raises(ValueError, match=message):
        add_edge(graph, edge)
    assert graph == {}


def test_add_undirected_edges() -> None:
    graph = {"a": {"b": 0.5, "a": 1.0}, "b": {"a": 0.7}, "c": {"b": 0.1}}
    add_undirected_edges(graph)
    assert graph == {
        "a": {"b": 0.7, "a": 1.0},
        "b": {"a": 0.7, "c": 0.1},
        "c": {"b": 0.1},
    }


@settings(max_examples=60, deadline=None)
@given(graph=GRAPHS)
def test_round_trip(
    graph: dict[str, dict[str, float]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("graph") / "graph.tsv"
    write_tsv_graph(path, graph)
    assert read_tsv_graph(str(path)) == graph


def test_written_text(tmp_path: Path) -> None:
    write_tsv_graph(tmp_path / "g", {"a": {"b": 0.5, "c": 1 / 3}})
    assert (tmp_path / "g").read_text() == "a\tb\t0.500000\na\tc\t0.333333\n"


def test_read_accepts_blank_lines_windows_line_ends_and_gzip(tmp_path: Path) -> None:
    path = tmp_path / "g"
    text = "a\tb\t0.5\r\n\r\na\tb\t0.25\n  \na\tc\r\nb\té\t1e-3"
    path.write_bytes(text.encode())
    expected = {"a": {"b": 0.5, "c": 1.0}, "b": {"é": 0.001}}
    assert read_tsv_graph(path) == expected
    path.write_bytes(gzip.compress(text.encode()))
    assert read_tsv_graph(path) == expected


def test_read_refuses_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "g"
    path.write_bytes(b"a\tb\nb\t\xff\n")
    with pytest.raises(ValueError, match="line 2: the target id is not UTF-8"):
        read_tsv_graph(path)


def test_line_numbers_go_on_over_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsl.files.edge_files._CHUNK_BYTES", 16)
    lines = [f"a\tnode{i}\t{i}" for i in range(50)]
    path = write_lines(tmp_path / "g", *lines)
    assert read_tsv_graph(path) == {"a": {f"node{i}": i for i in range(50)}}
    write_lines(tmp_path / "g", *lines, "wrong", *lines)
    with pytest.raises(ValueError, match="line 51: "):
        read_tsv_graph(path)


@pytest.mark.parametrize("node", ["", "a\tb", "a\nb", "a\r"])
def test_write_refuses_an_id(node: str, tmp_path: Path) -> None:
    for graph in ({node: {"a": 1.0}}, {"a": {node: 1.0}}):
        with pytest.raises(ValueError, match="id"):
            write_tsv_graph(tmp_path / "g", graph)
    assert list(tmp_path.iterdir()) == []


def test_write_refuses_a_weight(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        write_tsv_graph(tmp_path / "g", {"a": {"b": float("inf")}})
    assert list(tmp_path.iterdir()) == []
