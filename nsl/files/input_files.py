"""Input files: paths and patterns, compressed or not, local or remote."""

import bz2
import glob
import gzip
import lzma
import os
import shutil
import stat
import tempfile
import zlib
from collections.abc import Callable, Generator, Sequence
from typing import Any, BinaryIO, TypeAlias, cast

PathLike: TypeAlias = str | os.PathLike[str]
Paths: TypeAlias = PathLike | Sequence[PathLike]

_COPY_BYTES = 1 << 20
_COMPRESSIONS: dict[bytes, tuple[str, Callable[[Any], Any]]] = {
    b"\x1f\x8b\x08": ("gzip", lambda file: gzip.GzipFile(fileobj=file)),
    b"BZh": ("bzip2", bz2.BZ2File),
    b"\xfd7zXZ\x00": ("xz", lzma.LZMAFile),
}
# Magic numbers of other formats, for error messages.
_FORMATS = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"FEA1": "a Feather file of version 1",
    b"\x93NUMPY": "a NumPy array (.npy)",
    b"PK\x03\x04": "a zip archive (as .npz and .xlsx are)",
    b"(\xb5/\xfd": "compressed with Zstandard",
    b"\x89HDF": "an HDF5 file",
    b"SQLite": "an SQLite database",
    b"%PDF": "a PDF file",
    b"\x80\x04\x95": "a Python pickle",
    b"%%MatrixMarket": "a Matrix Market file, which scipy.io.mmread reads",
}
HEAD_BYTES = 16


def is_remote(path: str) -> bool:
    """Returns whether `path` is a URL, which only TensorFlow can open."""
    return "://" in path


def expand_paths(paths: Paths) -> list[str]:
    """Lists the files that `paths` matches.

    Args:
      paths: A path, a glob pattern, a comma-separated list of these, or a sequence of
        any of them. A file with exactly this name takes precedence over a pattern.

    Returns:
      The paths, in the given order; the matches of each pattern are sorted.

    Raises:
      FileNotFoundError: If a path or pattern matches no file.
      TypeError: If `paths` is neither a path nor a sequence of paths.
    """
    if isinstance(paths, str | os.PathLike):
        return _expand(os.fspath(paths))
    if not isinstance(paths, Sequence) or isinstance(paths, bytes):
        raise TypeError(
            "Expected a path or a list of paths, but received "
            f"{paths!r} ({type(paths).__name__})."
        )
    return [name for path in paths for name in expand_paths(path)]


def _expand(path: str) -> list[str]:
    if _exists(path):
        return [path]
    if any(character in path for character in "*?["):
        if is_remote(path):
            import tensorflow as tf

            names = sorted(tf.io.gfile.glob(path))
        else:
            names = sorted(glob.glob(path))
        if names:
            return names
        if "," not in path:
            raise FileNotFoundError(f"No file matches the pattern {path!r}.")
    if "," in path:
        return [name for part in path.split(",") for name in _expand(part)]
    raise FileNotFoundError(f"There is no file {path!r}.")


def _exists(path: str) -> bool:
    if is_remote(path):
        import tensorflow as tf

        return bool(tf.io.gfile.exists(path))
    return os.path.exists(path)


def open_input(path: str) -> BinaryIO:
    """Opens a file for random access.

    Remote files and pipes are first copied to an unnamed temporary file, which is
    removed even if the process is killed.

    Args:
      path: The path of the file.

    Returns:
      The open local file.

    Raises:
      OSError: If the file cannot be read.
    """
    if is_remote(path):
        import tensorflow as tf

        try:
            with tf.io.gfile.GFile(path, "rb") as remote:
                return _temporary_copy(cast(BinaryIO, remote))
        except tf.errors.OpError as error:
            raise OSError(f"Cannot read {path!r}: {error.message}") from error
    file = open(path, "rb")  # noqa: SIM115 (the caller closes it)
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    with file:
        return _temporary_copy(file)


def format_of(head: bytes) -> str | None:
    """Detects the format of a file that is neither TFRecord nor text.

    Args:
      head: The file's first `HEAD_BYTES` bytes.

    Returns:
      The name of the format with its article, or None if it is unknown.
    """
    for magic, name in _FORMATS.items():
        if head.startswith(magic):
            return name
    return None


def is_compressed(head: bytes) -> bool:
    """Returns whether `head`, a file's first bytes, are those of a compressed file."""
    return any(head.startswith(magic) for magic in _COMPRESSIONS)


def is_zlib(head: bytes) -> bool:
    """Returns whether a file may be a zlib stream, as some TFRecord files are.

    Text may begin with the same two bytes.
    """
    return head[:1] == b"\x78" and not int.from_bytes(head[:2], "big") % 31


def open_decompressed(path: str) -> BinaryIO:
    """Opens a file for random access, and decompresses it if necessary.

    Args:
      path: The path of the file. Compression (gzip, bzip2 or xz) is detected from the
        content.

    Returns:
      The open local file.

    Raises:
      OSError: If the file cannot be read.
      ValueError: If the compressed data is corrupt or truncated.
    """
    file = open_input(path)
    head = file.read(HEAD_BYTES)
    file.seek(0)
    return decompress(file, path) if is_compressed(head) else file


def decompress(file: BinaryIO, path: str) -> BinaryIO:
    """Decompresses an open file to a temporary file.

    Args:
      file: The gzip, bzip2, xz or zlib file, open at its start; closed afterwards.
      path: The path of the file, for errors.

    Returns:
      An open, unnamed temporary file.

    Raises:
      ValueError: If the data is corrupt or truncated.
    """
    head = file.read(HEAD_BYTES)
    file.seek(0)
    name, opener = next(
        (form for magic, form in _COMPRESSIONS.items() if head.startswith(magic)),
        ("zlib", _ZlibFile),
    )
    try:
        with file, opener(file) as plain:
            return _temporary_copy(cast(BinaryIO, plain))
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # an error of the disk, not of the data
        raise ValueError(f"{path} is a corrupt {name} file: {error}.") from error


class _ZlibFile:
    """Reads a file that consists of a zlib stream."""

    def __init__(self, file: BinaryIO) -> None:
        self._parts = self._decompressed(file)

    def __enter__(self) -> "_ZlibFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.close()

    @staticmethod
    def _decompressed(file: BinaryIO) -> Generator[bytes, None, None]:
        stream = zlib.decompressobj()
        while chunk := file.read(_COPY_BYTES):
            if part := stream.decompress(chunk):
                yield part
        if not stream.eof:
            raise EOFError("it ends before its end-of-stream marker")
        yield stream.flush()

    def read(self, _: int) -> bytes:
        """Returns the next bytes, or no bytes at the end."""
        return next(self._parts, b"")


def _temporary_copy(source: BinaryIO) -> BinaryIO:
    copy = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
    try:
        shutil.copyfileobj(source, copy, _COPY_BYTES)
        copy.seek(0)
    except BaseException:
        copy.close()
        raise
    return cast(BinaryIO, copy)
