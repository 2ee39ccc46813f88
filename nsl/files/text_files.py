"""Reads text in any encoding that a byte order mark or its bytes reveal, as UTF-8."""

import codecs
import io
import tempfile
from typing import BinaryIO, cast

_HEAD_BYTES = 1 << 18
_COPY_CHARACTERS = 1 << 20
_SHOWN_BYTES = 16
_ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def as_utf8(file: BinaryIO, path: str) -> BinaryIO:
    """Converts UTF-16, UTF-32 and old Mac line endings; returns other files.

    Args:
      file: The open file; closed if it is converted.
      path: The path of the file, for errors.

    Returns:
      A file at the start of its text, after any byte order mark. Invalid UTF-8 is not
      detected.

    Raises:
      ValueError: If UTF-16 or UTF-32 is invalid.
    """
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    encoding = _encoding(head)
    if encoding is not None:
        file = _converted(file, path, encoding, "utf-8", newline="")
    elif b"\r" in head and b"\n" not in head:
        # Old Mac line endings. Latin-1 preserves every byte.
        file = _converted(file, path, "latin-1", "latin-1", newline=None)
    if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        file.seek(0)
    return file


def _encoding(head: bytes) -> str | None:
    """Returns the encoding of UTF-16 or UTF-32 text, else None."""
    for bom, name in _ENCODINGS.items():
        if head.startswith(bom):
            return name
    if len(head) >= 4:
        # UTF-16 without a byte order mark has a NUL in every other byte.
        for start, name in ((1, "utf-16-le"), (0, "utf-16-be")):
            if not any(head[start:_SHOWN_BYTES:2]):
                return name
    return None


def _converted(
    file: BinaryIO, path: str, read: str, write: str, newline: str | None
) -> BinaryIO:
    copy = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115
    try:
        with file, io.TextIOWrapper(file, read, newline=newline) as text:
            while part := text.read(_COPY_CHARACTERS):
                copy.write(part.encode(write))
    except UnicodeDecodeError as error:
        copy.close()
        raise ValueError(f"{path} is invalid {read}: {error}.") from None
    copy.seek(0)
    return copy
