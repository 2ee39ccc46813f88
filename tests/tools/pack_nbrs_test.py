"""Tests of `nsl.tools.pack_nbrs`."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from nsl.tools import pack_nbrs
from nsl.tools.pack_nbrs import main
from tests.tools.example_files import (
    example,
    plain,
    read_examples,
    read_records,
    write_examples,
    write_lines,
    write_records,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "packing.json"
LAUNCHER = Path(__file__).parents[2] / "tools" / "pack_nbrs.py"


def write_inputs(
    folder: Path,
    labeled: list[dict[str, Any]],
    unlabeled: list[dict[str, Any]],
    edges: list[tuple[Any, ...]],
) -> tuple[str, str, str, str]:
    return (
        write_examples(folder / "labeled.tfr", labeled),
        write_examples(folder / "unlabeled.tfr", unlabeled),
        write_lines(
            folder / "graph.tsv", *("\t".join(map(str, edge)) for edge in edges)
        ),
        str(folder / "out.tfr"),
    )


def small_inputs(folder: Path) -> tuple[str, str, str, str]:
    return write_inputs(
        folder,
        [{"id": ["a"], "x": [1.0], "label": [0]}, {"id": ["b"], "x": [2.0]}],
        [{"id": ["c"], "x": [3.0]}, {"id": ["d"], "x": [4.0]}],
        [("a", "b", 0.5), ("a", "c", 0.7), ("c", "d"), ("a", "ghost", 2.0)],
    )


def golden_cases() -> list[dict[str, Any]]:
    return json.loads(GOLDEN.read_text())["cases"]


@pytest.mark.parametrize("case", golden_cases(), ids=lambda case: str(case["config"]))
def test_golden(case: dict[str, Any], tmp_path: Path) -> None:
    inputs = case["inputs"]

    def records(ids: list[str]) -> list[dict[str, Any]]:
        features = inputs["features"]
        return [
            {
                "id": [name],
                "words": features[name]["words"],
                "label": [features[name]["label"]],
            }
            for name in ids
        ]

    paths = write_inputs(
        tmp_path,
        records(inputs["labeled"]),
        records(inputs["unlabeled"]),
        inputs["edges"],
    )
    pack_nbrs(*paths, **case["config"])
    expected = [
        {
            name: [kind, [v.encode() if isinstance(v, str) else v for v in values]]
            for name, (kind, values) in record.items()
        }
        for record in case["expected"]
    ]
    for record, other in zip(read_examples(paths[3]), expected, strict=True):
        own, wanted = (
            neighbors(other),
            [n for n in neighbors(other) if n["id"] != other["id"]],
        )
        # NSL 1.4 takes an example for its own neighbor; here the next one comes in.
        found = neighbors(record)
        assert found[: len(wanted)] == wanted
        if wanted == own:
            assert record == other


def neighbors(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the features of each neighbor."""
    (count,) = record["NL_num_nbrs"][1]
    prefixes = [f"NL_nbr_{i}_" for i in range(count)]
    return [
        {
            name.removeprefix(prefix): value
            for name, value in record.items()
            if name.startswith(prefix)
        }
        for prefix in prefixes
    ]


def slow_pack(
    labeled: list[bytes],
    unlabeled: list[bytes],
    edges: list[tuple[str, str, float]],
    both_ways: bool,
    max_nbrs: int | None,
    seeds: str,
    neighbor_features: list[str] | None,
) -> list[dict[str, Any]]:
    """The join, written directly with dictionaries and TensorFlow's own protos."""
    examples: dict[str, tf.train.Example] = {}
    for data in [*labeled, *unlabeled]:
        message = tf.train.Example.FromString(data)
        name = message.features.feature["id"].bytes_list.value[0].decode()
        examples.setdefault(name, message)
    graph: dict[tuple[str, str], float] = {}
    for source, target, weight in edges:
        for pair in [(source, target)] + [(target, source)] * both_ways:
            graph[pair] = max(weight, graph.get(pair, weight))
    result = []
    num_seeds = len(examples) if seeds == "all" else len(labeled)
    for name in list(examples)[:num_seeds]:
        merged = tf.train.Example()
        merged.CopyFrom(examples[name])
        nearest = sorted(
            ((w, t) for (s, t), w in graph.items() if s == name != t and t in examples),
            reverse=True,
        )[:max_nbrs]
        feature = merged.features.feature
        feature["NL_num_nbrs"].int64_list.value[:] = [len(nearest)]
        for i, (weight, target) in enumerate(nearest):
            feature[f"NL_nbr_{i}_weight"].float_list.value[:] = [weight]
            for key, value in examples[target].features.feature.items():
                if neighbor_features is None or key in neighbor_features:
                    feature[f"NL_nbr_{i}_{key}"].CopyFrom(value)
        result.append(plain(merged))
    return result


