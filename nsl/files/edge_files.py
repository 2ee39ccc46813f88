"""Reads and writes files of edges: text, Parquet, Arrow and NumPy."""

import codecs
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from nsl.files import array_files, arrow_files, edge_lines, input_files
from nsl.files.edge_columns import (
    Edges,
    array_columns,
    edges_of,
    first_infinite,
    table_columns,
)
from nsl.files.edge_lines import Layout
from nsl.files.id_table import Strings, as_strings
from nsl.files.output_files import atomic_files, check_output
from nsl.files.text_files import as_utf8
from nsl.progress import Progress

_CHUNK_BYTES = 1 << 18
_WRITTEN_EDGES = 1 << 16
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
        head = file.read(input_files.HEAD_BYTES)
        if arrow_files.is_arrow_file(head):
            with file:
                yield from self._read_table(file)
        elif array_files.is_array_file(head):
            with file:
                yield from self._read_array(file)
        else:
            known = input_files.format_of(head)
            if known is not None:
                file.close()
                raise ValueError(f"{self.path} is not a file of edges: it is {known}.")
            with as_utf8(file, self.path) as text:
                yield from self._read_text(text)

    def _read_text(self, file: BinaryIO) -> Iterator[Edges]:
        start = file.tell()
        size = file.seek(0, 2) - start
        file.seek(start)
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
        if edge_lines.is_comment(line):
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
                wrong = first_infinite(weights)
                if wrong is not None:
                    raise ValueError(
                        f"{self.place(wrong)}: the weight must be finite in float32, "
                        f"but is {weights[wrong]}."
                    )
                if isinstance(ends[0], Strings) != isinstance(ends[1], Strings):
                    ends = list(map(as_strings, ends))
                yield Edges(ends[0], ends[1], weights)

    def _read_array(self, file: BinaryIO) -> Iterator[Edges]:
        self._unit = "edge"
        array = array_files.read_array(file, self.path)
        first = 0
        try:
            for edges in edges_of(*array_columns(array)):
                self._places = range(first, first + len(edges.weights))
                first += len(edges.weights)
                yield edges
        except (TypeError, ValueError) as error:
            message = str(error).rstrip(".")
            raise ValueError(f"{self.path}: {message}.") from None


def _no_edges() -> Edges:
    return Edges(Strings.of([]), Strings.of([]), np.empty(0))


class EdgeWriter:
    """Writes edges to a file."""

    def __init__(self, append: arrow_files.AppendEdges) -> None:
        """Initializes the writer with the function that writes a chunk of edges."""
        self._append = append

    def write(
        self,
        ids: Sequence[bytes],
        sources: npt.NDArray[np.integer],
        targets: npt.NDArray[np.integer],
        weights: npt.NDArray[np.floating],
        both_ways: bool = False,
    ) -> None:
        """Writes edges.

        Args:
          ids: The ids of all nodes, in UTF-8.
          sources: The indices of the sources in `ids`, of shape [edges].
          targets: The indices of the targets.
          weights: The weights.
          both_ways: Whether the reverse of each edge follows it.
        """
        for start in range(0, len(sources), _WRITTEN_EDGES):
            chunk = slice(start, start + _WRITTEN_EDGES)
            self._append(
                [ids[node] for node in sources[chunk].tolist()],
                [ids[node] for node in targets[chunk].tolist()],
                weights[chunk].tolist(),
                both_ways,
            )


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
        if path.endswith(arrow_files.SUFFIX):
            with arrow_files.edge_table(file, path) as append:
                yield EdgeWriter(append)
        else:
            yield EdgeWriter(lambda *edges: file.write(edge_lines.format_edges(*edges)))
