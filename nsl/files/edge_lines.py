"""Parses and formats lines of edges: `source<TAB>target[<TAB>weight]` in UTF-8."""

import ast
import codecs
import csv
import math
import operator
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nsl.files.edge_columns import LARGEST_WEIGHT, EdgeColumns, Edges, named_columns
from nsl.files.id_table import Strings

_TAB, _NEWLINE, _QUOTE = b'\t\n"'
_SPECIAL = frozenset(b'"#%\xef')  # the first bytes of ids that may need quotes
_COMMENTS = np.frombuffer(b"#%", np.uint8)
_AFTER_COMMENT_SIGN = np.frombuffer(b" \t#%\n", np.uint8)
_FORM = "source<TAB>target or source<TAB>target<TAB>weight"


# First lines of other formats of graphs, and their names.
_OTHER_FORMATS = {
    rb"(?i)\*(vertices|network)\b": "Pajek",
    rb"(?i)graph *\[? *$|creator +\"": "GML",
    rb"(?i)(strict +)?(di)?graph\b[^\t]*\{ *$": "DOT",
    rb"(?i)dl([ ,]+n *=| *$)": "UCINET DL",
    rb"nodedef>": "GDF",
}


class Layout(NamedTuple):
    """How the lines of a file are split into columns.

    Attributes:
      separator: The separator; a space means any white space.
      columns: The indices of the columns.
      width: The number of columns in each line, or None if weights may be missing.
    """

    separator: bytes = b"\t"
    columns: EdgeColumns = EdgeColumns(0, 1, 2)
    width: int | None = None


TAB_SEPARATED = Layout()
# Columns and widths of the layouts (source, target[, weight]).
_IN_ORDER = (
    (EdgeColumns(0, 1, 2), None),
    (EdgeColumns(0, 1, 2), 3),
    (EdgeColumns(0, 1, None), 2),
)


def is_comment(line: bytes) -> bool:
    """Returns whether a line is a comment: # or %, followed by white space."""
    return line[:1] in (b"#", b"%") and line[1:2] in (b"", b" ", b"\t", b"#", b"%")


def is_blank(line: bytes, layout: Layout = TAB_SEPARATED) -> bool:
    """Returns whether a line has only white space and separators."""
    return not line.strip(b" \t" + layout.separator)


def find_layout(line: bytes, prefer_commas: bool = False) -> tuple[Layout | None, bool]:
    """Detects the layout of a file.

    Args:
      line: The first line that is neither blank nor, by `is_comment`, a comment.
      prefer_commas: Whether the file is named .csv: columns are then separated by
        commas or semicolons.

    Returns:
      The layout, or None if the line is a comment after all; and whether the line is a
      header.

    Raises:
      ValueError: If the line is malformed or ambiguous.
    """
    for form, name in _OTHER_FORMATS.items():
        if re.match(form, line):
            raise ValueError(
                f"this is a graph in {name} format, not a file of edges: read it with "
                "another library, such as NetworkX, and pass a sparse matrix or a list "
                "of edges to nsl.data.Graph"
            )
    if re.fullmatch(rb'"?sep=."?', line):  # for Excel
        return None, False
    uncommented = line.lstrip(b"#% ")
    readings = _readings(uncommented, prefer_commas)
    for separator, names in readings.items():
        texts = [name.decode(errors="replace") for name in names]
        if len(names) > 2 and _is_number(names[2]):
            continue
        columns = named_columns(texts)
        if columns is not None:
            return Layout(separator, columns, len(names)), True
    readings = _readings(line, prefer_commas)
    if any(
        len(row) > 2 and not row[0] and all(row[1:]) and not _is_number(row[2])
        for row in readings.values()
    ):
        raise ValueError(
            f"the first column has no name, as in an adjacency matrix: {_quote(line)}; "
            "pass the matrix as a scipy.sparse.csr_array to nsl.data.Graph, or name "
            "the columns source, target and weight"
        )
    fitting = [
        separator
        for separator, columns in readings.items()
        if len(columns) in (2, 3)
        and all(columns[:2])
        and not (b"\t" not in line and columns[1][:1] == b"{")
    ]
    if line[:1] in (b"#", b"%") and fitting != [b"\t"]:
        return None, False
    if b"\t" not in line and line.lstrip()[:1] in (b"{", b"[", b"<"):
        raise ValueError(f"expected {_FORM}, but received JSON or XML: {_quote(line)}")
    if len(fitting) > 1:
        forms = " or ".join(f"{readings[separator]}" for separator in fitting)
        raise ValueError(
            f"the line is ambiguous, {forms}: {_quote(line)}; separate the columns by "
            "tabs"
        )
    if readings and not fitting and b"\t" not in line:
        most = max(readings, key=lambda separator: len(readings[separator]))
        if len(readings[most]) > 3:
            return Layout(most), False
    return Layout(fitting[0] if fitting else b"\t"), False


