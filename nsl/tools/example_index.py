"""Where each example lies in its file, by id."""

import bisect
from array import array
from collections.abc import Sequence

from absl import logging

from nsl.tools import example_proto, tfrecord
from nsl.tools.progress import Progress


class ExampleIndex:
    """The ids of the examples in some TFRecord files, and access to their bytes.

    Examples are numbered in the order of reading. For each the index holds its id and
    16 bytes; the records themselves stay in their files.

    Attributes:
      numbers: The number of each example, by id.
      duplicates: How many examples were left out because an earlier `add` had
        brought their ids.
    """

    def __init__(self, id_feature_name: str) -> None:
        """Makes an empty index.

        Args:
          id_feature_name: The feature that holds an example's id.
        """
        self.numbers: dict[bytes, int] = {}
        self.duplicates = 0
        self._id_feature_name = id_feature_name
        self._files: list[tfrecord.RecordFile] = []
        # Positions count on from file to file, so one number tells both.
        self._file_starts: list[int] = []
        self._positions = array("q")
        self._lengths = array("q")
        self._end = 0

    def __len__(self) -> int:
        return len(self._positions)

    def add(self, paths: Sequence[str]) -> None:
        """Reads all examples of a set of files.

        Args:
          paths: TFRecord files. An id may stand only once in all of them; an example
            whose id stands in files added before is left out.

        Raises:
          OSError: If a file cannot be read.
          ValueError: If a file is damaged, or a record is no Example with one id, or
            an id stands twice.
        """
        first = len(self)
        for path in paths:
            self._add_file(path, first)

    def _add_file(self, path: str, first: int) -> None:
        file = tfrecord.RecordFile(path)
        self._files.append(file)
        self._file_starts.append(self._end)
        numbers = self.numbers
        parse, single_bytes = example_proto.parse_features, example_proto.single_bytes
        with Progress(f"Reading {path}", file.size, "bytes") as progress:
            for record, (position, data) in enumerate(file.records()):
                try:
                    node = single_bytes(parse(data), self._id_feature_name)
                except ValueError as error:
                    raise ValueError(f"{path}, record {record}: {error}.") from None
                number = numbers.setdefault(node, len(numbers))
                if number < len(self):
                    if number >= first:
                        raise ValueError(
                            f"{path}, record {record}: the id {node.decode()!r} stands "
                            f"also in {self._place(number)}; ids must differ."
                        )
                    self.duplicates += 1
                else:
                    self._positions.append(self._end + position)
                    self._lengths.append(len(data))
                progress.advance(len(data))
        logging.info("Read %s: %d examples so far.", path, len(self))
        self._end += file.size

    def read(self, number: int) -> bytes:
        """Returns the serialized example of this number."""
        position = self._positions[number]
        file = bisect.bisect_right(self._file_starts, position) - 1
        return self._files[file].read(
            position - self._file_starts[file], self._lengths[number]
        )

    def _place(self, number: int) -> str:
        position = self._positions[number]
        file = bisect.bisect_right(self._file_starts, position) - 1
        byte = position - self._file_starts[file]
        return f"the record at byte {byte} of {self._files[file].path}"

    def close(self) -> None:
        """Closes the files."""
        for file in self._files:
            file.close()
