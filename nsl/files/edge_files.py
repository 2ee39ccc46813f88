"""Reads and writes files of edges: text, Parquet, Arrow and NumPy."""

import codecs
import contextlib
import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, Protocol, cast

import numpy as np

from nsl.files import arrow_files, edge_lines, input_files
from nsl.files.edge_columns import array_columns, table_columns
from nsl.files.edge_lines import Edges, Layout
from nsl.files.id_table import Ids, Strings, as_strings
from nsl.files.ids import as_ids
from nsl.files.output_files import OutputFile, atomic_files, check_output
from nsl.progress import Progress

_CHUNK_BYTES = 1 << 18
_COPY_CHARACTERS = 1 << 20
_ARRAY_EDGES = 1 << 18
_SHOWN_BYTES = 16
_NUMPY = b"\x93NUMPY"
_ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# The counts that reading a file collects.
COUNTED = ("blank_lines", "windows_line_ends", "comment_lines", "header_lines")


class EdgeFile:
    """A file of edges, read in chunks.

    Text files have one edge per line: source, target and optionally weight, separated
    by tabs, commas, semicolons, vertical bars or white space, optionally with a header.
    The format is detected from the content, not from the name.

    Attributes:
      path: The path of the file.
      counts: The numbers of blank lines, Windows line endings, comments and headers
        read so far.
    """

    def __init__(self, path: str) -> None:
        """Stores the path; the file is opened by iteration.

        Args:
          path: The path of the file, which may be compressed or remote.
        """
        self.path = path
        self.counts = dict.fromkeys(COUNTED, 0)
        self._layout: Layout | None = None
        self._lines = 0
        # The line (from 1) or row (from 0) of each edge in the last chunk.
        self._places: Sequence[int] = ()
        self._unit = "line"

    def place(self, edge: int) -> str:
        """Describes the position of an edge of the last chunk in error messages."""
        return f"{self.path}, {self._unit} {self._places[edge]}"

    def __iter__(self) -> Iterator[Edges]:
        """Reads all edges.

        Yields:
          Chunks of some thousand edges. Missing weights are 1.0. Integer ids in tables
          and arrays stay integers.

        Raises:
          ImportError: If the file needs pyarrow, which is not installed.
          OSError: If the file cannot be read.
          ValueError: If a line is not an edge.
        """
        self.counts = dict.fromkeys(COUNTED, 0)
        self._layout, self._lines, self._unit = None, 0, "line"
        file = input_files.open_decompressed(self.path)
        head = file.read(_CHUNK_BYTES)
        file.seek(0)
        if arrow_files.is_arrow_file(head):
            with file:
                yield from self._read_table(file)
        elif head.startswith(_NUMPY):
            with file:
                yield from self._read_array(file)
        else:
            known = input_files.format_of(head)
            if known is not None and not head.startswith(b"%%MatrixMarket"):
                file.close()
                raise ValueError(f"{self.path} is not a file of edges: it is {known}.")
            with self._as_utf8(file, head) as text:
                yield from self._read_text(text)

    def _as_utf8(self, file: BinaryIO, head: bytes) -> BinaryIO:
        """Converts UTF-16, UTF-32 and old Mac line endings; returns other files."""
        encoding = _encoding(head)
        if encoding is None:
            if b"\r" not in head or b"\n" in head:
                return file
            # Old Mac line endings. Latin-1 preserves every byte.
            read, write, newline = "latin-1", "latin-1", None
        else:
            read, write, newline = encoding, "utf-8", ""
        copy = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115
        try:
            with file, io.TextIOWrapper(file, read, newline=newline) as text:
                while part := text.read(_COPY_CHARACTERS):
                    copy.write(part.encode(write))
        except UnicodeDecodeError as error:
            copy.close()
            raise ValueError(f"{self.path} is invalid {read}: {error}.") from None
        copy.seek(0)
        return copy

    def _read_text(self, file: BinaryIO) -> Iterator[Edges]:
        size = file.seek(0, 2)
        file.seek(0)
        # Skip a byte order mark.
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            file.seek(0)
        unfinished: list[bytes] = []
        with Progress(f"Reading {self.path}", size, "bytes") as progress:
            while chunk := file.read(_CHUNK_BYTES):
                progress.advance(len(chunk))
                end = chunk.rfind(b"\n") + 1
                if not end:
                    unfinished.append(chunk)
                    continue
                text = b"".join((*unfinished, chunk[:end]))
                unfinished = [chunk[end:]]
                yield self._parse(text)
            if last := b"".join(unfinished):
                yield self._parse(last + b"\n")

    def _parse(self, text: bytes) -> Edges:
        """Parses complete lines, including their line breaks."""
        if b"\r" in text:
            self.counts["windows_line_ends"] += text.count(b"\r\n")
            # Some programs double the carriage return.
            text = text.replace(b"\r\r\n", b"\n").replace(b"\r\n", b"\n")
        if b"\n" + codecs.BOM_UTF8 in text:  # from concatenated files
            text = text.replace(b"\n" + codecs.BOM_UTF8, b"\n")
        while self._layout is None and text:
            line, _, text = text.partition(b"\n")
            self._lines += 1
            self._find_layout(line)
            if self._layout is not None and not self.counts["header_lines"]:
                self._lines -= 1
                text = line + b"\n" + text
        if self._layout is None or not text:
            self._places = ()
            return _no_edges()
        edges = edge_lines.parse_block(text, self._layout)
        if edges is None:
            return self._parse_line_by_line(text, self._layout)
        first = self._lines + 1
        self._lines += len(edges.weights)
        self._places = range(first, self._lines + 1)
        return edges

    def _find_layout(self, line: bytes) -> None:
        if self._skips(line, edge_lines.TAB_SEPARATED):
            return
        is_csv = self.path.lower().removesuffix(".gz").endswith(".csv")
        try:
            layout, is_header = edge_lines.find_layout(line, is_csv)
        except ValueError as error:
            raise self._error(error) from None
        self._layout = layout
        if layout is None:
            self.counts["comment_lines"] += 1
        self.counts["header_lines"] += is_header

    def _skips(self, line: bytes, layout: Layout) -> bool:
        """Counts a line that is blank or a comment, and returns whether it is."""
        if edge_lines.is_blank(line, layout):
            self.counts["blank_lines"] += 1
            return True
        if edge_lines.is_comment(line) and not line.startswith(b"%%MatrixMarket"):
            self.counts["comment_lines"] += 1
            return True
        return False

    def _error(self, error: ValueError) -> ValueError:
        return ValueError(f"{self.path}, line {self._lines}: {error}")

    def _parse_line_by_line(self, text: bytes, layout: Layout) -> Edges:
        edges = []
        places = []
        for line in text[:-1].split(b"\n"):
            self._lines += 1
            if self._skips(line, layout):
                continue
            try:
                edges.append(edge_lines.parse_edge(line, layout))
            except ValueError as error:
                raise self._error(error) from None
            places.append(self._lines)
        self._places = places
        return Edges(
            Strings.of([source for source, _, _ in edges]),
            Strings.of([target for _, target, _ in edges]),
            np.array([weight for _, _, weight in edges], np.float64),
        )

    def _read_table(self, file: BinaryIO) -> Iterator[Edges]:
        table = arrow_files.TableFile(file, self.path)
        self._unit = "row"
        try:
            places = table_columns(table.names)
        except ValueError as error:
            message = str(error).rstrip(".")
            raise ValueError(f"{self.path}: {message}.") from None
        names = [table.names[place] for place in places if place is not None]
        with Progress(f"Reading {self.path}", table.rows, "rows") as progress:
            for first, columns in table.batches(names):
                self._places = range(first, first + len(columns[0]))
                ends = [
                    table.ids(column, name, first)
                    for column, name in zip(columns[:2], names, strict=False)
                ]
                weights = np.ones(len(columns[0]))
                if len(columns) == 3:
                    weights = table.numbers(columns[2], names[2], first)
                progress.reach(first)
                yield self._checked(Edges(ends[0], ends[1], weights))

    def _read_array(self, file: BinaryIO) -> Iterator[Edges]:
        self._unit = "edge"
        try:
            columns = array_columns(np.load(file, allow_pickle=False))
        except ValueError as error:
            message = str(error).rstrip(".")
            raise ValueError(f"{self.path}: {message}.") from None
        for first in range(0, len(columns[0]), _ARRAY_EDGES):
            parts = [column[first : first + _ARRAY_EDGES] for column in columns]
            self._places = range(first, first + len(parts[0]))
            ends = [self._array_ids(part) for part in parts[:2]]
            weights = parts[2] if len(parts) == 3 else np.ones(len(parts[0]))
            yield self._checked(Edges(ends[0], ends[1], weights.astype(np.float64)))

    def _array_ids(self, values: Any) -> Ids:
        try:
            ids = as_ids(values, "the ids")
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.path}: {error}") from None
        return Strings.of(ids) if ids.dtype.kind == "S" else ids.astype(np.int64)

    def _checked(self, edges: Edges) -> Edges:
        if isinstance(edges.sources, Strings) != isinstance(edges.targets, Strings):
            edges = Edges(
                as_strings(edges.sources), as_strings(edges.targets), edges.weights
            )
        wrong = edge_lines.first_infinite(edges.weights)
        if wrong is not None:
            raise ValueError(
                f"{self.place(wrong)}: the weight must be finite in float32, but is "
                f"{edges.weights[wrong]}."
            )
        return edges