# Ids of several lengths and scripts, so that prefixes and ties come up.
IDS = [
    "a",
    "b",
    "ab",
    "é",
    "漢字",
    "😀",
    "b" * 17,
    "b" * 16,
    "\x00",
    "a\x00",
    "Ω-7",
    "10",
]
FEATURES = st.dictionaries(
    st.sampled_from(["x", "", "né", "long" * 40, "NL_nbr_0_x", "label"]),
    st.one_of(
        st.lists(st.floats(width=32, allow_nan=False), max_size=40),
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
        st.lists(st.binary(max_size=200), max_size=3),
    ),
    max_size=4,
)
# What a newer writer might put beside the fields we know, at each level.
UNKNOWN = st.sampled_from(
    [b"", b"\x50\x01", b"\x59" + b"\xff" * 8, b"\x5d1234", b"\x63\x08\x01\x64"]
)


def tagged(tag: bytes, data: bytes) -> bytes:
    size = len(data)
    length = b""
    while size >= 0x80:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return tag + length + bytes([size]) + data


@st.composite
def serialized_examples(draw: st.DrawFn, name: str) -> bytes:
    """Serializes an Example in any of the ways that the format allows."""
    features = {**draw(FEATURES), "id": [name]}
    entries = []
    for key, values in features.items():
        message = example({"k": values}).features.feature["k"].SerializeToString()
        value = tagged(b"\x12", message + draw(UNKNOWN))
        fields = [tagged(b"\x0a", key.encode()), value]
        if draw(st.booleans()):
            fields.reverse()
        if not key and draw(st.booleans()):
            fields = [value]
        entries.append(tagged(b"\x0a", b"".join(fields)))
    cut = draw(st.integers(0, len(entries)))
    maps = [b"".join(entries[:cut]) + draw(UNKNOWN), b"".join(entries[cut:])]
    return draw(UNKNOWN) + b"".join(tagged(b"\x0a", part) for part in maps)


@st.composite
def jobs(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.permutations(IDS))
    cuts = sorted(draw(st.lists(st.integers(0, len(names)), min_size=2, max_size=2)))
    labeled, unlabeled = names[: cuts[0]], names[cuts[0] : cuts[1]]
    # Some ids stand in both files.
    unlabeled = unlabeled + labeled[:1] * draw(st.booleans())
    edges = draw(
        st.lists(
            st.tuples(
                st.sampled_from(IDS),
                st.sampled_from(IDS),
                st.sampled_from([1.0, 0.5, 0.25, -1.0, 1e-30]),
            ),
            max_size=60,
        )
    )
    return {
        "labeled": [draw(serialized_examples(name)) for name in labeled],
        "unlabeled": [draw(serialized_examples(name)) for name in unlabeled],
        "edges": edges,
        "both_ways": draw(st.booleans()),
        "max_nbrs": draw(st.sampled_from([None, 0, 1, 3, 12])),
        "seeds": draw(st.sampled_from(["labeled", "all"])),
        "neighbor_features": draw(st.sampled_from([None, ["id"]])),
    }


# How many edges wait to be sorted: with few, every chunk of the file is merged anew.
PENDING = st.sampled_from([1, 1 << 19])


