"""Reading embeddings with their ids: TFRecord, Parquet, Arrow, NumPy files, arrays."""

import codecs
import os
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from absl import logging

from nsl.files import arrow_files, edge_lines, input_files
from nsl.files.id_table import as_strings
from nsl.files.ids import distinct_ids
from nsl.progress import Progress
from nsl.tools import example_proto, tfrecord
from nsl.tools.embeddings import Embeddings
from nsl.tools.record_template import RecordTemplate

_ROWS_AT_ONCE = 4096
_RECORDS_AT_ONCE = 256
_MOST_TEMPLATES = 1024
_NUMPY = b"\x93NUMPY"


class _Rows:
    """A float32 matrix that grows by rows without a second copy in memory."""

    def __init__(self) -> None:
        self.length = 0
        self.dimensions = 0
        self._values = np.empty((0, 0), np.float32)
        self._pending: list[bytes] = []

    def extend(self, block: npt.NDArray[np.float32], expected: int) -> None:
        """Appends rows; `expected` is a guess of all rows' number."""
        if self._pending:
            self._move_pending(expected)
        start, self.length = self.length, self.length + len(block)
        self._reserve(start, expected)
        self._values[start : self.length] = block

    def _reserve(self, start: int, expected: int) -> None:
        if self.length > len(self._values):
            # Growing in place lets the allocator move pages instead of copying.
            rows = max(expected, self.length + start // 4)
            self._values.resize((rows, self.dimensions), refcheck=False)

    def append(self, row: bytes, expected: int) -> None:
        """Appends little-endian floats; `expected` is a guess of all rows' number."""
        self._pending.append(row)
        self.length += 1
        if len(self._pending) == _ROWS_AT_ONCE:
            self._move_pending(expected)

    def _move_pending(self, expected: int) -> None:
        start = self.length - len(self._pending)
        self._reserve(start, expected)
        floats = np.frombuffer(b"".join(self._pending), "<f4")
        self._values[start : self.length] = floats.reshape(-1, self.dimensions)
        self._pending.clear()

    def values(self) -> npt.NDArray[np.float32]:
        """Returns the matrix, cut to its length."""
        if self._pending:
            self._move_pending(self.length)
        self._values.resize((self.length, self.dimensions), refcheck=False)
        return self._values


class EmbeddingParser:
    """Takes ids and embeddings out of serialized Examples.

    Attributes:
      dimensions: The dimensions of the embeddings, 0 before the first.
    """

    def __init__(self, id_feature_name: str, embedding_feature_name: str) -> None:
        """Makes a parser.

        Args:
          id_feature_name: The feature that holds an example's id.
          embedding_feature_name: The feature that holds its embedding.
        """
        self.dimensions = 0
        self._id_name = id_feature_name
        self._embedding_name = embedding_feature_name
        self._templates: dict[int, RecordTemplate] = {}

    def parse_quickly(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Parses an example that differs from one before in id and embedding only.

        Args:
          data: A serialized Example.

        Returns:
          The id and the embedding as little-endian floats, or None for any other.

        Raises:
          ValueError: If the id cannot be that of a node.
        """
        template = self._templates.get(len(data))
        parts = template.split(data) if template else None
        if parts is None:
            return None
        node = parts[0]
        if not node.isascii():
            example_proto.check_utf8(node, self._id_name)
        if not node.isalnum():
            edge_lines.check_node_id(node)
        return parts

    def parse(self, data: bytes) -> tuple[bytes, bytes, Any]:
        """Parses any example.

        Args:
          data: A serialized Example.

        Returns:
          The id, the embedding as little-endian floats, and all features.

        Raises:
          ValueError: If it has no id or no embedding of as many values as before.
        """
        features = example_proto.parse_features(data)
        node = example_proto.example_id(features, self._id_name)
        self._check_embedding(features)
        values = features[self._embedding_name].float_list.SerializeToString()
        # Serialized, the values stand one after the other, last in the message.
        row = values[-4 * self.dimensions :]
        if len(data) not in self._templates and len(self._templates) < _MOST_TEMPLATES:
            template = RecordTemplate.of(
                data, self._id_name, node, self._embedding_name, row
            )
            if template is not None:
                self._templates[len(data)] = template
        if not node.isalnum():
            edge_lines.check_node_id(node)
        return node, row, features

    def _check_embedding(self, features: Any) -> None:
        """Takes the dimensions of the first embedding; any other must be equal."""
        name = self._embedding_name
        example_proto.check_present(features, name)
        dimensions = len(features[name].float_list.value)
        if not dimensions:
            kind = features[name].WhichOneof("kind")
            received = "none" if kind in (None, "float_list") else kind
            raise ValueError(
                f"its feature {name!r} must hold floats, but has {received}"
            )
        if self.dimensions and dimensions != self.dimensions:
            raise ValueError(
                f"its embedding has {dimensions} values, but those before have "
                f"{self.dimensions}"
            )
        self.dimensions = dimensions


class Block(NamedTuple):
    """Some rows of a table.

    Attributes:
      first: How many rows are before them.
      ids: Their ids, in UTF-8.
      vectors: float32 [rows, dimensions].
      labels: Their labels, None for none, if they were asked for.
    """

    first: int
    ids: list[bytes]
    vectors: npt.NDArray[np.float32]
    labels: list[Any]


def table_blocks(
    file: BinaryIO,
    path: str,
    id_name: str,
    embedding_name: str,
    label_name: str | None = None,
) -> Iterator[Block]:
    """Reads embeddings from a Parquet or Arrow file.

    Args:
      file: The open file, which is closed at the end.
      path: Its name, for errors.
      id_name: The column that holds the ids.
      embedding_name: The column that holds the embeddings, lists of numbers.
      label_name: The column that holds labels, if they are wanted.

    Yields:
      The rows, in parts.

    Raises:
      ImportError: If pyarrow is missing.
      ValueError: If the file is damaged, or a column is missing or wrong.
    """
    names = [id_name, embedding_name, *([label_name] if label_name else [])]
    with file:
        table = arrow_files.TableFile(file, path)
        for name in names:
            table.check_column(name)
        with Progress(f"Reading {path}", table.rows, "rows") as progress:
            for first, (ids, vectors, *labels) in table.batches(names):
                yield Block(
                    first,
                    list(as_strings(table.ids(ids, id_name, first))),
                    table.vectors(vectors, embedding_name, first),
                    labels[0].to_pylist() if labels else [],
                )
                progress.reach(first)


def _as_vectors(array: npt.NDArray[Any], what: str) -> npt.NDArray[np.float32]:
    """Returns numbers as float32, without a copy if they are."""
    if array.dtype.kind not in "fiu" or array.ndim != 2:
        raise ValueError(
            f"{what} must be numbers of shape [nodes, dimensions], but have dtype "
            f"{array.dtype} and shape {array.shape}."
        )
    with np.errstate(over="ignore"):
        return array.astype(np.float32, order="C", copy=False)


class _Reader:
    def __init__(
        self,
        id_feature_name: str,
        embedding_feature_name: str,
        label_feature_name: str | None,
        ids: list[bytes] | None,
    ) -> None:
        self._parser = EmbeddingParser(id_feature_name, embedding_feature_name)
        self._names = id_feature_name, embedding_feature_name, label_feature_name
        self._label_name = label_feature_name
        self._ids = ids
        self.unnamed_rows = 0  # rows of arrays, whose ids are given or their numbers
        self.rows = _Rows()
        self.numbers: dict[bytes, int] = {}
        self.label_numbers: dict[Any, int] = {}
        self.labels: list[int] = []
        self.duplicates = 0

    def read(self, path: str, first: int) -> None:
        """Reads a file; ids below number `first` may stand in it again."""
        start = self.rows.length
        file = input_files.open_input(path)
        head = file.read(input_files.HEAD_BYTES)
        if arrow_files.is_arrow_file(head):
            for block in table_blocks(file, path, *self._names):
                self._add_block(block, first, path)
        elif head.startswith(_NUMPY):
            with file:
                self._read_array(file, path, first)
        else:
            self._read_records(tfrecord.RecordFile(path, file), path, first)
        self._check_finite(path, start)
        logging.info("Read %s: %d embeddings so far.", path, self.rows.length)

    def _read_array(self, file: BinaryIO, path: str, first: int) -> None:
        if self._label_name is not None:
            raise ValueError(f"{path} is an array, which has no feature for labels.")
        file.seek(0)
        try:
            # A file without a name is a copy of a remote one or of a pipe.
            array = (
                np.load(path, mmap_mode="r", allow_pickle=False)
                if file.name == path
                else np.load(file, allow_pickle=False)
            )
        except ValueError as error:
            raise ValueError(f"{path} is no array of numbers: {error}") from None
        what = f"The embeddings in {path}"
        with Progress(f"Reading {path}", len(array), "rows") as progress:
            for start in range(0, max(len(array), 1), _ROWS_AT_ONCE):
                vectors = _as_vectors(array[start : start + _ROWS_AT_ONCE], what)
                ids = self._next_ids(len(vectors))
                block = Block(start, ids, vectors, [])
                self._add_block(block, first, path, len(array))
                progress.reach(start)

    def _next_ids(self, count: int) -> list[bytes]:
        start, self.unnamed_rows = self.unnamed_rows, self.unnamed_rows + count
        if self._ids is None:
            return [b"%d" % row for row in range(start, self.unnamed_rows)]
        return self._ids[start : self.unnamed_rows]

    def _add_block(
        self, block: Block, first: int, path: str, expected: int = 0
    ) -> None:
        start, ids, vectors, labels = block
        if len(ids) != len(vectors):
            raise ValueError(f"{path} has more rows than there are ids.")
        if not len(vectors):
            return
        dimensions = vectors.shape[1]
        if not dimensions:
            raise ValueError(f"{path}, row {start}: its embedding has no values.")
        if self._parser.dimensions not in (0, dimensions):
            raise ValueError(
                f"{path}, row {start}: its embedding has {dimensions} values, but "
                f"those before have {self._parser.dimensions}."
            )
        self._parser.dimensions = self.rows.dimensions = dimensions
        kept: list[int] = []
        for row, node in enumerate(ids):
            if not node.isalnum():
                edge_lines.check_node_id(node)
            number = self.numbers.setdefault(node, len(self.numbers))
            if number >= self.rows.length + len(kept):
                kept.append(row)
                if self._label_name is not None:
                    self.labels.append(self._label_number(labels[row]))
            elif number >= first:
                raise ValueError(
                    f"{path}, row {start + row}: the id {node.decode()!r} was in an "
                    "earlier row."
                )
            else:
                self.duplicates += 1
        if len(kept) < len(vectors):
            vectors = vectors[kept]
        self.rows.extend(vectors, self.rows.length + max(expected - start, 0))

    def _label_number(self, label: Any) -> int:
        if label is None or label == []:
            return -1
        key = tuple(label) if isinstance(label, list) else (label,)
        return self.label_numbers.setdefault(key, len(self.label_numbers))

    def _read_records(self, file: tfrecord.RecordFile, path: str, first: int) -> None:
        start = self.rows.length
        try:
            with Progress(f"Reading {path}", file.size, "bytes") as progress:
                for record, (position, data) in enumerate(file.records()):
                    if not record:
                        expected = start + file.size // (len(data) + 16)
                    try:
                        self._add(data, first, expected)
                    except ValueError as error:
                        raise ValueError(f"{path}, record {record}: {error}.") from None
                    if not record % _RECORDS_AT_ONCE:
                        progress.reach(position)
        finally:
            file.close()

    def _add(self, data: bytes, first: int, expected: int) -> None:
        # A label is in none of the two parts that may differ.
        parts = self._parser.parse_quickly(data) if self._label_name is None else None
        label = -1
        if parts is None:
            node, row, features = self._parser.parse(data)
            if self._label_name is not None:
                label = self._label(features)
        else:
            node, row = parts
        number = self.numbers.setdefault(node, len(self.numbers))
        if number < self.rows.length:
            if number >= first:
                raise ValueError(f"the id {node.decode()!r} was in an earlier record")
            self.duplicates += 1
            return
        self.rows.dimensions = self._parser.dimensions
        self.rows.append(row, expected)
        if self._label_name is not None:
            self.labels.append(label)

    def _label(self, features: Any) -> int:
        name = self._label_name
        if name not in features:
            return -1
        feature = features[name]
        kind = feature.WhichOneof("kind")
        return self._label_number(list(getattr(feature, kind).value) if kind else None)

    def _check_finite(self, path: str, start: int) -> None:
        values = self.rows.values()
        for row in range(start, len(values), _ROWS_AT_ONCE):
            block = values[row : row + _ROWS_AT_ONCE]
            finite = np.isfinite(block).all(axis=1)
            if not finite.all():
                number = row + int(np.argmin(finite))
                node = next(n for n, i in self.numbers.items() if i == number)
                raise ValueError(
                    f"{path}: the embedding of the id {node.decode()!r} holds a value "
                    "that is NaN or infinite."
                )


def read_embeddings(
    inputs: Sequence[Sequence[str]],
    id_feature_name: str,
    embedding_feature_name: str,
    label_feature_name: str | None = None,
    ids: Any = None,
) -> Embeddings:
    """Reads embeddings from files.

    What a file is, its content tells: TFRecords of `tf.train.Example`, Parquet or
    Arrow, or a NumPy array of shape [nodes, dimensions].

    Args:
      inputs: Sets of files. Within a set an id may stand once; an example whose id
        stands in an earlier set is left out.
      id_feature_name: The feature that holds an example's id.
      embedding_feature_name: The feature that holds its embedding.
      label_feature_name: The feature that holds its label, if labels are wanted.
      ids: The ids of the rows of all arrays, or a file of them; without it they are
        the numbers of the rows, counted over all files.

    Returns:
      The embeddings.

    Raises:
      ImportError: If a file needs pyarrow, which is missing.
      OSError: If a file cannot be read.
      ValueError: If a file is damaged, an example has no id or no embedding, an id
        stands twice, or an embedding has another length or is not finite.
    """
    nodes = None if ids is None else _given_ids(ids)
    reader = _Reader(id_feature_name, embedding_feature_name, label_feature_name, nodes)
    for paths in inputs:
        first = reader.rows.length
        for path in paths:
            reader.read(path, first)
    if nodes is not None and len(nodes) != reader.unnamed_rows:
        raise ValueError(
            f"There are {len(nodes)} ids for {reader.unnamed_rows} rows of arrays; "
            "examples in other files have their own ids."
        )
    return Embeddings(
        list(reader.numbers),
        reader.rows.values(),
        np.array(reader.labels, np.int32) if label_feature_name is not None else None,
        reader.duplicates,
    )


def embeddings_of(vectors: Any, ids: Any = None) -> Embeddings:
    """Takes embeddings from memory.

    Args:
      vectors: Numbers of shape [nodes, dimensions], which are not changed, nor copied
        if they are float32.
      ids: The distinct ids of the nodes, or a file of them; without it they are the
        numbers of the rows.

    Raises:
      TypeError: If ids are neither all integers nor all strings.
      ValueError: If a shape or a value is wrong.
    """
    array = _as_vectors(np.asarray(vectors), "The embeddings").view()
    array.flags.writeable = False
    nodes = _given_ids(np.arange(len(array)) if ids is None else ids)
    if len(nodes) != len(array):
        raise ValueError(f"There are {len(nodes)} ids for {len(array)} embeddings.")
    for start in range(0, len(array), _ROWS_AT_ONCE):
        finite = np.isfinite(array[start : start + _ROWS_AT_ONCE]).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise ValueError(
                f"The embedding in row {row} holds a value that is NaN or infinite."
            )
    return Embeddings(nodes, array)


def _given_ids(ids: Any) -> list[bytes]:
    if isinstance(ids, str | os.PathLike):
        ids = _ids_of_file(os.fspath(ids))
    nodes = distinct_ids(ids, "ids")
    for node in nodes:
        edge_lines.check_node_id(node)
    return nodes


def _ids_of_file(path: str) -> Any:
    """Returns the ids in a NumPy array, or in the lines of a text."""
    with input_files.open_decompressed(path) as file:
        head = file.read(input_files.HEAD_BYTES)
        file.seek(0)
        if head.startswith(_NUMPY):
            try:
                return np.load(file, allow_pickle=False)
            except ValueError as error:
                raise ValueError(f"{path} is no array of ids: {error}") from None
        known = input_files.format_of(head)
        if known is not None:
            raise ValueError(f"{path} is no file of ids: it is {known}.")
        lines = file.read().removeprefix(codecs.BOM_UTF8).splitlines()
    for number, line in enumerate(lines, start=1):
        if not line:
            raise ValueError(f"{path}, line {number}: the id is empty.")
    return lines
