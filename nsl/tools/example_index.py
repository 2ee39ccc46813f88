"""An index of the examples in TFRecord files, by id."""

import bisect
import collections
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from typing import BinaryIO, cast

import numpy as np
from absl import logging

from nsl.files.id_table import IdTable
from nsl.progress import Progress
from nsl.tools import example_proto, tfrecord
from nsl.tools.example_wire import check_example

_RECORDS_PER_REPORT = 256
_MAX_OPEN = 100


def examples(
    file: tfrecord.RecordFile, id_feature_name: str
) -> Iterator[tuple[bytes, int, bytes]]:
    """Reads the examples of a file and reports progress.

    Args:
      file: The file.
      id_feature_name: The feature that holds an example's id.

    Yields:
      The id, the position of the data in the file, and the serialized example.

    Raises:
      ValueError: If the file is corrupt, or a record is not an Example with one id.
    """
    parse, example_id = example_proto.parse_features, example_proto.example_id
    with Progress(f"Reading {file.path}", file.size, "bytes") as progress:
        for record, (position, data) in enumerate(file.records()):
            try:
                node = example_id(parse(data), id_feature_name)
                check_example(data)
            except ValueError as error:
                raise ValueError(f"{file.path}, record {record}: {error}.") from None
            yield node, position, data
            if record % _RECORDS_PER_REPORT == 0:
                progress.reach(position)


class ExampleIndex:
    """An index of the examples in TFRecord files, with random access.

    Examples are numbered in reading order. The index takes about 60 bytes per example
    plus its id; records stay in their files, of which at most 100 are open.

    Attributes:
      ids: The ids, by number.
      duplicates: The number of examples that were skipped because an earlier `add` had
        read their ids.
    """

    def __init__(self, id_feature_name: str) -> None:
        """Makes an empty index.

        Args:
          id_feature_name: The feature that holds an example's id.
        """
        self.ids = IdTable()
        self.duplicates = 0
        self._id_feature_name = id_feature_name
        self._files: list[tfrecord.RecordFile] = []
        self._open: collections.deque[tfrecord.RecordFile] = collections.deque()
        self._copies: BinaryIO | None = None
        # Positions are offsets into the concatenated files.
        self._file_starts: list[int] = []
        self._positions = array("q")
        self._lengths = array("q")

    def __len__(self) -> int:
        return len(self._positions)

    def add(self, paths: Sequence[str]) -> None:
        """Adds the examples of a set of files.

        Args:
          paths: TFRecord files. Ids must be unique within the set; an example whose id
            was added by an earlier call is skipped.

        Raises:
          OSError: If a file cannot be read.
          ValueError: If a file is corrupt, a record is not an Example with one id, or
            an id is duplicated.
        """
        start = len(self)
        for path in paths:
            self._add_file(path)
        first = self.ids.settle()
        own = np.arange(start, len(self))
        repeated = np.flatnonzero((first != own) & (first >= start))
        if len(repeated):
            number = int(own[repeated[0]])
            raise ValueError(
                f"Duplicate id {self.ids[number].decode()!r}: in "
                f"{self._place(int(first[repeated[0]]))} and in {self._place(number)}."
            )
        known = np.zeros(len(self), np.bool_)
        known[start:] = first < start
        if known.any():
            self.duplicates += int(known.sum())
            self.ids.remove(known)
            self._positions, self._lengths = (
                array("q", np.array(values)[~known].tobytes())
                for values in (self._positions, self._lengths)
            )

    def _add_file(self, path: str) -> None:
        file = tfrecord.RecordFile(path)
        start = 0
        if self._files:
            start = self._file_starts[-1] + self._files[-1].size
        self._files.append(file)
        self._keep_open(file)
        self._file_starts.append(start)
        for node, position, data in examples(file, self._id_feature_name):
            self.ids.append(node)
            self._positions.append(start + position)
            self._lengths.append(len(data))
        logging.info("Read %s: %d examples so far.", path, len(self))

    def _keep_open(self, file: tfrecord.RecordFile) -> None:
        """Parks the file opened first, if too many are open."""
        self._open.append(file)
        if len(self._open) > _MAX_OPEN:
            if self._copies is None:
                # An unnamed temporary file is removed even if the process is killed.
                self._copies = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115
            self._open.popleft().park(self._copies)

    def _locate(self, number: int) -> tuple[tfrecord.RecordFile, int]:
        position = self._positions[number]
        file = bisect.bisect_right(self._file_starts, position) - 1
        return self._files[file], position - self._file_starts[file]

    def read(self, number: int) -> bytes:
        """Returns the serialized example with this number."""
        file, position = self._locate(number)
        if not file.is_open:
            self._keep_open(file)
        return file.read(position, self._lengths[number])

    def _place(self, number: int) -> str:
        file, position = self._locate(number)
        return f"the record at byte {tfrecord.record_start(position)} of {file.path}"

    def close(self) -> None:
        """Closes the files."""
        for file in self._files:
            file.close()
        if self._copies is not None:
            self._copies.close()
