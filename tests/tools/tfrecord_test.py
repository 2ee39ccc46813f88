"""Tests of `nsl.tools.tfrecord`, and of corrupted files in the commands."""

import gzip
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsl.tools import build_graph, pack_nbrs, tfrecord
from tests.tools.example_files import (
    example,
    read_examples,
    read_records,
    write_records,
)

RECORDS = [b"", b"a", b"b" * 1000, b"\x00" * 17]


def read(path: Path) -> list[bytes]:
    file = tfrecord.RecordFile(str(path))
    try:
        found = list(file.records())
        assert [file.read(at, len(data)) for at, data in found] == [d for _, d in found]
        return [data for _, data in found]
    finally:
        file.close()


def test_reads_what_tensorflow_writes(tmp_path: Path) -> None:
    for compression in ("", "GZIP"):
        write_records(tmp_path / "r", RECORDS, compression)
        assert read(tmp_path / "r") == RECORDS


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_a_parked_file_is_opened_again(compression: str, tmp_path: Path) -> None:
    write_records(tmp_path / "r", RECORDS, compression)
    file = tfrecord.RecordFile(str(tmp_path / "r"))
    found = list(file.records())
    with (tmp_path / "copies").open("w+b") as copies:
        copies.write(b"others")
        file.park(copies)
        assert file.is_open == bool(compression)
        assert [file.read(at, len(data)) for at, data in found] == RECORDS
        assert list(file.records()) == found
        if not compression:
            file.park(copies)
            write_records(tmp_path / "r", RECORDS[::-1])
            with pytest.raises(
                ValueError, match="r was modified while it was being read"
            ):
                file.read(12, 1)
        file.close()


def test_tensorflow_reads_what_frame_writes(tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(b"".join(map(tfrecord.frame, RECORDS)))
    assert read_records(tmp_path / "r") == RECORDS


def test_records_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_records(tmp_path / "r", RECORDS)
    for size in (1, 5, 12, 13, 100):
        monkeypatch.setattr(tfrecord, "_CHUNK_BYTES", size)
        assert read(tmp_path / "r") == RECORDS


def test_a_length_that_looks_like_gzip(tmp_path: Path) -> None:
    record = bytes(0x00088B1F)
    write_records(tmp_path / "r", [record])
    assert (tmp_path / "r").read_bytes().startswith(b"\x1f\x8b\x08")
    assert read(tmp_path / "r") == [record]


def test_truncated(tmp_path: Path) -> None:
    path = tmp_path / "r"
    write_records(path, RECORDS)
    data = path.read_bytes()
    whole = {0, 16, 33, 1049, len(data)}
    for size in range(len(data)):
        path.write_bytes(data[:size])
        if size in whole:
            assert len(read(path)) == len([end for end in whole if 0 < end <= size])
        else:
            with pytest.raises(ValueError, match="is truncated: "):
                read(path)


@pytest.mark.parametrize(
    ("position", "message"),
    [
        (0, "is not a TFRecord file"),
        (17, "the length of record 1 [(]at byte 16[)] does not match its checksum"),
        (28, "the data of record 1 [(]at byte 16[)] does not match its checksum"),
        (31, "the data of record 1 [(]at byte 16[)] does not match its checksum"),
    ],
)
def test_corrupt(position: int, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r"
    write_records(path, RECORDS)
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read(path)


@pytest.mark.parametrize(
    "content",
    [b"id,x\na,1\n", b"\x00" * 50, gzip.compress(b"no records in here", mtime=0)],
    ids=["csv", "zeros", "gzip"],
)
def test_not_a_tfrecord_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(content)
    with pytest.raises(ValueError, match="is not a TFRecord file"):
        read(tmp_path / "r")


@pytest.mark.parametrize("compression", ["GZIP", "ZLIB"])
def test_what_tensorflow_compresses(compression: str, tmp_path: Path) -> None:
    write_records(tmp_path / "r", RECORDS, compression)
    assert read(tmp_path / "r") == RECORDS
    data = (tmp_path / "r").read_bytes()
    (tmp_path / "r").write_bytes(data[:-9])
    with pytest.raises(ValueError, match=f"is a corrupt {compression.lower()} file"):
        read(tmp_path / "r")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"PAR1" + bytes(20), "a Parquet file"),
        (b"\x93NUMPY" + bytes(20), r"a NumPy array \(\.npy\)"),
        (b"PK\x03\x04" + bytes(20), "a zip archive"),
        (b"id,embedding\na,0.5\n", "text"),
    ],
)
def test_other_files_are_named(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(content)
    with pytest.raises(ValueError, match=f"r is not a TFRecord file: it is {name}"):
        read(tmp_path / "r")


def examples() -> list[bytes]:
    return [
        example(
            {"id": [name], "embedding": [1.0, number], "words": ["x", "y"], "n": [-1]}
        ).SerializeToString()
        for name, number in (("a", 0.5), ("b", 0.25), ("é", 0.125))
    ]


def check_commands(folder: Path, labeled: Path) -> None:
    """Runs both commands: each works, or raises one clear error and writes nothing."""
    graph, output = folder / "graph.tsv", folder / "output"
    unlabeled = write_records(folder / "unlabeled", examples()[2:])
    graph.write_text("a\tb\nb\té\t0.5\n")
    jobs: list[Any] = [
        lambda: pack_nbrs(labeled, unlabeled, graph, output),
        lambda: build_graph(labeled, output, 0.5),
    ]
    for job in jobs:
        problem = None
        try:
            job()
        except ValueError as error:
            problem = str(error)
        assert output.exists() == (problem is None)
        if problem is not None:
            assert labeled.name in problem
        elif job is jobs[0]:
            assert all("NL_num_nbrs" in record for record in read_examples(output))
        output.unlink(missing_ok=True)
    assert {path.name for path in folder.iterdir()} <= {
        "graph.tsv",
        "labeled",
        "unlabeled",
    }


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_fuzzed_files(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    labeled = folder / "labeled"
    write_records(labeled, examples()[:2])
    content = bytearray(labeled.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(content)))
        length = data.draw(st.integers(0, 9))
        content[at : at + length] = data.draw(st.binary(max_size=9))
    labeled.write_bytes(content)
    check_commands(folder, labeled)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_fuzzed_messages_with_right_checksums(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    labeled = folder / "labeled"
    records = []
    for message in examples()[:2]:
        content = bytearray(message)
        for _ in range(data.draw(st.integers(0, 2))):
            at = data.draw(st.integers(0, len(content)))
            length = data.draw(st.integers(0, 3))
            content[at : at + length] = data.draw(st.binary(max_size=3))
        records.append(bytes(content))
    write_records(labeled, records)
    check_commands(folder, labeled)


def test_a_length_beyond_memory_is_a_truncation(tmp_path: Path) -> None:
    head = struct.pack("<Q", 1 << 62)
    crc = tfrecord._masked_crc(head)
    (tmp_path / "r").write_bytes(head + struct.pack("<I", crc) + b"data")
    with pytest.raises(ValueError, match="truncated"):
        read(tmp_path / "r")
