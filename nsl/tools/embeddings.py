"""Embeddings and their ids, read from TFRecord files."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from absl import logging

from nsl.tools import edge_lines, example_proto, tfrecord
from nsl.tools.progress import Progress

_MIN_SQUARED_NORM = 1e-12  # a vector is divided by max(its norm, 1e-6)
_LARGE_NORM = 1e30
_ROWS_AT_ONCE = 4096
_RECORDS_AT_ONCE = 256


class Embeddings:
    """Vectors with ids, and their similarities.

    Attributes:
      ids: The id of each node.
      vectors: float32 [nodes, dimensions], as they were given.
      labels: A number for each node, equal for equal labels and -1 for none; or None
        if no labels were asked for.
      duplicates: How many examples were left out because their ids stood in an
        earlier input.
    """

    def __init__(
        self,
        ids: Sequence[bytes],
        vectors: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int32] | None = None,
        duplicates: int = 0,
    ) -> None:
        """Takes vectors whose values are finite.

        Args:
          ids: The id of each node.
          vectors: float32 [nodes, dimensions]. Rows of enormous norm are scaled down
            in place by a power of two, which changes no similarity.
          labels: A number for each node.
          duplicates: How many examples were left out.
        """
        self.ids = ids
        self.vectors = vectors
        self.labels = labels
        self.duplicates = duplicates
        self._squared_norms = np.empty(len(vectors))
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            block = vectors[start : start + _ROWS_AT_ONCE]
            squared = _dot_rows(block, block)
            large = squared > _LARGE_NORM**2
            if large.any():
                block[large] *= np.float32(2.0**-60)
                squared[large] *= 2.0**-120
            self._squared_norms[start : start + len(block)] = squared
        np.maximum(self._squared_norms, _MIN_SQUARED_NORM, out=self._squared_norms)
        self._scales = (1 / np.sqrt(self._squared_norms)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def error(self) -> float:
        """A bound on how far a float32 product of unit rows is from the similarity."""
        # Higham, Accuracy and Stability of Numerical Algorithms, section 3.1: d u for
        # the sum, and a few u for the rounding of the norms and of both factors.
        return (self.vectors.shape[1] + 8) * 2.0**-24

    def unit_rows(
        self, nodes: slice | npt.NDArray[np.integer]
    ) -> npt.NDArray[np.float32]:
        """Returns the vectors of some nodes, divided by their norms, as float32."""
        return self.vectors[nodes] * self._scales[nodes, np.newaxis]

    def similarities(
        self, sources: npt.NDArray[np.integer], targets: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.float64]:
        """Returns cosine similarities as float64 arithmetic gives them.

        Args:
          sources: The first node of each pair.
          targets: The second node of each pair.

        Returns:
          The similarity of each pair. Equal vectors have exactly 1.
        """
        result = np.empty(len(sources))
        for start in range(0, len(sources), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            result[rows] = _dot_rows(
                self.vectors[sources[rows]], self.vectors[targets[rows]]
            ) / np.sqrt(
                self._squared_norms[sources[rows]] * self._squared_norms[targets[rows]]
            )
        return result

    def id_order(self) -> npt.NDArray[np.int32]:
        """Returns the place of each node among all, sorted by id."""
        order = np.array(sorted(range(len(self)), key=self.ids.__getitem__), np.int32)
        place = np.empty_like(order)
        place[order] = np.arange(len(order), dtype=np.int32)
        return place


def _dot_rows(
    a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    products: npt.NDArray[np.float64] = np.einsum(
        "ij,ij->i", a, b, dtype=np.float64, casting="same_kind"
    )
    return products


class _Rows:
    """A float32 matrix that grows by rows without a second copy in memory."""

    def __init__(self) -> None:
        self.values = np.empty((0, 0), np.float32)
        self.length = 0

    def append(self, row: npt.NDArray[np.float32], expected: int) -> None:
        """Appends `row`; `expected` is a guess of how many there will be."""
        if self.length == len(self.values):
            rows = max(expected, self.length + self.length // 4, 16)
            # Growing in place lets the allocator move pages instead of copying.
            self.values.resize((rows, len(row)), refcheck=False)
        self.values[self.length] = row
        self.length += 1

    def finish(self) -> npt.NDArray[np.float32]:
        """Returns the matrix, cut to its length."""
        self.values.resize((self.length, self.values.shape[1]), refcheck=False)
        return self.values


class _Reader:
    def __init__(
        self,
        id_feature_name: str,
        embedding_feature_name: str,
        label_feature_name: str | None,
    ) -> None:
        self._id_name = id_feature_name
        self._embedding_name = embedding_feature_name
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
                    try:
                        guess = start + file.size // (len(data) + 16)
                        self._add(data, first, guess)
                    except ValueError as error:
                        raise ValueError(f"{path}, record {record}: {error}.") from None
                    if not record % _RECORDS_AT_ONCE:
                        progress.reach(position)
        finally:
            file.close()
        self._check_finite(path, start)
        logging.info("Read %s: %d embeddings so far.", path, self.rows.length)

    def _add(self, data: bytes, first: int, expected: int) -> None:
        features = example_proto.parse_features(data)
        node = example_proto.single_bytes(features, self._id_name)
        edge_lines.check_node_id(node)
        number = self.numbers.setdefault(node, len(self.numbers))
        if number < self.rows.length:
            if number >= first:
                raise ValueError(
                    f"the id {node.decode()!r} stands in an earlier record"
                )
            self.duplicates += 1
            return
        row = self._embedding(features)
        if self.rows.length and len(row) != self.rows.values.shape[1]:
            raise ValueError(
                f"its embedding has {len(row)} values, but the embeddings before have "
                f"{self.rows.values.shape[1]}"
            )
        self.rows.append(row, expected)
        if self._label_name is not None:
            self.labels.append(self._label(features, self._label_name))

    def _embedding(self, features: Any) -> npt.NDArray[np.float32]:
        name = self._embedding_name
        if name not in features:
            found = ", ".join(repr(key) for key in sorted(features)) or "none"
            raise ValueError(f"it has no feature {name!r}; its features: {found}")
        values = features[name].float_list
        length = len(values.value)
        if not length:
            kind = features[name].WhichOneof("kind")
            received = "none" if kind in (None, "float_list") else kind
            raise ValueError(
                f"its feature {name!r} must hold floats, but has {received}"
            )
        # Serialized, the values stand one after the other, last in the message.
        return np.frombuffer(values.SerializeToString()[-4 * length :], "<f4")

    def _label(self, features: Any, name: str) -> int:
        if name not in features:
            return -1
        feature = features[name]
        kind = feature.WhichOneof("kind")
        values = tuple(getattr(feature, kind).value) if kind else ()
        if not values:
            return -1
        return self.label_numbers.setdefault(values, len(self.label_numbers))

    def _check_finite(self, path: str, start: int) -> None:
        for row in range(start, self.rows.length, _ROWS_AT_ONCE):
            block = self.rows.values[row : min(row + _ROWS_AT_ONCE, self.rows.length)]
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
        reader.rows.finish(),
        np.array(reader.labels, np.int32) if label_feature_name is not None else None,
        reader.duplicates,
    )
