"""Reads embeddings and their ids from TFRecord, Parquet, Arrow and NumPy files."""

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

_BLOCK_ROWS = 4096
_RECORDS_PER_REPORT = 256
_MAX_TEMPLATES = 1024
_NUMPY = b"\x93NUMPY"


class _Rows:
    """A float32 matrix that grows by rows, without a second copy in memory."""

    def __init__(self) -> None:
        self.length = 0
        self.dimensions = 0
        self._values = np.empty((0, 0), np.float32)
        self._pending: list[bytes] = []

    def extend(self, block: npt.NDArray[np.float32], expected: int) -> None:
        """Appends rows; `expected` is an estimate of the final number of rows."""
        if self._pending:
            self._move_pending(expected)
        start, self.length = self.length, self.length + len(block)
        self._reserve(start, expected)
        self._values[start : self.length] = block

    def _reserve(self, start: int, expected: int) -> None:
        if self.length > len(self._values):
            # resize lets the allocator remap pages instead of copying them.
            rows = max(expected, self.length + start // 4)
            self._values.resize((rows, self.dimensions), refcheck=False)

    def append(self, row: bytes, expected: int) -> None:
        """Appends a row of little-endian floats; see `extend` for `expected`."""
        self._pending.append(row)
        self.length += 1
        if len(self._pending) == _BLOCK_ROWS:
            self._move_pending(expected)

    def _move_pending(self, expected: int) -> None:
        start = self.length - len(self._pending)
        self._reserve(start, expected)
        floats = np.frombuffer(b"".join(self._pending), "<f4")
        self._values[start : self.length] = floats.reshape(-1, self.dimensions)
        self._pending.clear()

    def values(self) -> npt.NDArray[np.float32]:
        """Returns the matrix, trimmed to its length."""
        if self._pending:
            self._move_pending(self.length)
        self._values.resize((self.length, self.dimensions), refcheck=False)
        return self._values


class EmbeddingParser:
    """Extracts ids and embeddings from serialized Examples.

    Attributes:
      dimensions: The number of dimensions of the embeddings, 0 before the first.
    """

    def __init__(self, id_feature_name: str, embedding_feature_name: str) -> None:
        """Initializes the parser.

        Args:
          id_feature_name: The feature that holds an example's id.
          embedding_feature_name: The feature that holds an example's embedding.
        """
        self.dimensions = 0
        self._id_name = id_feature_name
        self._embedding_name = embedding_feature_name
        self._templates: dict[int, RecordTemplate] = {}

    def parse_quickly(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Parses an example that differs from an earlier one only in id and embedding.

        Args:
          data: A serialized Example.

        Returns:
          The id, and the embedding as little-endian floats; or None if the example
          differs in anything else.

        Raises:
          ValueError: If the id is not valid for a node.
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
          ValueError: If the example has no valid id, or no embedding with the same
            number of values as those before.
        """
        features = example_proto.parse_features(data)
        node = example_proto.example_id(features, self._id_name)
        self._check_embedding(features)
        values = features[self._embedding_name].float_list.SerializeToString()
        # In serialized form, the values are packed at the end of the message.
        row = values[-4 * self.dimensions :]
        if len(data) not in self._templates and len(self._templates) < _MAX_TEMPLATES:
            template = RecordTemplate.of(
                data, self._id_name, node, self._embedding_name, row
            )
            if template is not None:
                self._templates[len(data)] = template
        if not node.isalnum():
            edge_lines.check_node_id(node)
        return node, row, features

    def _check_embedding(self, features: Any) -> None:
        """Checks that the embedding has as many values as the first one."""
        name = self._embedding_name
        example_proto.check_present(features, name)
        dimensions = len(features[name].float_list.value)
        if not dimensions:
            kind = features[name].WhichOneof("kind")
            received = "none" if kind in (None, "float_list") else kind
            raise ValueError(
                f"its feature {name!r} must hold floats, but holds {received}"
            )
        if self.dimensions and dimensions != self.dimensions:
            raise ValueError(
                f"its embedding has {dimensions} values, but earlier embeddings have "
                f"{self.dimensions}"
            )
        self.dimensions = dimensions


class Block(NamedTuple):
    """Consecutive rows of a table.

    Attributes:
      first: The number of the first row in the file.
      ids: The ids, in UTF-8.
      vectors: The embeddings, float32 of shape [rows, dimensions].
      labels: The labels, None for missing ones; empty if no labels were requested.
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
      file: The open file; closed after reading.
      path: The path of the file, for errors.
      id_name: The column with the ids.
      embedding_name: The column with the embeddings, lists of numbers.
      label_name: The column with labels; None for no labels.

    Yields:
      The rows, in blocks.

    Raises:
      ImportError: If pyarrow is not installed.
      ValueError: If the file is corrupt, or a column is missing or of a wrong type.
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
    """Converts numbers to float32, without a copy if possible."""
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
        self.array_rows = 0  # rows of arrays so far, which have no ids of their own
        self.rows = _Rows()
        self.numbers: dict[bytes, int] = {}
        self.label_numbers: dict[Any, int] = {}
        self.labels: list[int] = []
        self.duplicates = 0

    def read(self, path: str, first: int) -> None:
        """Reads a file; only ids with numbers below `first` may occur in it again."""
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
            raise ValueError(
                f"label_feature_name={self._label_name!r} needs files with features, "
                f"but {path} is an array."
            )
        file.seek(0)
        try:
            # Only local files can be memory-mapped; others are temporary copies.
            array = (
                np.load(path, mmap_mode="r", allow_pickle=False)
                if file.name == path
                else np.load(file, allow_pickle=False)
            )
        except ValueError as error:
            raise ValueError(f"{path} is not an array of numbers: {error}") from None
        what = f"The embeddings in {path}"
        with Progress(f"Reading {path}", len(array), "rows") as progress:
            for start in range(0, max(len(array), 1), _BLOCK_ROWS):
                vectors = _as_vectors(array[start : start + _BLOCK_ROWS], what)
                ids = self._next_ids(len(vectors))
                block = Block(start, ids, vectors, [])
                self._add_block(block, first, path, len(array))
                progress.reach(start)

    def _next_ids(self, count: int) -> list[bytes]:
        start, self.array_rows = self.array_rows, self.array_rows + count
        if self._ids is None:
            return [b"%d" % row for row in range(start, self.array_rows)]
        return self._ids[start : self.array_rows]

    def _add_block(
        self, block: Block, first: int, path: str, expected: int = 0
    ) -> None:
        start, ids, vectors, labels = block
        if len(ids) != len(vectors):
            raise ValueError(
                f"{path} has more rows than there are ids left: pass one id for each "
                "row of all arrays."
            )
        if not len(vectors):
            return
        dimensions = vectors.shape[1]
        if not dimensions:
            raise ValueError(f"{path}, row {start}: its embedding has no values.")
        if self._parser.dimensions not in (0, dimensions):
            raise ValueError(
                f"{path}, row {start}: its embedding has {dimensions} values, but "
                f"earlier embeddings have {self._parser.dimensions}."
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
                    f"{path}, row {start + row}: duplicate id {node.decode()!r}, which "
                    "an earlier row has."
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
                    if not record % _RECORDS_PER_REPORT:
                        progress.reach(position)
        finally:
            file.close()

    def _add(self, data: bytes, first: int, expected: int) -> None:
        # Templates do not cover the label.
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
                raise ValueError(
                    f"duplicate id {node.decode()!r}, which an earlier record has"
                )
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
        for row in range(start, len(values), _BLOCK_ROWS):
            block = values[row : row + _BLOCK_ROWS]
            finite = np.isfinite(block).all(axis=1)
            if not finite.all():
                number = row + int(np.argmin(finite))
                node = next(n for n, i in self.numbers.items() if i == number)
                raise ValueError(
                    f"{path}: the embedding of id {node.decode()!r} has a NaN or "
                    "infinite value."
                )


def read_embeddings(
    inputs: Sequence[Sequence[str]],
    id_feature_name: str,
    embedding_feature_name: str,
    label_feature_name: str | None = None,
    ids: Any = None,
) -> Embeddings:
    """Reads embeddings from files.

    The format of a file is detected from its content: TFRecords of
    `tf.train.Example`s, Parquet or Arrow, or a NumPy array of shape
    [nodes, dimensions].

    Args:
      inputs: Sets of files. Within a set, ids must be unique; an example whose id
        occurs in an earlier set is skipped.
      id_feature_name: The feature that holds an example's id.
      embedding_feature_name: The feature that holds an example's embedding.
      label_feature_name: The feature that holds an example's label; None for no
        labels.
      ids: The ids of the rows of all arrays, or a file of them; row numbers, counted
        over all files, by default.

    Returns:
      The embeddings.

    Raises:
      ImportError: If a file needs pyarrow, which is not installed.
      OSError: If a file cannot be read.
      ValueError: If a file is corrupt, an example has no id or no embedding, an id is
        duplicated, or embeddings differ in length or are not finite.
    """
    nodes = None if ids is None else _given_ids(ids)
    reader = _Reader(id_feature_name, embedding_feature_name, label_feature_name, nodes)
    for paths in inputs:
        first = reader.rows.length
        for path in paths:
            reader.read(path, first)
    if nodes is not None and len(nodes) != reader.array_rows:
        raise ValueError(
            f"ids must have one id for each row of the arrays, {reader.array_rows}, "
            f"but have {len(nodes)}. Files of other formats have ids of their own."
        )
    return Embeddings(
        list(reader.numbers),
        reader.rows.values(),
        np.array(reader.labels, np.int32) if label_feature_name is not None else None,
        reader.duplicates,
    )


def embeddings_of(vectors: Any, ids: Any = None) -> Embeddings:
    """Makes embeddings of an array.

    Args:
      vectors: Numbers of shape [nodes, dimensions], which are not modified. Float32
        arrays are not copied.
      ids: The distinct ids of the nodes, or a file of them; row numbers by default.

    Raises:
      TypeError: If ids are neither all integers nor all strings.
      ValueError: If a shape or a value is invalid.
    """
    array = _as_vectors(np.asarray(vectors), "The embeddings").view()
    array.flags.writeable = False
    nodes = _given_ids(np.arange(len(array)) if ids is None else ids)
    if len(nodes) != len(array):
        raise ValueError(
            f"ids must have one id for each embedding, {len(array)}, but have "
            f"{len(nodes)}."
        )
    for start in range(0, len(array), _BLOCK_ROWS):
        finite = np.isfinite(array[start : start + _BLOCK_ROWS]).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise ValueError(f"The embedding in row {row} has a NaN or infinite value.")
    return Embeddings(nodes, array)


def _given_ids(ids: Any) -> list[bytes]:
    if isinstance(ids, str | os.PathLike):
        ids = _ids_of_file(os.fspath(ids))
    nodes = distinct_ids(ids, "ids")
    for node in nodes:
        edge_lines.check_node_id(node)
    return nodes


def _ids_of_file(path: str) -> Any:
    """Reads ids from a .npy file, or from the lines of a text file."""
    with input_files.open_decompressed(path) as file:
        head = file.read(input_files.HEAD_BYTES)
        file.seek(0)
        if head.startswith(_NUMPY):
            try:
                return np.load(file, allow_pickle=False)
            except ValueError as error:
                raise ValueError(f"{path} is not an array of ids: {error}") from None
        known = input_files.format_of(head)
        if known is not None:
            raise ValueError(
                f"{path} is not a file of ids, .npy or text: it is {known}."
            )
        lines = file.read().removeprefix(codecs.BOM_UTF8).splitlines()
    for number, line in enumerate(lines, start=1):
        if not line:
            raise ValueError(f"{path}, line {number}: the id is empty.")
    return lines
