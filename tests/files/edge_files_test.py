"""Tests of `nsl.files.edge_files`, and with it of the lines, columns and tables."""

import bz2
import codecs
import gzip
import io
import lzma
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyarrow import feather, parquet

from nsl.files.edge_columns import array_columns
from nsl.files.edge_files import EdgeFile, edge_output
from nsl.files.edge_lines import is_comment, parse_edge
from nsl.files.input_files import is_compressed

# Mostly what lines are made of, so that many of them are right.
PIECES = st.sampled_from(
    ["a\tb\n", "é\t漢\t0.5\n", "\t", "\n", "\r\n", "a", "1e9", "nan", " ", "\x00", "#",
     '"', "-"]
).map(str.encode)  # fmt: skip
TEXTS = st.lists(PIECES | st.binary(max_size=3), max_size=25).map(
    lambda pieces: b"a\tb\n" + b"".join(pieces)
)


def read(path: Path) -> list[tuple[Any, Any, float]]:
    return [
        (source, target, float(weight))
        for part in EdgeFile(str(path))
        for source, target, weight in zip(*part, strict=True)
    ]


def parse_directly(text: bytes) -> list[tuple[bytes, bytes, float]] | None:
    # The last line may lack its line break, or half of it.
    text = (text + b"\n").replace(b"\r\r\n", b"\n").replace(b"\r\n", b"\n")
    text = text.replace(b"\n" + codecs.BOM_UTF8, b"\n")
    try:
        return [
            parse_edge(line)
            for line in text.split(b"\n")
            if line.strip(b" \t") and not is_comment(line)
        ]
    except ValueError:
        return None


