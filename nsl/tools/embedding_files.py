"""Reads embeddings and their ids from TFRecord, Parquet, Arrow and NumPy files."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from absl import logging

from nsl.files import array_files, arrow_files, edge_lines, input_files
from nsl.files.id_table import as_strings
from nsl.files.ids import distinct_ids
from nsl.files.text_files import as_utf8
from nsl.progress import Progress
from nsl.tools import example_proto, tfrecord
from nsl.tools.embeddings import Embeddings
from nsl.tools.record_template import RecordTemplate

_BLOCK_ROWS = 4096
_MAX_TEMPLATES = 1024


class Block(NamedTuple):
    """Consecutive embeddings of a file.

    Attributes:
      where: The path of the file and what its parts are called, for errors.
      first: The number of the first embedding in the file.
      total: An estimate of the number of embeddings in the file.
      ids: The ids, in UTF-8; None in a NumPy file, which has none.
      vectors: The embeddings, float32 of shape [embeddings, dimensions].
      labels: The labels, None for missing ones; empty if no labels were requested.
    """

    where: str
    first: int
    total: int
    ids: list[bytes] | None
    vectors: npt.NDArray[np.float32]
    labels: list[Any]

    def error(self, number: int, message: str) -> ValueError:
        """Returns an error about an embedding of the block."""
        return ValueError(f"{self.where} {self.first + number}: {message}.")


class EmbeddingReader:
    """Reads blocks of embeddings from files."""

    def __init__(
        self, id_name: str, embedding_name: str, label_name: str | None = None
    ) -> None:
        """Initializes the reader.

        Args:
          id_name: The feature, or the column, that holds an example's id.
          embedding_name: The feature that holds an example's embedding.
          label_name: The feature that holds an example's label; None for no labels.
        """
        self._id_name = id_name
        self._embedding_name = embedding_name
        self._label_name = label_name
        self._parser = _Parser(id_name, embedding_name, label_name)
        self._dimensions = 0

    def blocks(self, path: str) -> Iterator[Block]:
        """Reads a file, whose format is detected from its content.

        Args:
          path: The path of the file.

        Yields:
          Blocks of embeddings, all of the same number of dimensions.

        Raises:
          ImportError: If the file needs pyarrow, which is not installed.
          OSError: If the file cannot be read.
          ValueError: If the file is corrupt, an example has no valid id or no
            embedding, or its number of dimensions differs.
        """
        file = input_files.open_input(path)
        head = file.read(input_files.HEAD_BYTES)
        if input_files.is_compressed(head) and not tfrecord.is_header(head):
            file.seek(0)
            file = input_files.decompress(file, path)
            head = file.read(input_files.HEAD_BYTES)
        if arrow_files.is_arrow_file(head):
            read = self._read_table
        elif array_files.is_array_file(head):
            read = self._read_array
        else:
            read = self._read_records
        with contextlib.closing(file):
            for block in read(file, path):
                self._check(block)
                yield block

    def _check(self, block: Block) -> None:
        if not len(block.vectors):
            return
        dimensions = block.vectors.shape[1]
        if not dimensions:
            raise block.error(0, "its embedding has no values")
        if self._dimensions not in (0, dimensions):
            raise block.error(0, _unequal(dimensions, self._dimensions))
        self._dimensions = dimensions
        for number, node in enumerate(block.ids or ()):
            if not node.isalnum():
                try:
                    edge_lines.check_node_id(node)
                except ValueError as error:
                    raise block.error(number, str(error)) from None

    def _read_table(self, file: BinaryIO, path: str) -> Iterator[Block]:
        id_name, embedding_name = names = [self._id_name, self._embedding_name]
        if self._label_name is not None:
            names = [*names, self._label_name]
        table = arrow_files.TableFile(file, path)
        for name in names:
            table.check_column(name)
        with Progress(f"Reading {path}", table.rows, "rows") as progress:
            for first, (ids, vectors, *labels) in table.batches(names):
                yield Block(
                    f"{path}, row",
                    first,
                    table.rows,
                    list(as_strings(table.ids(ids, id_name, first))),
                    table.vectors(vectors, embedding_name, first),
                    labels[0].to_pylist() if labels else [],
                )
                progress.reach(first)

    def _read_array(self, file: BinaryIO, path: str) -> Iterator[Block]:
        if self._label_name is not None:
            raise ValueError(
                f"label_feature_name={self._label_name!r} needs files with features, "
                f"but {path} is an array."
            )
        array = array_files.read_array(file, path)
        what = f"The embeddings in {path}"
        rows = len(array) if array.ndim else 0
        with Progress(f"Reading {path}", rows, "rows") as progress:
            for start in range(0, max(rows, 1), _BLOCK_ROWS):
                vectors = _as_vectors(array[start : start + _BLOCK_ROWS], what)
                yield Block(f"{path}, row", start, rows, None, vectors, [])
                progress.reach(start)

    def _read_records(self, file: BinaryIO, path: str) -> Iterator[Block]:
        ids: list[bytes] = []
        rows: list[bytes] = []
        labels: list[Any] = []

        def block(end: int, total: int) -> Block:
            floats = np.frombuffer(b"".join(rows), "<f4").reshape(len(ids), -1)
            return Block(f"{path}, record", end - len(ids), total, ids, floats, labels)

        with (
            contextlib.closing(tfrecord.RecordFile(path, file)) as records,
            Progress(f"Reading {path}", records.size, "bytes") as progress,
        ):
            for record, (position, data) in enumerate(records.records()):
                try:
                    node, row, label = self._parser.parse(data)
                except ValueError as error:
                    raise ValueError(f"{path}, record {record}: {error}.") from None
                ids.append(node)
                rows.append(row)
                if self._label_name is not None:
                    labels.append(label)
                if len(ids) == _BLOCK_ROWS:
                    total = records.size // (len(data) + tfrecord.FRAME_BYTES)
                    yield block(record + 1, total)
                    ids, rows, labels = [], [], []
                    progress.reach(position)
            if ids:
                yield block(record + 1, record + 1)


class _Parser:
    def __init__(
        self, id_name: str, embedding_name: str, label_name: str | None
    ) -> None:
        self._id_name = id_name
        self._embedding_name = embedding_name
        self._label_name = label_name
        self._dimensions = 0  # before the first embedding
        self._templates: dict[int, RecordTemplate] = {}

    def parse(self, data: bytes) -> tuple[bytes, bytes, Any]:
        """Parses a serialized Example.

        Returns:
          The id, the embedding as little-endian floats, and the values of the label,
          None if there are none.

        Raises:
          ValueError: If the example has no valid id, or no embedding with the same
            number of values as those before.
        """
        template = self._templates.get(len(data))
        parts = template.split(data) if template else None
        if parts is not None:
            if not parts[0].isascii():
                example_proto.check_utf8(parts[0], self._id_name)
            return *parts, None
        features = example_proto.parse_features(data)
        node = example_proto.example_id(features, self._id_name)
        self._check_embedding(features)
        values = features[self._embedding_name].float_list.SerializeToString()
        # In serialized form, the values are packed at the end of the message.
        row = values[-4 * self._dimensions :]
        if self._label_name is not None:
            return node, row, self._label(features)
        if len(data) not in self._templates and len(self._templates) < _MAX_TEMPLATES:
            template = RecordTemplate.of(
                data, self._id_name, node, self._embedding_name, row
            )
            if template is not None:
                self._templates[len(data)] = template
        return node, row, None

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
        if self._dimensions not in (0, dimensions):
            raise ValueError(_unequal(dimensions, self._dimensions))
        self._dimensions = dimensions

    def _label(self, features: Any) -> Any:
        if self._label_name not in features:
            return None
        feature = features[self._label_name]
        kind = feature.WhichOneof("kind")
        return list(getattr(feature, kind).value) if kind else None


def _unequal(dimensions: int, expected: int) -> str:
    return (
        f"its embedding has {dimensions} values, but earlier embeddings have {expected}"
    )


def _as_vectors(array: npt.NDArray[Any], what: str) -> npt.NDArray[np.float32]:
    """Converts numbers to float32, without a copy if possible."""
    kind = array.dtype.kind
    # To NumPy, bfloat16 is of kind V, like the bytes of a structure.
    is_number = kind in "fiu" or (kind == "V" and np.can_cast(array.dtype, np.float32))
    if not is_number or array.ndim != 2:
        raise ValueError(
            f"{what} must be numbers of shape [nodes, dimensions], but have dtype "
            f"{array.dtype} and shape {array.shape}."
        )
    with np.errstate(over="ignore"):
        return array.astype(np.float32, order="C", copy=False)


class _Collector:
    """Numbers the ids and labels of blocks, and gathers the vectors in one matrix."""

    def __init__(self, ids: list[bytes] | None) -> None:
        self.numbers: dict[bytes, int] = {}
        self.labels: list[int] = []
        self.duplicates = 0
        self.array_rows = 0  # rows of arrays so far, which have no ids of their own
        self._ids = ids
        self._label_numbers: dict[Any, int] = {}
        self._vectors = np.empty((0, 0), np.float32)

    def __len__(self) -> int:
        return len(self.numbers)

    def add(self, block: Block, first: int) -> None:
        """Adds a block; only ids with numbers below `first` may occur again."""
        vectors = block.vectors
        if not len(vectors):
            return
        length = len(self)
        kept: list[int] = []
        ids = self._block_ids(block)
        for number, node in enumerate(ids):
            found = self.numbers.setdefault(node, length + len(kept))
            if found == length + len(kept):
                kept.append(number)
                if block.labels:
                    self.labels.append(self._label_number(block.labels[number]))
            elif found >= first:
                message = f"duplicate id {node.decode()!r}, which an earlier record has"
                raise block.error(number, message)
            else:
                self.duplicates += 1
        if len(kept) < len(vectors):
            vectors = vectors[kept]
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            number = kept[int(np.argmin(finite))]
            raise block.error(
                number,
                f"the embedding of id {ids[number].decode()!r} has a NaN or infinite "
                "value",
            )
        if len(self) > len(self._vectors):
            total = length + max(block.total - block.first, 0)
            # resize lets the allocator remap pages instead of copying them.
            rows = max(total, len(self) + length // 4)
            self._vectors.resize((rows, vectors.shape[1]), refcheck=False)
        self._vectors[length : len(self)] = vectors

    def _block_ids(self, block: Block) -> list[bytes]:
        if block.ids is not None:
            return block.ids
        rows = range(self.array_rows, self.array_rows + len(block.vectors))
        self.array_rows = rows.stop
        if self._ids is None:
            return [b"%d" % row for row in rows]
        if rows.stop > len(self._ids):
            raise block.error(
                len(self._ids) - rows.start,
                "there are more rows than ids: pass one id for each row of all arrays",
            )
        return self._ids[rows.start : rows.stop]

    def _label_number(self, label: Any) -> int:
        if label is None or label == []:
            return -1
        key = tuple(label) if isinstance(label, list) else (label,)
        return self._label_numbers.setdefault(key, len(self._label_numbers))

    def vectors(self) -> npt.NDArray[np.float32]:
        """Returns the matrix, trimmed to its length."""
        shape = len(self), self._vectors.shape[1]
        self._vectors.resize(shape, refcheck=False)
        return self._vectors


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
    reader = EmbeddingReader(
        id_feature_name, embedding_feature_name, label_feature_name
    )
    found = _Collector(nodes)
    for paths in inputs:
        first = len(found)
        for path in paths:
            for block in reader.blocks(path):
                found.add(block, first)
            logging.info("Read %s: %d embeddings so far.", path, len(found))
    if nodes is not None and len(nodes) != found.array_rows:
        raise ValueError(
            f"ids must have one id for each row of the arrays, {found.array_rows}, "
            f"but have {len(nodes)}. Files of other formats have ids of their own."
        )
    return Embeddings(
        list(found.numbers),
        found.vectors(),
        np.array(found.labels, np.int32) if label_feature_name is not None else None,
        found.duplicates,
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
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(input_files.open_decompressed(path))
        head = file.read(input_files.HEAD_BYTES)
        if array_files.is_array_file(head):
            return array_files.read_array(file, path)
        known = input_files.format_of(head)
        if known is not None:
            raise ValueError(
                f"{path} is not a file of ids, .npy or text: it is {known}."
            )
        lines = stack.enter_context(as_utf8(file, path)).read().splitlines()
    for number, line in enumerate(lines, start=1):
        if not line:
            raise ValueError(f"{path}, line {number}: the id is empty.")
    return lines