def _encoding(head: bytes) -> str | None:
    """Returns the encoding of UTF-16 or UTF-32 text, else None."""
    for bom, name in _ENCODINGS.items():
        if head.startswith(bom):
            return name
    if len(head) >= 4:
        # UTF-16 without a byte order mark has a NUL in every other byte.
        for start, name in ((1, "utf-16-le"), (0, "utf-16-be")):
            if not any(head[start:_SHOWN_BYTES:2]):
                return name
    return None


def _no_edges() -> Edges:
    return Edges(Strings.of([]), Strings.of([]), np.empty(0))


class EdgeWriter(Protocol):
    """Writes edges to an output file."""

    def write(
        self,
        sources: Sequence[bytes],
        targets: Sequence[bytes],
        weights: Sequence[float],
        both_ways: bool = False,
    ) -> None:
        """Writes edges; with `both_ways`, also their reverses."""

    def close(self) -> None:
        """Finishes the file."""


class _LineWriter:
    def __init__(self, file: OutputFile) -> None:
        self._file = file

    def write(
        self,
        sources: Sequence[bytes],
        targets: Sequence[bytes],
        weights: Sequence[float],
        both_ways: bool = False,
    ) -> None:
        form = (
            edge_lines.format_edges_both_ways if both_ways else edge_lines.format_edges
        )
        self._file.write(form(sources, targets, weights))

    def close(self) -> None:
        pass


def check_edge_output(path: str, inputs: Iterable[str] = ()) -> None:
    """Checks that a graph can be written to a path.

    Args:
      path: The path of the output.
      inputs: The files that the job reads, none of which may be the output.

    Raises:
      ImportError: If the output needs pyarrow, which is not installed.
      OSError: If the path is a directory or a device, or its directory is missing or
        not writable.
      ValueError: If the path is empty or one of `inputs`.
    """
    check_output(path, inputs)
    if path.endswith(arrow_files.SUFFIX):
        arrow_files.check_pyarrow(path)


@contextlib.contextmanager
def edge_output(path: str) -> Iterator[EdgeWriter]:
    """Writes a file of edges atomically.

    Args:
      path: The path of the output: Parquet if it ends in `.parquet`, else TSV.

    Yields:
      The writer.

    Raises:
      ImportError: If the file needs pyarrow, which is not installed.
      OSError: If the file cannot be written.
    """
    with atomic_files([path]) as (file,):
        writer: EdgeWriter
        if path.endswith(arrow_files.SUFFIX):
            writer = arrow_files.EdgeTableWriter(file, path)
        else:
            writer = _LineWriter(file)
        yield writer
        writer.close()