@settings(max_examples=60, deadline=None)
@given(job=jobs(), pending=PENDING)
def test_agrees_with_a_direct_implementation(
    job: dict[str, Any], pending: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("job")
    labeled = write_records(folder / "labeled", job["labeled"])
    unlabeled = write_records(folder / "unlabeled", job["unlabeled"])
    lines = ["\t".join(map(str, edge)) for edge in job["edges"]]
    graph = write_lines(folder / "graph", *lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nsl.tools.neighbor_table._PENDING_EDGES", pending)
        patch.setattr("nsl.files.edge_files._CHUNK_BYTES", 50 if pending == 1 else 9999)
        pack_nbrs(
            labeled,
            unlabeled,
            graph,
            folder / "out",
            add_undirected_edges=job["both_ways"],
            max_nbrs=job["max_nbrs"],
            seeds=job["seeds"],
            neighbor_features=job["neighbor_features"],
        )
    assert read_examples(folder / "out") == slow_pack(**job)


def test_ties_go_to_the_larger_id_in_code_point_order(tmp_path: Path) -> None:
    # In UTF-16 the emoji would sort before U+FFFD.
    names = ["\ufffd", "😀", "9", "10", "a"]
    paths = write_inputs(
        tmp_path,
        [{"id": ["seed"]}],
        [{"id": [name]} for name in names],
        [("seed", name) for name in names],
    )
    pack_nbrs(*paths)
    (record,) = read_examples(paths[3])
    order = [record[f"NL_nbr_{i}_id"][1][0].decode() for i in range(5)]
    assert order == ["😀", "\ufffd", "a", "9", "10"]


def test_parse_example_reads_the_output(tmp_path: Path) -> None:
    paths = small_inputs(tmp_path)
    pack_nbrs(*paths, max_nbrs=2)
    parsed = tf.io.parse_example(
        read_records(paths[3]),
        {
            "x": tf.io.FixedLenFeature([1], tf.float32),
            "NL_num_nbrs": tf.io.FixedLenFeature([], tf.int64),
            "NL_nbr_0_x": tf.io.FixedLenFeature([1], tf.float32, [0.0]),
            "NL_nbr_1_weight": tf.io.FixedLenFeature([], tf.float32, 0.0),
        },
    )
    assert parsed["NL_num_nbrs"].numpy().tolist() == [2, 0]
    assert parsed["NL_nbr_0_x"].numpy().tolist() == [[3.0], [0.0]]
    assert parsed["NL_nbr_1_weight"].numpy().tolist() == [0.5, 0.0]


def test_report(tmp_path: Path) -> None:
    paths = write_inputs(
        tmp_path,
        [{"id": ["a"]}, {"id": ["b"]}],
        [{"id": ["c"]}, {"id": ["a"], "x": [1.0]}],
        [
            ("a", "b"),
            ("a", "c"),
            ("ghost", "a"),
            ("", ""),
            ("b", "fog"),
            ("b", "fog"),
            ("b", "b", 9.0),
            ("fog", "fog"),
        ],
    )
    Path(paths[2]).write_text(Path(paths[2]).read_text().replace("\t\n", "\n"))
    report = pack_nbrs(*paths, report_path=tmp_path / "report.json")
    assert report == {
        "labeled_examples": 2,
        "unlabeled_examples": 1,
        "ids_in_both_sets": 1,
        "edges": 7,
        "blank_lines": 1,
        "windows_line_ends": 0,
        "comment_lines": 0,
        "header_lines": 0,
        "self_edges": 1,
        "edges_to_unknown_ids": 4,
        "first_unknown_ids": ["ghost", "fog"],
        "records": 2,
        "records_by_number_of_neighbors": {0: 1, 2: 1},
        "output_bytes": Path(paths[3]).stat().st_size,
    }
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["edges_to_unknown_ids"] == 4
    # The labeled example of an id wins.
    assert "x" not in read_examples(paths[3])[0]


def test_dry_run_tells_the_size_and_writes_nothing(tmp_path: Path) -> None:
    paths = small_inputs(tmp_path)
    before = set(tmp_path.iterdir())
    size = pack_nbrs(*paths, dry_run=True)["output_bytes"]
    assert set(tmp_path.iterdir()) == before
    pack_nbrs(*paths)
    assert Path(paths[3]).stat().st_size == size


def test_without_unlabeled_examples(tmp_path: Path) -> None:
    labeled, _, graph, output = small_inputs(tmp_path)
    pack_nbrs(labeled, "", graph, output)
    assert [r["NL_num_nbrs"][1] for r in read_examples(output)] == [[1], [0]]


def test_no_examples_at_all(tmp_path: Path) -> None:
    paths = write_inputs(tmp_path, [], [], [])
    assert pack_nbrs(*paths)["records"] == 0
    assert Path(paths[3]).read_bytes() == b""


def test_windows_line_ends(tmp_path: Path) -> None:
    paths = small_inputs(tmp_path)
    graph = Path(paths[2])
    pack_nbrs(*paths)
    expected = Path(paths[3]).read_bytes()
    graph.write_bytes(graph.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    report = pack_nbrs(*paths)
    assert (report["blank_lines"], report["windows_line_ends"]) == (1, 5)
    assert Path(paths[3]).read_bytes() == expected


@pytest.mark.parametrize("form", ["list", "pattern", "commas", "gzip"])
def test_inputs_in_several_files(form: str, tmp_path: Path) -> None:
    paths = small_inputs(tmp_path)
    pack_nbrs(*paths)
    expected = Path(paths[3]).read_bytes()
    compression = "GZIP" if form == "gzip" else ""
    parts = [
        write_records(tmp_path / f"part-{i}", [record], compression)
        for i, record in enumerate(read_records(paths[0]))
    ]
    labeled: Any = {
        "list": parts,
        "gzip": parts,
        "pattern": str(tmp_path / "part-*"),
        "commas": ",".join(parts),
    }[form]
    pack_nbrs(labeled, *paths[1:])
    assert Path(paths[3]).read_bytes() == expected


def test_shards_hold_the_records_in_order(tmp_path: Path) -> None:
    paths = write_inputs(tmp_path, [{"id": [f"n{i}"]} for i in range(7)], [], [])
    pack_nbrs(*paths)
    pack_nbrs(*paths, num_shards=3, compression="gzip")
    shards = [f"{paths[3]}-{i:05d}-of-00003" for i in range(3)]
    records = [read_records(shard, "GZIP") for shard in shards]
    assert [*itertools.chain(*records)] == read_records(paths[3])
    assert [len(shard) for shard in records] == [3, 2, 2]


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_more_shards_than_files_may_be_open(compression: str, tmp_path: Path) -> None:
    _, unlabeled, graph, output = small_inputs(tmp_path)
    count = 150
    for i in range(count):
        record = example({"id": [f"n{i}"], "x": [float(i)]}).SerializeToString()
        write_records(tmp_path / f"part-{i:03d}", [record], compression)
    write_lines(Path(graph), *(f"n{i}\tn{i * 7 % count}" for i in range(count)))
    program = (
        "import resource, sys; from nsl.tools.pack_nbrs import main\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (130, 130))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    pattern = str(tmp_path / "part-*")
    arguments = [pattern, unlabeled, graph, output, "--num_shards=140"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": str(LAUNCHER.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pack_nbrs(pattern, unlabeled, graph, output)
    shards = sorted(tmp_path.glob("out.tfr-*"))
    assert len(shards) == 140
    records = [record for shard in shards for record in read_records(shard)]
    assert records == read_records(output)
    assert len(records) == count


def test_input_through_another_scheme(tmp_path: Path) -> None:
    paths = small_inputs(tmp_path)
    pack_nbrs(*paths)
    expected = Path(paths[3]).read_bytes()
    remote = [f"file://{path}" for path in paths]
    remote[3] += ".remote"
    pack_nbrs(*remote)
    assert Path(f"{paths[3]}.remote").read_bytes() == expected


def test_a_neighbor_feature_called_weight_is_refused(tmp_path: Path) -> None:
    paths = write_inputs(
        tmp_path,
        [{"id": ["a"]}, {"id": ["b"], "weight": [70.0], "x": [1.0]}],
        [],
        [("a", "b", 0.5)],
    )
    with pytest.raises(ValueError, match="feature named 'weight'"):
        pack_nbrs(*paths)
    assert not Path(paths[3]).exists()
    pack_nbrs(*paths, neighbor_features=["x"])
    record = read_examples(paths[3])[0]
    assert record["NL_nbr_0_weight"] == ["float_list", [0.5]]


BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"max_nbrs": -1}, "max_nbrs must be at least 0, but is -1"),
    ({"num_shards": 0}, "num_shards must be at least 1"),
    ({"seeds": "some"}, "seeds must be one of"),
    ({"compression": "zip"}, "compression must be one of"),
    ({"neighbor_features": ["y"]}, "no neighbor has"),
    ({"id_feature_name": "name"}, "labeled.tfr, record 0: it has no feature 'name'"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS)
def test_bad_arguments(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    paths = small_inputs(tmp_path)
    before = set(tmp_path.iterdir())
    with pytest.raises(ValueError, match=message):
        pack_nbrs(*paths, **arguments)
    assert set(tmp_path.iterdir()) == before


BAD_EXAMPLES: list[tuple[list[dict[str, Any]], str]] = [
    ([{"x": [1.0]}], "record 0: it has no feature 'id'; its features are 'x'"),
    ([{"id": []}], "record 0: its feature 'id' must hold one value, but holds 0"),
    ([{"id": ["a", "b"]}], "record 0: .* must hold one value, but holds 2"),
    ([{"id": ["ok"]}, {"id": [""]}], "record 1: its feature 'id' is the empty"),
    (
        [{"id": [7.0]}],
        "record 0: its feature 'id' must be bytes or an integer, but is of kind float",
    ),
    ([{"id": [7, 8]}], "record 0: .* must hold one value, but holds 2"),
    ([{"id": ["p"], "NL_num_nbrs": [0]}], "record 0: it is already packed"),
    ([{"id": [b"\xff"]}], "record 0: its feature 'id' must be UTF-8"),
    ([{"id": ["z"]}, {"id": ["z"]}], "Duplicate id 'z': in the record at byte"),
]


@pytest.mark.parametrize("role", ["labeled", "unlabeled"])
@pytest.mark.parametrize(("examples", "message"), BAD_EXAMPLES)
def test_bad_examples(
    examples: list[dict[str, Any]], message: str, role: str, tmp_path: Path
) -> None:
    paths = small_inputs(tmp_path)
    write_examples(tmp_path / f"{role}.tfr", examples)
    before = set(tmp_path.iterdir())
    with pytest.raises(ValueError, match=message) as error:
        pack_nbrs(*paths)
    assert f"{role}.tfr" in str(error.value)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("role", ["labeled", "unlabeled"])
def test_sequence_examples_are_refused(role: str, tmp_path: Path) -> None:
    paths = small_inputs(tmp_path)
    message = tf.train.SequenceExample(context=example({"id": ["s"]}).features)
    # Without lists it is an Example, byte for byte.
    records = [message.SerializeToString()]
    message.context.feature["id"].bytes_list.value[:] = [b"t"]
    message.feature_lists.feature_list["words"].feature.add().int64_list.value[:] = [1]
    write_records(tmp_path / f"{role}.tfr", [*records, message.SerializeToString()])
    before = set(tmp_path.iterdir())
    with pytest.raises(
        ValueError, match=r"record 1: .*tf\.train\.SequenceExample"
    ) as e:
        pack_nbrs(*paths)
    assert f"{role}.tfr" in str(e.value)
    assert set(tmp_path.iterdir()) == before


def test_packed_records_are_not_packed_again(tmp_path: Path) -> None:
    paths = small_inputs(tmp_path)
    pack_nbrs(*paths)
    with pytest.raises(ValueError, match=r"out\.tfr, record 0: it is already packed"):
        pack_nbrs(paths[3], *paths[1:3], tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


def test_integers_as_ids(tmp_path: Path) -> None:
    """A node has its number as id, whether it is written as number or as text."""
    paths = write_inputs(
        tmp_path,
        [{"id": [7], "x": [1.0]}, {"id": ["-8"], "x": [2.0]}],
        [{"id": [9], "x": [3.0]}],
        [(7, 9), (-8, 7, 0.5)],
    )
    assert pack_nbrs(*paths)["edges_to_unknown_ids"] == 0
    records = read_examples(paths[3])
    assert records[0]["NL_nbr_0_id"] == ["int64_list", [9]]
    assert [r["NL_nbr_0_x"][1] for r in records] == [[3.0], [1.0]]
    more = write_examples(tmp_path / "more.tfr", [{"id": ["7"]}])
    with pytest.raises(ValueError, match="Duplicate id '7'"):
        pack_nbrs([paths[0], more], *paths[1:])


@pytest.mark.parametrize("integers", [False, True])
def test_the_graph_as_a_table_or_an_array(integers: bool, tmp_path: Path) -> None:
    ids: list[Any] = [1, 2, 3] if integers else ["1", "2", "3"]
    edges = [(1, 2, 0.5), (2, 3, 0.25), (3, 1, 1.0), (1, 3, 0.75)]
    paths = write_inputs(tmp_path, [{"id": [node]} for node in ids], [], edges)
    pack_nbrs(*paths)
    expected = Path(paths[3]).read_bytes()
    sources, targets, weights = zip(*edges, strict=True)
    np.save(tmp_path / "edges.npy", np.array(edges))
    ends = [[ids[node - 1] for node in nodes] for nodes in (sources, targets)]
    parquet.write_table(
        pa.table({"source": ends[0], "target": ends[1], "weight": weights}),
        tmp_path / "edges.parquet",
    )
    (tmp_path / "edges.csv").write_text(
        "Weight;Source;Target\r\n" + "".join(f"{w};{s};{t}\r\n" for s, t, w in edges)
    )
    for name in ("edges.npy", "edges.parquet", "edges.csv"):
        report = pack_nbrs(*paths[:2], tmp_path / name, paths[3])
        assert Path(paths[3]).read_bytes() == expected
        assert report["edges"] == 4
    assert report["header_lines"] == 1


def test_same_id_twice_in_several_files(tmp_path: Path) -> None:
    paths = small_inputs(tmp_path)
    more = write_examples(tmp_path / "more.tfr", [{"id": ["b"]}])
    with pytest.raises(ValueError, match=r"labeled\.tfr.*more\.tfr"):
        pack_nbrs([paths[0], more], *paths[1:])


BAD_LINES = [
    ("a", r"line 5: expected source<TAB>target.*1 column: 'a'"),
    ("a\tb\t1\t2", r"line 5: .*4 columns"),
    ("\tb", "line 5: the source id is empty"),
    ("a\t\t1", "line 5: the target id is empty"),
    ("a\tb\tmuch", "line 5: the weight 'much' is not a number"),
    ("a\tb\t", "line 5: the weight is empty"),
    ("a\tb\tnan", "line 5: the weight must be finite, but is nan"),
    ("a\tb\t-inf", "line 5: the weight must be finite, but is -inf"),
    ("a\tb\t1e39", "line 5: the weight 1e[+]39 is too large"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_bad_lines(line: str, message: str, tmp_path: Path) -> None:
    paths = small_inputs(tmp_path)
    with Path(paths[2]).open("a") as file:
        file.write(f"{line}\na\tb\n")
    before = set(tmp_path.iterdir())
    with pytest.raises(ValueError, match=message) as error:
        pack_nbrs(*paths)
    assert "graph.tsv" in str(error.value)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("position", range(3))
def test_missing_input(position: int, tmp_path: Path) -> None:
    paths = list(small_inputs(tmp_path))
    paths[position] = str(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        pack_nbrs(*paths)
    paths[position] = str(tmp_path / "no*where")
    with pytest.raises(FileNotFoundError, match="matches the pattern"):
        pack_nbrs(*paths)


@pytest.mark.parametrize("position", range(3))
def test_input_that_is_a_folder(position: int, tmp_path: Path) -> None:
    paths = list(small_inputs(tmp_path))
    paths[position] = str(tmp_path)
    with pytest.raises(IsADirectoryError):
        pack_nbrs(*paths)


@pytest.mark.parametrize("position", range(3))
def test_output_that_is_an_input(position: int, tmp_path: Path) -> None:
    paths = list(small_inputs(tmp_path))
    before = Path(paths[position]).read_bytes()
    paths[3] = str(tmp_path / "." / Path(paths[position]).name)
    with pytest.raises(ValueError, match="is also one of the inputs"):
        pack_nbrs(*paths)
    assert Path(paths[position]).read_bytes() == before


def test_output_in_a_missing_folder(tmp_path: Path) -> None:
    paths = small_inputs(tmp_path)
    with pytest.raises(FileNotFoundError, match="directory of the output"):
        pack_nbrs(*paths[:3], tmp_path / "nowhere" / "out")


def test_main(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    paths = small_inputs(tmp_path)
    pack_nbrs(*paths, add_undirected_edges=True, max_nbrs=1, seeds="all")
    expected = Path(paths[3]).read_bytes()
    flags = ["--add_undirected_edges", "--max_nbrs=1", "--id_feature_name=id"]
    assert main([*flags, *paths, "--seeds=all"]) == 0
    assert Path(paths[3]).read_bytes() == expected
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--max_nbrs=-1", "a", "b", "c", "d"], 2, "max_nbrs"),
        (["--wrong=1", "a", "b", "c", "d"], 2, "wrong"),
        (["a", "b", "c"], 2, "Expected 4 arguments"),
        (["a", "", "c", "d"], 1, "There is no file 'a'."),
    ],
)
def test_main_with_errors(
    arguments: list[str], code: int, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("pack_nbrs: ")
    assert message in line


def test_launcher_runs_from_any_folder_without_tensorflow(tmp_path: Path) -> None:
    small_inputs(tmp_path)
    program = (
        "import runpy, sys; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as exit: assert not exit.code\n"
        "assert 'tensorflow' not in sys.modules"
    )
    arguments = ["--max_nbrs=5", "labeled.tfr", "unlabeled.tfr", "graph.tsv", "out.tfr"]
    subprocess.run(
        [sys.executable, "-c", program, str(LAUNCHER), *arguments],
        cwd=tmp_path,
        check=True,
    )
    assert len(read_examples(tmp_path / "out.tfr")) == 2


def test_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nsl.tools.pack_nbrs", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--max_nbrs" in done.stdout
    assert done.stderr == ""