@settings(max_examples=400, deadline=None)
@given(text=TEXTS, chunk=st.sampled_from([3, 1000]))
def test_any_bytes_are_edges_or_one_clear_error(
    text: bytes, chunk: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "edges.tsv"
    path.write_bytes(text)
    expected = parse_directly(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nsl.files.edge_files._CHUNK_BYTES", chunk)
        if expected is None:
            with pytest.raises(ValueError, match=r"edges\.tsv, line \d+: "):
                read(path)
        else:
            assert read(path) == expected


@settings(max_examples=200, deadline=None)
@given(text=st.lists(PIECES | st.sampled_from(list("a,; |{}%0.")).map(str.encode)))
def test_any_file_is_read_or_named_in_a_value_error(
    text: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = b"".join(text)
    assume(not is_compressed(data))
    path = tmp_path_factory.getbasetemp() / "edges"
    path.write_bytes(data)
    try:
        edges = read(path)
    except ValueError as error:
        message = str(error)
    else:
        message = str(path)
        assert all(source and target for source, target, _ in edges)
    assert str(path) in message


IDS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\r"), min_size=1
).map(str.encode)


@settings(max_examples=200, deadline=None)
@given(
    edges=st.lists(st.tuples(IDS, IDS, st.integers(-99, 99).map(lambda n: n / 4))),
    suffix=st.sampled_from(["tsv", "parquet"]),
)
def test_what_is_written_is_read_again(
    edges: list[tuple[bytes, bytes, float]],
    suffix: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.getbasetemp() / f"written.{suffix}"
    ids = [node for source, target, _ in edges for node in (source, target)]
    numbers = np.arange(len(ids)).reshape(-1, 2).T
    weights = np.array([weight for _, _, weight in edges])
    with edge_output(str(path)) as file:
        for both_ways in (False, True):
            file.write(ids, *numbers, weights, both_ways)
    back = [[edge, (edge[1], edge[0], edge[2])] for edge in edges]
    assert read(path) == edges + [edge for both in back for edge in both]


@pytest.mark.parametrize("data", [b"\t", b"ab\xe9\tc\n", b"\xff\xfea"])
def test_bytes_that_are_no_text_are_named(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "g.tsv").write_bytes(data)
    if data.strip():
        with pytest.raises(ValueError, match=r"g\.tsv"):
            read(tmp_path / "g.tsv")
    else:
        assert read(tmp_path / "g.tsv") == []


EXPECTED = [(b"a", "é".encode(), 0.5), (b"b", b"c", 2.0)]


@pytest.mark.parametrize(
    ("text", "counted"),
    [
        ("a\té\t0.5\nb\tc\t2\n", {}),
        ("a\té\t0.5\r\nb\tc\t2", {"windows_line_ends": 1}),
        ("a\té\t0.5\r\r\nb\tc\t2\r\r\n", {"windows_line_ends": 2}),
        ("a\té\t0.5\rb\tc\t2\r", {}),
        ("\ufeffa\té\t0.5\n\ufeffb\tc\t2\n", {}),
        ("a\té\t0.5\t\n\t\t\n  \nb\tc\t2\n\n", {"blank_lines": 3}),
        ("# Nodes: 2\n#\tx\n%\na\té\t0.5\n# end\nb\tc\t2\n", {"comment_lines": 4}),
        ("#made by hand\na\té\t0.5\nb\tc\t2\n", {"comment_lines": 1}),
        ("source\ttarget\tweight\na\té\t0.5\nb\tc\t2\n", {"header_lines": 1}),
        ("# c\n#Source\tTarget\tWeight\na\té\t0.5\nb\tc\t2\n",
         {"comment_lines": 1, "header_lines": 1}),
        ("\tsrc_id\tdst_id\tweight\n0\ta\té\t0.5\n1\tb\tc\t2\n", {"header_lines": 1}),
        ("weight,target,source\n0.5,é,a\n2,c,b\n", {"header_lines": 1}),
        ("Source,Target,Type,Id,Label,Weight\na,é,Directed,0,,.5\nb,c,Directed,1,,2\n",
         {"header_lines": 1}),
        ("a,é,0.5\nb,c,2\n", {}),
        ("a, é, 0.5\n b , c , 2\n", {}),
        ('"a","é",0.5\nb,"c","2"\n', {}),
        ("a;é;0.5\nb;c;2\n", {}),
        ("sep=;\nSource;Target;Weight\na;é;0.5\nb;c;2\n",
         {"comment_lines": 1, "header_lines": 1}),
        ("a|é|0.5\nb|c|2\n", {}),
        ("a é 0.5\nb c 2\n", {}),
        ("  a   é 0.5\n  b \tc 2  \n", {}),
        ('"a" "é" 0.5\n"b" "c" 2\n', {}),
        ("a é {'weight': 0.5}\nb c {'weight': 2, 'kind': 'x y'}\n", {}),
        ("a, é, {'weight': 0.5}\nb,c,{'weight': 2, 'kind': 'x, y'}\n", {}),
        ('"a"\t"é"\t0.5\nb\tc\t2\n', {}),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "compress", [bytes, gzip.compress, bz2.compress, lzma.compress]
)
def test_texts_of_one_meaning(
    text: str, counted: dict[str, int], compress: Any, tmp_path: Path
) -> None:
    path = tmp_path / "graph.tsv"
    path.write_bytes(compress(text.encode()))
    file = EdgeFile(str(path))
    found = [edge for part in file for edge in zip(*part, strict=True)]
    assert found == EXPECTED
    assert {name: n for name, n in file.counts.items() if n} == counted


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_encodings_of_two_and_four_bytes(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "graph.tsv"
    path.write_text("a\té\t0.5\r\nb\tc\t2\r\n", encoding=encoding, newline="")
    assert read(path) == EXPECTED
    path.write_bytes(path.read_bytes()[:-1])
    if encoding != "utf-8-sig":
        with pytest.raises(ValueError, match=rf"graph\.tsv is invalid {encoding}"):
            read(path)


def test_the_name_tells_commas_where_spaces_are_in_ids(tmp_path: Path) -> None:
    text = "New York,Boston,0.5\nSan Francisco,New York,2\n"
    (tmp_path / "g.csv").write_text(text)
    assert read(tmp_path / "g.csv") == [
        (b"New York", b"Boston", 0.5),
        (b"San Francisco", b"New York", 2.0),
    ]
    (tmp_path / "g.txt").write_text(text)
    with pytest.raises(
        ValueError, match=r"g\.txt, line 1: the line is ambiguous, .* or"
    ):
        read(tmp_path / "g.txt")


@pytest.mark.parametrize(
    "line",
    ["#tag\tb\t1", '17" screen\tb\t1', '"error\tb\t1', '"\tb\t1',
     "http://a.org/b#c\thttp://d.org/#e\t1", '"Heroes" (song)\tb\t1', "a,b\tc d\t1",
     "source\ttarget\t1", "graph\tb\t1", "DL\tDavidL\t1", "creator\ta\t1"],
)  # fmt: skip
def test_ids_are_what_they_are(line: str, tmp_path: Path) -> None:
    (tmp_path / "g").write_text(f"{line}\n")
    source, target, _ = line.encode().split(b"\t")
    assert read(tmp_path / "g") == [(source, target, 1.0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a;b;0,5\n", "line 1: the line is ambiguous"),
        ("a\tb\t0,5\n", "line 1: the weight '0,5' is not a number"),
        ("a\tb\t\n", "line 1: the weight is empty"),
        ("a\tb\nc\tr\td\n", "line 2: the weight 'd' is not a number"),
        ("a b c d\n", r"line 1: expected .* received 4 columns"),
        ("a\tb\rc\td\ne\tf\n", "line 1: the line contains a carriage return"),
        ('"a\tb"\tc\t1\n', "line 1: there is a tab inside quotation marks"),
        ('a,"b\n', "line 1: expected"),
        ('a,b\nc,"d\n', "line 2: quotation marks are not balanced"),
        ("source\ttarget\tcosine\na\tb\t1\n", "line 1: .*'cosine'"),
        ("source\ttarget\tw\tweight\na\tb\t1\t1\n", "line 1: .*'w', 'weight'"),
        ("src\tdst\tsource\ttarget\n", "line 1: .* several names"),
        ("source\ttarget\n0\ta\tb\n", "line 2: expected 2 columns, as in the header"),
        ('{"source": "a", "target": "b"}\n', "line 1: .*JSON"),
        ("%%MatrixMarket matrix coordinate\n", r"g\.tsv is not .*scipy\.io\.mmread"),
        ("*Vertices 2\n1\n2\n*Edges\n1 2\n", "line 1: .* Pajek format"),
        ("graph [\n node [ id 1 ]\n]\n", "line 1: .* GML format"),
        ("digraph {\na -> b\n}\n", "line 1: .* DOT format"),
        ("DL n=2\nformat = edgelist1\n", "line 1: .* UCINET DL format"),
        (";A;B\nA;0;1\nB;1;0\n", "line 1: .* adjacency matrix"),
        ("\tA\tB\nA\t0\t1\n", "line 1: .* adjacency matrix"),
        ("\tb\t0.5\n", "line 1: the source id is empty"),
        ("a\tb\t0,5\n", "line 1: .*decimal point"),
        ("a b {'weight': x}\n", "line 1: the edge attributes"),
        ("PK\x03\x04", r"g\.tsv is not a file of edges: it is a zip archive"),
    ],
)  # fmt: skip
def test_texts_of_no_meaning_or_several(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "g.tsv").write_text(text, newline="")
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "g.tsv")


def test_a_file_can_be_read_twice(tmp_path: Path) -> None:
    path = tmp_path / "g"
    path.write_text("source,target\na,b\n\n")
    file = EdgeFile(str(path))
    assert [len(edges.weights) for edges in file] == [1]
    assert [len(edges.weights) for edges in file] == [1]
    assert file.counts["blank_lines"] == file.counts["header_lines"] == 1


def _parquet(columns: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.table(columns), file, row_group_size=1)
    return file.getvalue()


def _feather(columns: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    feather.write_feather(pa.table(columns), file)
    return file.getvalue()


def _stream(columns: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    table = pa.table(columns)
    with pa.ipc.new_stream(file, table.schema) as writer:
        for batch in table.to_batches(1):
            writer.write_batch(batch)
    return file.getvalue()


@pytest.mark.parametrize("write", [_parquet, _feather, _stream])
@pytest.mark.parametrize(
    "ids",
    [
        pa.string(),
        pa.large_string(),
        pa.binary(),
        pa.dictionary(pa.int8(), pa.string()),
    ],
)
def test_tables(write: Any, ids: pa.DataType, tmp_path: Path) -> None:
    sources = pa.array(["a", "b"]).cast(ids if ids != pa.binary() else pa.binary())
    columns = {
        "weight": pa.array([0.5, 2], pa.float32()),
        "dst": ["é", "c"],
        "src": sources,
    }
    (tmp_path / "g.tsv").write_bytes(write(columns))
    assert read(tmp_path / "g.tsv") == EXPECTED


def test_columns_of_tables_without_names_are_in_order(tmp_path: Path) -> None:
    (tmp_path / "g").write_bytes(_parquet({"a": [1, 2], "b": [3, 4], "c": [5, 6]}))
    assert read(tmp_path / "g") == [(1, 3, 5.0), (2, 4, 6.0)]
    for ids in ([1, 2], [1.0, 2.0]):
        (tmp_path / "g").write_bytes(_parquet({"a": ids, "b": ["x", "y"]}))
        assert read(tmp_path / "g") == [(b"1", b"x", 1.0), (b"2", b"y", 1.0)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"src": ["a", None], "dst": ["b", "c"]}, "row 1, column 'src': .*missing"),
        ({"src": ["a", "b"], "dst": ["b", ""]}, "row 1, column 'dst': .*empty"),
        ({"src": ["a", "b"], "dst": [b"b", b"\xff"]}, "row 1, column 'dst': .*UTF-8"),
        ({"src": [0.5], "dst": [1]}, "column 'src': .*0.5"),
        ({"src": [True], "dst": [1]}, "column 'src' must be strings or integers"),
        ({"src": [1], "dst": [1], "weight": ["x"]}, "'weight' must hold numbers"),
        ({"src": [1, 1], "dst": [1, 2], "w": [1.0, np.nan]}, "row 1: .*finite"),
        ({"src": [1, 1], "dst": [1, 2], "w": [1, None]}, "row 1, column 'w'"),
        ({"a": [1], "b": [1], "c": [1], "d": [1]}, "columns are"),
        (
            {"src": np.uint64([1 << 63]), "dst": [1]},
            "column 'src': .*9223372036854775808",
        ),
    ],
)
def test_wrong_tables(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "g.parquet").write_bytes(_parquet(columns))
    with pytest.raises(ValueError, match=rf"g\.parquet.*{message}"):
        read(tmp_path / "g.parquet")


@pytest.mark.parametrize("write", [_parquet, _feather, _stream])
def test_damaged_tables(write: Any, tmp_path: Path) -> None:
    data = write({"src": ["a"] * 99, "dst": ["b"] * 99})
    (tmp_path / "g").write_bytes(data[:-20])
    with pytest.raises(ValueError, match="g is a corrupt Parquet or Arrow file"):
        read(tmp_path / "g")


def test_pyarrow_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "g").write_bytes(_parquet({"src": ["a"], "dst": ["b"]}))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'nsl\[arrow\]'"):
        read(tmp_path / "g")
    with (
        pytest.raises(ImportError, match=r"pip install 'nsl\[arrow\]'"),
        edge_output(str(tmp_path / "new.parquet")),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["g"]


def test_arrays(tmp_path: Path) -> None:
    edges = np.array([[0, 1, 2, 9], [1, 2, 3, 0]])
    for array in (edges, edges.T, edges.T.astype(np.uint8)):
        np.save(tmp_path / "g.npy", array)
        assert read(tmp_path / "g.npy") == [
            (source, target, 1.0) for source, target in edges.T.tolist()
        ]
    np.save(tmp_path / "g.npy", np.array([["a", "é"]] * 4))
    assert read(tmp_path / "g.npy") == [(b"a", "é".encode(), 1.0)] * 4


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3), int), "edges may be rows or columns"),
        (np.zeros((4, 5), int), r"shape \(4, 5\)"),
        (np.eye(4), "csr_array"),
        (np.zeros(4, int), r"shape \(4,\)"),
        (np.full((4, 3), 0.5), "whole numbers"),
        (np.full((4, 2), np.nan), "whole numbers"),
    ],
)
def test_arrays_of_no_meaning_or_several(array: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^[A-Z].*{message}.*\.$"):
        array_columns(array)


def test_structured_arrays_and_weights() -> None:
    rows = np.array([(1, 2, 0.5)], [("src", int), ("dst", int), ("weight", float)])
    assert [column.tolist() for column in array_columns(rows)] == [[1], [2], [0.5]]
    rows = np.array([[0, 1, 0.5]] * 4)
    assert [column[0] for column in array_columns(rows)] == [0, 1, 0.5]
