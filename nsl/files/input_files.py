"""Input files: one, several or a pattern; plain or gzip; local or remote."""

import glob
import gzip
import os
import shutil
import stat
import tempfile
import zlib
from collections.abc import Sequence
from typing import BinaryIO, TypeAlias, cast

PathLike: TypeAlias = str | os.PathLike[str]
Paths: TypeAlias = PathLike | Sequence[PathLike]

_COPY_BYTES = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b\x08"


def is_remote(path: str) -> bool:
    """Returns whether `path` names a scheme that only TensorFlow can open."""
    return "://" in path


def expand_paths(paths: Paths) -> list[str]:
    """Lists the files that `paths` names.

    Args:
      paths: A file name, a glob pattern, several of them separated by commas, or a
        sequence of these. A file of exactly the given name goes before a pattern.

    Returns:
      The names, in the order given; the files of one pattern in sorted order.

    Raises:
      FileNotFoundError: If a name or pattern matches no file.
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
    """Opens a file for reading at any position.

    A remote file, or a pipe, is copied to a local temporary file first; that file has
    no name, so nothing of it is left whatever happens to the program.

    Args:
      path: The file's name.

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


def starts_as_gzip(head: bytes) -> bool:
    """Returns whether `head`, a file's first bytes, are those of a gzip file."""
    return head.startswith(_GZIP_MAGIC)


def decompress(file: BinaryIO, path: str) -> BinaryIO:
    """Replaces an open gzip file by a temporary file of its decompressed bytes.

    Args:
      file: The gzip file, open at its start. It is closed.
      path: Its name, for the error.

    Returns:
      An open local file without a name.

    Raises:
      ValueError: If the gzip data is damaged or ends early.
    """
    try:
        with file, gzip.GzipFile(fileobj=file) as plain:
            return _temporary_copy(cast(BinaryIO, plain))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is a damaged gzip file: {error}.") from error


def _temporary_copy(source: BinaryIO) -> BinaryIO:
    copy = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
    try:
        shutil.copyfileobj(source, copy, _COPY_BYTES)
        copy.seek(0)
    except BaseException:
        copy.close()
        raise
    return cast(BinaryIO, copy)
