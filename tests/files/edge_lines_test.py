"""Tests of `nsl.files.edge_lines`."""

import codecs
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nsl.files.edge_lines import EdgeFile, parse_edge
from nsl.files.input_files import starts_as_gzip

# Mostly what lines are made of, so that many of them are right.
PIECES = st.sampled_from(
    ["a\tb\n", "é\t漢\t0.5\n", "\t", "\n", "\r\n", "a", "1e9", "nan", " ", "\x00", "-"]
).map(str.encode)
TEXTS = st.lists(PIECES | st.binary(max_size=3), max_size=25).map(b"".join)


def parse_directly(text: bytes) -> list[tuple[bytes, bytes, float]] | None:
    # The last line may lack its line break, or half of it.
    text = text.removeprefix(codecs.BOM_UTF8) + b"\n"
    lines = text.replace(b"\r\n", b"\n").split(b"\n")
    try:
        return [parse_edge(line) for line in lines if line.strip(b" ")]
    except ValueError:
        return None


@settings(max_examples=400, deadline=None)
@given(text=TEXTS, chunk=st.sampled_from([3, 1000]))
def test_any_bytes_are_edges_or_one_clear_error(
    text: bytes, chunk: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assume(not starts_as_gzip(text))
    path = tmp_path_factory.getbasetemp() / "edges.tsv"
    path.write_bytes(text)
    expected = parse_directly(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nsl.files.edge_lines._CHUNK_BYTES", chunk)
        if expected is None:
            with pytest.raises(ValueError, match=r"edges\.tsv, line \d+: "):
                list(EdgeFile(str(path)))
        else:
            found = [
                (edges.sources[i], edges.targets[i], float(weight))
                for edges in EdgeFile(str(path))
                for i, weight in enumerate(edges.weights)
            ]
            assert found == expected


def test_a_file_can_be_read_twice(tmp_path: Path) -> None:
    path = tmp_path / "g"
    path.write_text("a\tb\n\n")
    file = EdgeFile(str(path))
    assert [len(edges.weights) for edges in file] == [1]
    assert [len(edges.weights) for edges in file] == [1]
    assert file.blank_lines == 1


def test_a_byte_order_mark_is_no_part_of_an_id(tmp_path: Path) -> None:
    (tmp_path / "edges.tsv").write_text("a\tb\n", encoding="utf-8-sig")
    ((sources, targets, _),) = EdgeFile(str(tmp_path / "edges.tsv"))
    assert (list(sources), list(targets)) == ([b"a"], [b"b"])
