"""Files and columns of edges, and what is wrong with them."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nsl.data.edges import read_edges


def _read(edges: Any, integer_ids: bool | None = None) -> list[tuple[Any, Any, float]]:
    return [
        (source, target, float(weight))
        for part in read_edges(edges, integer_ids)
        for source, target, weight in zip(*part, strict=True)
    ]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "a\tä\t0.5\nb\tc\t2\n",
        "a\tä\t0.5\r\nb\tc\t2",
        "a\tä\t0.5\n\n \nb\tc\t2\n\n",
    ],
)
def test_a_file_of_edges(tmp_path: Path, text: str, compress: bool) -> None:
    path = tmp_path / "graph.tsv"
    data = text.encode()
    path.write_bytes(gzip.compress(data) if compress else data)
    assert _read(path) == [(b"a", "ä".encode(), 0.5), (b"b", b"c", 2.0)]
    assert _read(str(path)) == _read(path)


def test_edges_without_weights_weigh_1(tmp_path: Path) -> None:
    path = tmp_path / "graph.tsv"
    path.write_text("1\t2\n3\t4\n")
    assert _read(path, integer_ids=True) == [(1, 2, 1.0), (3, 4, 1.0)]
    path.write_text("1\t2\n3\t4\t5\n")
    assert _read(path) == [(b"1", b"2", 1.0), (b"3", b"4", 5.0)]


def test_a_file_of_many_parts(tmp_path: Path) -> None:
    path = tmp_path / "graph.tsv"
    count = 300_000
    path.write_text("".join(f"node{i}\t{i}\t{i % 7}\n" for i in range(count)))
    parts = list(read_edges(path, False))
    assert len(parts) > 1
    targets = [target for part in parts for target in part.targets]
    assert targets == [str(i).encode() for i in range(count)]
    path.write_text(path.read_text() + "a\tb\tc\td\n")
    with pytest.raises(ValueError, match=rf"graph.tsv, line {count + 1}: expected"):
        list(read_edges(path, False))


def test_an_empty_file_has_no_edges(tmp_path: Path) -> None:
    path = tmp_path / "graph.tsv"
    path.write_text("")
    assert _read(path) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"a", "expected source<TAB>target"),
        (b"a\tb\tc\td", "expected source<TAB>target"),
        (b"\tb", "expected source<TAB>target"),
        (b"a\tb\tx", "could not convert"),
        (b"a\tb\tnan", "finite"),
        (b"a\tb\t1e39", "finite"),
        (b"a\t\xff\t1", "utf-8"),
    ],
)
@pytest.mark.parametrize("before", [b"a\tb\t1\n", b"\na\tb\n"])
def test_a_wrong_line_is_named(
    tmp_path: Path, line: bytes, message: str, before: bytes
) -> None:
    path = tmp_path / "graph.tsv"
    path.write_bytes(before + line + b"\n")
    number = before.count(b"\n") + 1
    with pytest.raises(ValueError, match=rf"graph\.tsv, line {number}: .*{message}"):
        _read(path)


def test_text_where_numbers_are_expected(tmp_path: Path) -> None:
    path = tmp_path / "graph.tsv"
    path.write_text("1\t2\n1\tb\n")
    with pytest.raises(ValueError, match="line 2: invalid literal"):
        _read(path, integer_ids=True)
    path.write_text(f"1\t2\n\n{1 << 64}\t2\n")
    with pytest.raises(ValueError, match=r"line 3: .*too large"):
        _read(path, integer_ids=True)


def test_whole_numbers_may_be_written_as_floats(tmp_path: Path) -> None:
    path = tmp_path / "graph.csv"
    path.write_text("source,target,weight\n1.0,2.0,0.5\n3,4.,2\n")
    assert _read(path, integer_ids=True) == [(1, 2, 0.5), (3, 4, 2.0)]
    path.write_text("1.5,2\n")
    with pytest.raises(ValueError, match=r"graph\.csv, line 1: .*'1\.5'"):
        _read(path, integer_ids=True)


FORMS = [
    ([0, 1, 2, 3], [1, 2, 3, 0], [0.5, 1, 2, 3]),
    [(0, 1, 0.5), (1, 2), (2, 3, 2), (3, 0, 3.0)],
    [[0, 1, 2, 3], [1, 2, 3, 0], [0.5, 1, 2, 3]],
    np.array([[0, 1, 0.5], [1, 2, 1], [2, 3, 2], [3, 0, 3]]),
    np.array([[0, 1, 2, 3], [1, 2, 3, 0], [0.5, 1, 2, 3]]),
    {0: {1: 0.5}, 1: [2], 2: {3: 2}, 3: {0: 3}},
    pa.table({"weight": [0.5, 1, 2, 3], "src": [0, 1, 2, 3], "dst": [1, 2, 3, 0]}),
    pa.table({"a": [0, 1, 2, 3], "b": [1, 2, 3, 0], "c": [0.5, 1, 2, 3]}),
]


@pytest.mark.parametrize("edges", FORMS, ids=range(len(FORMS)))
def test_edges_of_one_meaning(edges: Any) -> None:
    expected = [(0, 1, 0.5), (1, 2, 1.0), (2, 3, 2.0), (3, 0, 3.0)]
    assert _read(edges) == expected


def test_edges_in_several_files(tmp_path: Path) -> None:
    (tmp_path / "a-0.tsv").write_text("a\tb\n")
    (tmp_path / "a-1.tsv").write_text("source,target\nc,d\n")
    expected = [(b"a", b"b", 1.0), (b"c", b"d", 1.0)]
    assert _read(f"{tmp_path}/a-*") == expected
    assert _read([tmp_path / "a-0.tsv", f"{tmp_path}/a-1.tsv"]) == expected


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no_graph"):
        _read(tmp_path / "no_graph.tsv")


@pytest.mark.parametrize(
    ("edges", "error", "message"),
    [
        (([0, 1], [1]), ValueError, r"equal length.*\(2,\), \(1,\) and \(2,\)"),
        (([0], [1], [1.0, 2.0]), ValueError, "equal length"),
        (([[0]], [[1]]), ValueError, "one-dimensional"),
        (([0], ["a"]), TypeError, "both must be integers, or both strings"),
        (([0, "a"], [1, 2]), TypeError, r"sources.*all strings.*\['int', 'str'\]"),
        (([0.5], [1]), TypeError, "sources must be all integers"),
        (([True], [False]), TypeError, "sources must be all integers"),
        (([0], [1], ["x"]), TypeError, "weights must be numbers"),
        (([0, 1], [1, 0], [1, np.inf]), ValueError, "Edge 1: .*finite.*inf"),
        (([""], ["a"]), ValueError, "empty"),
        (np.zeros((2, 3), np.int64), ValueError, r"shape \(2, 3\) is ambiguous"),
        (np.zeros((4, 4), np.int64), ValueError, "adjacency matrix"),
        ({"a": "b"}, TypeError, r"node 'a' is 'b'"),
        ([(0, 1), (1, 2, 3, 4)], ValueError, "Edge 1 must be"),
        ([(0, 1), (1, 2, None)], TypeError, "weights must be numbers"),
        ({"source": ["a"], "target": ["b"]}, ValueError, "ambiguous"),
        (pa.table({name: [0] for name in "abcd"}), ValueError, "source, target and w"),
        (3, TypeError, "received int"),
    ],
)
def test_wrong_edges(edges: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _read(edges)
