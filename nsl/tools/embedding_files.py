"""Reading embeddings and their ids from TFRecord files."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from absl import logging

from nsl.files import edge_lines
from nsl.progress import Progress
from nsl.tools import example_proto, tfrecord
from nsl.tools.embeddings import Embeddings
from nsl.tools.record_template import RecordTemplate

_ROWS_AT_ONCE = 4096
_RECORDS_AT_ONCE = 256
_MOST_TEMPLATES = 1024


class _Rows:
    """A float32 matrix that grows by rows without a second copy in memory."""

    def __init__(self) -> None:
        self.length = 0
        self.dimensions = 0
        self._values = np.empty((0, 0), np.float32)
        self._pending: list[bytes] = []

    def append(self, row: bytes, expected: int) -> None:
        """Appends little-endian floats; `expected` is a guess of all rows' number."""
        self._pending.append(row)
        self.length += 1
        if len(self._pending) == _ROWS_AT_ONCE:
            self._move_pending(expected)

    def _move_pending(self, expected: int) -> None:
        start = self.length - len(self._pending)
        if self.length > len(self._values):
            # Growing in place lets the allocator move pages instead of copying.
            rows = max(expected, self.length + start // 4)
            self._values.resize((rows, self.dimensions), refcheck=False)
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
        node = example_proto.single_bytes(features, self._id_name)
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


class _Reader:
    def __init__(
        self,
        id_feature_name: str,
        embedding_feature_name: str,
        label_feature_name: str | None,
    ) -> None:
        self._parser = EmbeddingParser(id_feature_name, embedding_feature_name)
        self._label_name = label_feature_name
        self.rows = _Rows()
        self.numbers: dict[bytes, int] = {}
        self.label_numbers: dict[Any, int] = {}
        self.labels: list[int] = []
        self.duplicates = 0

    def read(self, path: str, first: int) -> None:
        """Reads a file; ids below number `first` may stand in it again."""
        file = tfrecord.RecordFile(path)
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
        self._check_finite(path, start)
        logging.info("Read %s: %d embeddings so far.", path, self.rows.length)

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
        values = tuple(getattr(feature, kind).value) if kind else ()
        if not values:
            return -1
        return self.label_numbers.setdefault(values, len(self.label_numbers))

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
) -> Embeddings:
    """Reads embeddings from TFRecord files of `tf.train.Example`.

    Args:
      inputs: Sets of files. Within a set an id may stand once; an example whose id
        stands in an earlier set is left out.
      id_feature_name: The feature that holds an example's id.
      embedding_feature_name: The feature that holds its embedding.
      label_feature_name: The feature that holds its label, if labels are wanted.

    Returns:
      The embeddings.

    Raises:
      OSError: If a file cannot be read.
      ValueError: If a file is damaged, an example has no id or no embedding, an id
        stands twice, or an embedding has another length or is not finite.
    """
    reader = _Reader(id_feature_name, embedding_feature_name, label_feature_name)
    for paths in inputs:
        first = reader.rows.length
        for path in paths:
            reader.read(path, first)
    return Embeddings(
        list(reader.numbers),
        reader.rows.values(),
        np.array(reader.labels, np.int32) if label_feature_name is not None else None,
        reader.duplicates,
    )
