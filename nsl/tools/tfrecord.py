"""The TFRecord container: framed records with checksums.

A record is its length (uint64), the masked CRC-32C of the length, the data, and the
masked CRC-32C of the data, all little-endian; see
https://www.tensorflow.org/tutorials/load_data/tfrecord.
"""

import os
import shutil
import struct
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c

from nsl.files import input_files

_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
FRAME_BYTES = _HEADER.size + _CHECKSUM.size
_CHUNK_BYTES = 1 << 22
_KNOWN_HEADERS = 1 << 12
_TEXT = bytes(range(32, 127)) + b"\t\n\r"


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def is_header(head: bytes) -> bool:
    """Returns whether bytes start with a record's length and its checksum."""
    if len(head) < _HEADER.size:
        return False
    return _HEADER.unpack_from(head)[1] == _masked_crc(head[:8])


class RecordFile:
    """A TFRecord file, with sequential and random access.

    The file may be compressed with gzip or zlib, as TensorFlow writes it, or with bzip2
    or xz.

    Attributes:
      path: The path of the file.
      size: The uncompressed size in bytes.
    """

    def __init__(self, path: str, file: BinaryIO | None = None) -> None:
        """Opens `path`.

        Args:
          path: The path of the file.
          file: The file, if it is already open.

        Raises:
          OSError: If the file cannot be read.
          ValueError: If a compressed file is corrupt.
        """
        self.path = path
        self._file: BinaryIO = file or input_files.open_input(path)
        self._file.seek(0)
        head = self._file.read(input_files.HEAD_BYTES)
        self._file.seek(0)
        # The length of the first record may look like the magic number of a compression
        # format, but then its checksum would not match.
        if not is_header(head) and (
            input_files.is_compressed(head) or input_files.is_zlib(head)
        ):
            self._file = input_files.decompress(self._file, path)
        self._state = _state(self._file)
        self.size = self._state[0]
        self._start = 0  # the offset of the records in the open file

    @property
    def is_open(self) -> bool:
        """Whether the file is open. Reading reopens a parked file."""
        return not self._file.closed

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def park(self, copies: BinaryIO) -> None:
        """Closes the file until it is read again.

        Args:
          copies: An open file to append the records to if this file is a temporary
            copy, which cannot be reopened.
        """
        with self._file as file:
            if file.name == self.path:
                return
            file.seek(0)
            self._start = copies.seek(0, os.SEEK_END)
            shutil.copyfileobj(file, copies, _CHUNK_BYTES)
            copies.flush()
        self._file = copies

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Reads all records and verifies their checksums.

        Yields:
          The position of the record's data in the file, and the data.

        Raises:
          ValueError: If the file is not a TFRecord file, corrupt or truncated.
        """
        start = 0  # the position of the chunk in the file
        chunk = b""
        at = 0  # the position of the next record in the chunk
        number = 0
        lengths: dict[bytes, int] = {}  # of verified headers
        while True:
            header = chunk[at : at + _HEADER.size]
            if len(header) == _HEADER.size:
                length = lengths.get(header, -1)
                if length < 0:
                    if not is_header(header):
                        raise self._damage(number, start + at, "length")
                    length = _HEADER.unpack(header)[0]
                    if len(lengths) < _KNOWN_HEADERS:
                        lengths[header] = length
                end = at + FRAME_BYTES + length
                if start + end > self.size:
                    raise self._truncation(number, start + at)
                if end <= len(chunk):
                    data = chunk[at + _HEADER.size : end - _CHECKSUM.size]
                    stored = int.from_bytes(chunk[end - _CHECKSUM.size : end], "little")
                    if _masked_crc(data) != stored:
                        raise self._damage(number, start + at, "data")
                    yield start + at + _HEADER.size, data
                    at = end
                    number += 1
                    continue
                wanted = end - len(chunk)
            else:
                wanted = 0
            more = self._read(start + len(chunk), max(wanted, _CHUNK_BYTES))
            if not more:
                if header:
                    raise self._truncation(number, start + at)
                return
            start += at
            chunk = chunk[at:] + more
            at = 0

    def read(self, position: int, length: int) -> bytes:
        """Reads the data of a record again.

        Args:
          position: The position that `records` yielded.
          length: The size of the data in bytes.

        Raises:
          ValueError: If the file was modified since it was opened.
        """
        data = self._read(position, length)
        if len(data) != length:
            raise self._change()
        return data

    def _read(self, position: int, length: int) -> bytes:
        if not self.is_open:
            self._file = open(self.path, "rb")  # noqa: SIM115 (`close` closes it)
            if _state(self._file) != self._state:
                raise self._change()
        length = min(length, self.size - position)
        return os.pread(self._file.fileno(), length, self._start + position)

    def _change(self) -> ValueError:
        return ValueError(f"{self.path} was modified while it was being read.")

    def _damage(self, number: int, position: int, what: str) -> ValueError:
        if number == 0 and what == "length":
            head = self._read(0, input_files.HEAD_BYTES)
            known = input_files.format_of(head)
            if known is None and head.isascii() and not head.translate(None, _TEXT):
                known = "text"
            return ValueError(
                f"{self.path} is not a TFRecord file: it "
                + (
                    f"is {known}."
                    if known
                    else "does not start with a record's length and its checksum."
                )
            )
        return ValueError(
            f"{self.path} is corrupt: the {what} of record {number} (at byte "
            f"{position}) does not match its checksum."
        )

    def _truncation(self, number: int, position: int) -> ValueError:
        if self.size < _HEADER.size:
            return ValueError(
                f"{self.path} is not a TFRecord file, or is truncated: it has only "
                f"{self.size} bytes."
            )
        return ValueError(
            f"{self.path} is truncated: it ends within record {number}, which starts "
            f"at byte {position} of {self.size}."
        )


def _state(file: BinaryIO) -> tuple[int, ...]:
    """Returns a fingerprint that detects modified files; it starts with the size."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev


def record_start(position: int) -> int:
    """Returns the start of the record whose data is at `position`."""
    return position - _HEADER.size


def frame(data: bytes) -> bytes:
    """Frames data as a record of a TFRecord file.

    Args:
      data: The data of the record.

    Returns:
      The length, the data and both checksums.
    """
    length = len(data).to_bytes(8, "little")
    return b"".join(
        (
            length,
            _CHECKSUM.pack(_masked_crc(length)),
            data,
            _CHECKSUM.pack(_masked_crc(data)),
        )
    )