def _readings(line: bytes, prefer_commas: bool) -> dict[bytes, list[bytes]]:
    """Returns the columns of a line by separator."""
    if b"\t" in line:
        return {b"\t": split_line(line, b"\t")}
    separators = [b",", b";", b"|", b" "]
    if prefer_commas:
        separators = [b","] if b"," in line and b";" not in line else [b",", b";"]
    readings = {}
    for separator in separators:
        try:
            columns = split_line(line, separator)
        except ValueError:
            continue
        if len(columns) > 1:
            readings[separator] = columns
    if (
        any(
            column[:1] in b",;|" or column[-1:] in b",;|"
            for column in readings.get(b" ", ())
        )
        and len(readings) > 1
    ):
        del readings[b" "]
    return readings


def split_line(line: bytes, separator: bytes) -> list[bytes]:
    """Splits a line into columns, and removes quotation marks as in CSV.

    Args:
      line: The line.
      separator: The separator; a space means any white space.

    Raises:
      ValueError: If quotation marks are not balanced.
    """
    if separator == b"\t":
        columns = line.split(b"\t")
        if _QUOTE not in line:
            return columns
        halves = [column for column in columns if column.count(b'"') % 2]
        if len(halves) > 1 and halves[0][:1] == b'"' == halves[-1][-1:]:
            raise ValueError(
                f"there is a tab inside quotation marks: {_quote(line)}; ids in TSV "
                "files must not contain tabs"
            )
        return [_unquoted(column) for column in columns]
    if separator != b"\t" and b"{" in line and line.rstrip().endswith(b"}"):
        # NetworkX writes the attributes of an edge as a dict.
        ends, brace, attributes = line.partition(b"{")
        ends = ends.strip(b" ").removesuffix(separator)
        return [*split_line(ends, separator), brace + attributes.rstrip()]
    if _QUOTE in line:
        try:
            # Latin-1 maps each byte to one character.
            (row,) = csv.reader(
                [line.decode("latin-1").strip(" ")],
                delimiter=separator.decode(),
                skipinitialspace=True,
                strict=True,
            )
        except csv.Error as error:
            raise ValueError(
                f"quotation marks are not balanced ({error}): {_quote(line)}"
            ) from None
        return [column.encode("latin-1").strip(b" ") for column in row]
    if separator == b" ":
        return line.split()
    return [column.strip(b" ") for column in line.split(separator)]


def _unquoted(column: bytes) -> bytes:
    """Removes the quotation marks of a column that is quoted as in CSV."""
    inner = column[1:-1]
    is_quoted = len(column) > 1 and column[:1] == b'"' == column[-1:]
    if is_quoted and _QUOTE not in inner.replace(b'""', b""):
        return inner.replace(b'""', b'"')
    return column


def parse_block(text: bytes, layout: Layout) -> Edges | None:
    """Parses well-formed lines with the same number of columns.

    Args:
      text: Complete lines, including their line breaks.
      layout: The layout of the lines.

    Returns:
      The edges, or None if any line is blank, malformed or different; such lines must
      be parsed one by one.
    """
    if layout[1:] not in _IN_ORDER:
        return None
    separator = layout.separator
    if separator != b"\t":
        if b"\t" in text or _QUOTE in text or b"{" in text:
            return None
        if separator == b" " and (
            b"  " in text or b" \n" in text or b"\n " in text or text[:1] == b" "
        ):
            lines = text[:-1].split(b"\n")
            text = b"".join([b"\t".join(line.split()) + b"\n" for line in lines])
        elif separator != b" " and b" " in text:
            lines = text[:-1].split(b"\n")
            text = b"".join(
                [b"\t".join(split_line(line, separator)) + b"\n" for line in lines]
            )
        else:
            text = text.replace(separator, b"\t")
    return _parse_regular(text, layout.width)


def _parse_regular(text: bytes, width: int | None) -> Edges | None:
    """`parse_block` for columns that are separated by tabs."""
    if b"\r" in text:
        return None
    characters = np.frombuffer(text, np.uint8)
    breaks = np.flatnonzero((characters == _TAB) | (characters == _NEWLINE))
    columns = 3 if (characters[breaks[1:2]] == _TAB).any() else 2
    if len(breaks) % columns or width not in (None, columns):
        return None
    ends = breaks.reshape(-1, columns)
    is_tab = characters[ends] == _TAB
    if not is_tab[:, :-1].all() or is_tab[:, -1].any():
        return None
    starts = np.concatenate(([0], breaks[:-1] + 1)).reshape(-1, columns)
    if (starts[:, :2] == ends[:, :2]).any():
        return None
    if b'"' in text and (characters[starts] == _QUOTE).any():
        return None
    if b"#" in text or b"%" in text:
        signs = starts[np.isin(characters[starts[:, 0]], _COMMENTS), 0]
        if np.isin(characters[signs + 1], _AFTER_COMMENT_SIGN).any():
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
        if not (np.abs(weights) <= LARGEST_WEIGHT).all():
            return None
    sources, targets = (
        Strings(text, starts[:, column], ends[:, column]) for column in range(2)
    )
    return Edges(sources, targets, weights)


