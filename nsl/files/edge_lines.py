"""Edges as lines of text: `source<TAB>target[<TAB>weight]`, ids in UTF-8."""

import codecs
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nsl.files import input_files
from nsl.files.id_table import Strings
from nsl.files.progress import Progress

_CHUNK_BYTES = 1 << 18
_LARGEST_WEIGHT = float(np.finfo(np.float32).max)
_TAB, _NEWLINE = b"\t\n"


class Edges(NamedTuple):
    """Some edges of a graph, as columns of equal length.

    Attributes:
      sources: The ids of the sources.
      targets: The ids of the targets.
      weights: The weights.
    """

    sources: Strings
    targets: Strings
    weights: npt.NDArray[np.float64]


class EdgeFile:
    """A file of edges, read in chunks.

    Attributes:
      path: The file's name.
      blank_lines: How many blank lines were passed over so far.
      windows_line_ends: How many lines so far ended in carriage return and newline.
      line_numbers: The line, counted from 1, of each of the edges yielded last.
    """

    def __init__(self, path: str) -> None:
        """Names the file; nothing is read yet.

        Args:
          path: The file's name. It may be gzip, or remote.
        """
        self.path = path
        self.blank_lines = 0
        self.windows_line_ends = 0
        self.line_numbers: Sequence[int] = ()
        self._lines = 0

    def __iter__(self) -> Iterator[Edges]:
        """Reads all edges.

        Yields:
          The edges, some thousands at a time. Edges without a weight
          have weight 1.0.

        Raises:
          OSError: If the file cannot be read.
          ValueError: If a line is no edge.
        """
        file = input_files.open_input(self.path)
        if input_files.starts_as_gzip(file.read(3)):
            file.seek(0)
            file = input_files.decompress(file, self.path)
        with file:
            size = file.seek(0, 2)
            file.seek(0)
            # Some editors and tables begin UTF-8 with a mark that is no part of an id.
            if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
                file.seek(0)
            self.blank_lines = self.windows_line_ends = self._lines = 0
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
        """Parses whole lines, each with its line break."""
        if b"\r" in text:
            self.windows_line_ends += text.count(b"\r\n")
            text = text.replace(b"\r\n", b"\n")
        edges = _parse_regular(text)
        if edges is None:
            return self._parse_line_by_line(text)
        first = self._lines + 1
        self._lines += len(edges.weights)
        self.line_numbers = range(first, self._lines + 1)
        return edges

    def _parse_line_by_line(self, text: bytes) -> Edges:
        edges = []
        numbers = []
        for line in text[:-1].split(b"\n"):
            self._lines += 1
            if not line.strip(b" "):
                self.blank_lines += 1
                continue
            try:
                edges.append(parse_edge(line))
            except ValueError as error:
                raise ValueError(f"{self.path}, line {self._lines}: {error}") from None
            numbers.append(self._lines)
        self.line_numbers = numbers
        return Edges(
            Strings.of([source for source, _, _ in edges]),
            Strings.of([target for _, target, _ in edges]),
            np.array([weight for _, _, weight in edges], np.float64),
        )


def _parse_regular(text: bytes) -> Edges | None:
    """Parses lines that are all right and have the same number of columns.

    Returns:
      The edges, or None if some line is blank, wrong or of another form; a second
      look at each line then tells which.
    """
    characters = np.frombuffer(text, np.uint8)
    breaks = np.flatnonzero((characters == _TAB) | (characters == _NEWLINE))
    columns = 3 if (characters[breaks[1:2]] == _TAB).any() else 2
    if len(breaks) % columns:
        return None
    ends = breaks.reshape(-1, columns)
    is_tab = characters[ends] == _TAB
    if not is_tab[:, :-1].all() or is_tab[:, -1].any():
        return None
    starts = np.concatenate(([0], breaks[:-1] + 1)).reshape(-1, columns)
    if (starts[:, :2] == ends[:, :2]).any():
        return None
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            return None
    if columns == 2:
        weights = np.ones(len(ends))
    else:
        texts = text[:-1].replace(b"\n", b"\t").split(b"\t")[2::3]
        try:
            weights = np.fromiter(map(float, texts), np.float64, len(texts))
        except ValueError:
            return None
        if not (np.abs(weights) <= _LARGEST_WEIGHT).all():
            return None
    sources, targets = (
        Strings(text, starts[:, column], ends[:, column]) for column in range(2)
    )
    return Edges(sources, targets, weights)


def parse_edge(line: bytes) -> tuple[bytes, bytes, float]:
    """Parses one line.

    Args:
      line: The line without its line break.

    Returns:
      The source's id, the target's id and the weight, 1.0 if there is none.

    Raises:
      ValueError: If the line is no edge.
    """
    columns = line.split(b"\t")
    if len(columns) not in (2, 3):
        raise ValueError(
            "expected source<TAB>target or source<TAB>target<TAB>weight, but received "
            f"{len(columns)} column(s): {_quote(line)}"
        )
    for end, node in zip(("source", "target"), columns, strict=False):
        if not node:
            raise ValueError(
                f"the {end}'s id is empty; expected source<TAB>target[<TAB>weight], "
                f"but received {_quote(line)}"
            )
        try:
            node.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"the {end}'s id is not UTF-8 ({error}): {_quote(line)}"
            ) from None
    if len(columns) == 2:
        return columns[0], columns[1], 1.0
    return columns[0], columns[1], parse_weight(columns[2])


def parse_weight(text: str | bytes | float) -> float:
    """Returns an edge's weight as a float.

    Args:
      text: The weight, as a number or its text.

    Raises:
      ValueError: If it is no number, or not finite as a float32.
    """
    try:
        weight = float(text)
    except ValueError as error:
        raise ValueError(f"the weight {_quote(text)} is no number ({error})") from None
    if not math.isfinite(weight):
        raise ValueError(f"the weight must be finite, but is {weight}")
    if abs(weight) > _LARGEST_WEIGHT:
        raise ValueError(f"the weight {weight} is too large to be finite as a float32")
    return weight


def _quote(value: object) -> str:
    quoted = repr(value).removeprefix("b")
    return quoted if len(quoted) <= 100 else quoted[:97] + "..."


def check_node_id(node: bytes) -> None:
    """Raises ValueError if an id cannot stand in a line of edges."""
    if b"\t" in node or b"\n" in node or b"\r" in node:
        raise ValueError(
            f"the id {_quote(node)} holds a tab or a line break, which a TSV file of "
            "edges cannot hold"
        )


def format_edges(
    sources: Sequence[bytes], targets: Sequence[bytes], weights: Iterable[float]
) -> bytes:
    """Returns edges as lines, with six decimals of the weight.

    Args:
      sources: The ids of the sources.
      targets: The ids of the targets.
      weights: The weights.

    Returns:
      One line for each edge.
    """
    return b"".join(
        map(b"%b\t%b\t%.6f\n".__mod__, zip(sources, targets, weights, strict=True))
    )


def format_edges_both_ways(
    sources: Sequence[bytes], targets: Sequence[bytes], weights: Iterable[float]
) -> bytes:
    """Returns each edge as two lines: itself and its reverse.

    Args:
      sources: The ids of the sources.
      targets: The ids of the targets.
      weights: The weights.

    Returns:
      Two lines for each edge.
    """
    texts = list(map(b"%.6f".__mod__, weights))
    columns = zip(sources, targets, texts, targets, sources, texts, strict=True)
    return b"".join(map(b"%b\t%b\t%b\n%b\t%b\t%b\n".__mod__, columns))