def parse_edge(
    line: bytes, layout: Layout = TAB_SEPARATED
) -> tuple[bytes, bytes, float]:
    """Parses one line.

    Args:
      line: The line without its line break.
      layout: The layout of the line.

    Returns:
      The ids of the source and the target, and the weight, 1.0 if it is missing.

    Raises:
      ValueError: If the line is not an edge.
    """
    if b"\r" in line:
        raise ValueError(f"the line contains a carriage return: {_quote(line)}")
    columns = split_line(line, layout.separator)
    while len(columns) > (layout.width or 3) and not columns[-1]:
        columns.pop()  # ignore trailing separators
    if layout.width is None and len(columns) not in (2, 3):
        received = f"{len(columns)} column{'s' * (len(columns) != 1)}"
        raise ValueError(f"expected {_FORM}, but received {received}: {_quote(line)}")
    if layout.width is not None and len(columns) != layout.width:
        raise ValueError(
            f"expected {layout.width} columns, as in the header, but received "
            f"{len(columns)}: {_quote(line)}"
        )
    nodes = [columns[layout.columns.source], columns[layout.columns.target]]
    for end, node in zip(("source", "target"), nodes, strict=True):
        if not node:
            raise ValueError(
                f"the {end} id is empty; expected source<TAB>target[<TAB>weight], but "
                f"received {_quote(line)}"
            )
        try:
            node.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"the {end} id is not UTF-8 ({error}): {_quote(line)}"
            ) from None
    place = layout.columns.weight
    if place is None or place >= len(columns):
        return nodes[0], nodes[1], 1.0
    if columns[place][:1] == b"{":
        return nodes[0], nodes[1], _weight_of_attributes(columns[place])
    return nodes[0], nodes[1], parse_weight(columns[place])


def _weight_of_attributes(text: bytes) -> float:
    """Returns the weight in edge attributes as NetworkX writes them."""
    try:
        attributes = ast.literal_eval(text.decode())
        return parse_weight(attributes.get("weight", 1.0))
    except (ValueError, SyntaxError, AttributeError) as error:
        raise ValueError(
            f"the edge attributes {_quote(text)} have no valid weight ({error})"
        ) from None


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def parse_weight(text: str | bytes | float) -> float:
    """Parses the weight of an edge.

    Args:
      text: The weight, a number or a string.

    Raises:
      ValueError: If the weight is not a number, or not finite in float32.
    """
    if text in ("", b""):
        raise ValueError("the weight is empty")
    try:
        weight = float(text)
    except ValueError as error:
        has_comma = "," in repr(text)
        reason = "write a decimal point for a comma" if has_comma else error
        raise ValueError(
            f"the weight {_quote(text)} is not a number ({reason})"
        ) from None
    if not math.isfinite(weight):
        raise ValueError(f"the weight must be finite, but is {weight}")
    if abs(weight) > LARGEST_WEIGHT:
        raise ValueError(f"the weight {weight} is too large to be finite in float32")
    return weight


def _quote(value: object) -> str:
    quoted = repr(value).removeprefix("b")
    return quoted if len(quoted) <= 100 else quoted[:97] + "..."


def check_node_id(node: bytes) -> None:
    """Raises ValueError if an id cannot be written to a line of edges."""
    if b"\t" in node or b"\n" in node or b"\r" in node:
        raise ValueError(
            f"the id {_quote(node)} contains a tab or a line break, which files of "
            "edges do not allow"
        )


def _needs_quotes(node: bytes) -> bool:
    return node.startswith((b'"', codecs.BOM_UTF8)) or is_comment(node)


def _quoted(nodes: Sequence[bytes]) -> Sequence[bytes]:
    """Quotes ids that look like comments or quoted ids."""
    if _SPECIAL.isdisjoint(map(operator.itemgetter(0), nodes)):
        return nodes
    return [
        b'"%b"' % node.replace(b'"', b'""') if _needs_quotes(node) else node
        for node in nodes
    ]


def format_edges(
    sources: Sequence[bytes],
    targets: Sequence[bytes],
    weights: Iterable[float],
    both_ways: bool = False,
) -> bytes:
    """Formats edges as lines, with six decimals of the weight.

    Args:
      sources: The ids of the sources, none of them empty.
      targets: The ids of the targets, none of them empty.
      weights: The weights.
      both_ways: Whether the reverse of each edge follows it.

    Returns:
      One line for each edge; two with `both_ways`.
    """
    sources, targets = _quoted(sources), _quoted(targets)
    line = b"%b\t%b\t%.6f\n"
    columns: list[Iterable[Any]] = [sources, targets, weights]
    if both_ways:
        columns[2] = texts = list(map(b"%.6f".__mod__, weights))
        columns += [targets, sources, texts]
        line = b"%b\t%b\t%b\n" * 2
    return b"".join(map(line.__mod__, zip(*columns, strict=True)))
