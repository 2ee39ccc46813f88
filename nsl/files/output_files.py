"""Atomic output files, which get their final names only when they are complete."""

import collections
import contextlib
import errno
import gzip
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any, BinaryIO, cast

from nsl.files.input_files import is_remote

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows: partial files of killed runs are not removed.
    fcntl = None

_BUFFER_BYTES = 1 << 20
_SUFFIX = ".incomplete"
_RUN_BYTES = 4
_PARTIAL = re.compile(
    rf"\.(?P<name>.+)\.(?P<run>[0-9a-f]{{{2 * _RUN_BYTES}}}){re.escape(_SUFFIX)}",
    re.DOTALL,
)
COMPRESSIONS = ("none", "gzip")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_output(path: str, inputs: Iterable[str] = ()) -> None:
    """`check_outputs` for a single output."""
    check_outputs([path], inputs)


def check_outputs(paths: Iterable[str], inputs: Iterable[str] = ()) -> None:
    """Checks that output files can be written.

    Args:
      paths: The paths of the outputs.
      inputs: The files that the job reads, none of which may be an output.

    Raises:
      FileNotFoundError: If a directory does not exist.
      OSError: If a path is a directory or a device, or its directory is not writable.
      ValueError: If a path is empty or one of `inputs`.
    """
    known = {identity for name in inputs for identity in _identities(name)}
    for path in paths:
        if not path:
            raise ValueError("The output path is empty.")
        if not is_remote(path):
            _check_place(path)
        if known & _identities(path):
            raise ValueError(f"The output {path} is also one of the inputs.")


def _check_place(path: str) -> None:
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"The directory of the output {path} does not exist.")
    if os.path.isdir(path):
        raise IsADirectoryError(f"The output {path} is a directory, not a file.")
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(f"The output {path} is not a regular file.")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"The directory of the output {path} is not writable.")


def _identities(path: str) -> set[Any]:
    """Returns keys that two names of the same file share: its path and its inode."""
    if is_remote(path):
        return {path}
    found: set[Any] = {os.path.realpath(path)}
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(path)
        found.add((status.st_dev, status.st_ino))
    return found


def shard_names(path: str, num_shards: int | None) -> list[str]:
    """Returns the paths of the shards of an output.

    Args:
      path: The path of the output.
      num_shards: The number of shards, or None for a single file.

    Returns:
      `path`, or `path-00000-of-0000N` and so on.
    """
    if num_shards is None:
        return [path]
    return [f"{path}-{i:05d}-of-{num_shards:05d}" for i in range(num_shards)]


class OutputFile:
    """A file that `atomic_files` renames to its final name at the end.

    The first `write` opens the file; leaving it as a context manager closes it.
    """

    def __init__(
        self, path: str, run: str, compression: str | None, locks: dict[str, int]
    ) -> None:
        """Initializes the file without opening it.

        Args:
          path: The final path.
          run: An id of this run, to distinguish its partial files from others.
          compression: None or 'gzip'.
          locks: For each directory, a descriptor that keeps this run's first partial
            file there locked; it stands for all of them.
        """
        self._is_remote = is_remote(path)
        self.final = path if self._is_remote else os.path.realpath(path)
        self.folder, self.name = os.path.split(self.final)
        hidden = f"{'' if self._is_remote else '.'}{self.name}.{run}{_SUFFIX}"
        self.partial = os.path.join(self.folder, hidden)
        self._compression = compression
        self._locks = locks
        self._file: BinaryIO | None = None
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> "OutputFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def write(self, data: bytes) -> None:
        """Appends bytes.

        Args:
          data: The bytes.

        Raises:
          OSError: If the file cannot be opened or written.
        """
        if self._file is None:
            self._file = self._open()
        self._file.write(data)

    def finish(self) -> None:
        """Closes the file; creates it if nothing was written."""
        if self._file is None:
            self.write(b"")
        self._closing.close()

    def _open(self) -> BinaryIO:
        if self._is_remote:
            import tensorflow as tf

            file = cast(BinaryIO, tf.io.gfile.GFile(self.partial, "wb"))
        else:
            file = open(self.partial, "xb", buffering=_BUFFER_BYTES)  # noqa: SIM115
            if fcntl is not None and self.folder not in self._locks:
                self._locks[self.folder] = os.dup(file.fileno())
                with contextlib.suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._closing.enter_context(file)
        if self._compression == "gzip":
            # No name and no time, so that output is reproducible.
            packed = gzip.GzipFile("", "wb", fileobj=file, mtime=0)
            file = self._closing.enter_context(cast(BinaryIO, packed))
        return file


@contextlib.contextmanager
def atomic_files(
    paths: Sequence[str], compression: str | None = None
) -> Iterator[list[OutputFile]]:
    """Writes files atomically.

    Each file is written next to its final path and renamed when the block ends. If the
    block raises, partial files are removed, and existing files stay as they were. To
    write many files without exceeding the limit of open files, use them one by one,
    each as a context manager.

    Args:
      paths: The final paths.
      compression: None or 'gzip'.

    Yields:
      One file for each path.

    Raises:
      OSError: If a file cannot be written; the error says if the disk is full.
    """
    locks: dict[str, int] = {}
    run = secrets.token_hex(_RUN_BYTES)
    files = [OutputFile(path, run, compression, locks) for path in paths]
    _remove_leftovers(files)
    try:
        try:
            with contextlib.ExitStack() as stack:
                for file in files:
                    stack.push(file)
                yield files
                for file in files:
                    file.finish()
        except OSError as error:
            if error.errno in _FULL:
                raise OSError(
                    error.errno, "The disk is full; nothing was kept", paths[0]
                ) from error
            raise
        for file in files:
            _rename(file.partial, file.final)
    except BaseException:
        for file in files:
            _remove(file.partial)
        raise
    finally:
        for descriptor in locks.values():
            os.close(descriptor)


def _remove_leftovers(files: Sequence[OutputFile]) -> None:
    """Removes partial files of these outputs from killed runs, which hold no lock."""
    if fcntl is None:
        return
    names = collections.defaultdict(set)
    for file in files:
        if not is_remote(file.final):
            names[file.folder].add(file.name)
    for folder, finals in names.items():
        runs = collections.defaultdict(list)
        for entry in os.listdir(folder):
            if match := _PARTIAL.fullmatch(entry):
                runs[match["run"]].append((match["name"], os.path.join(folder, entry)))
        for partials in runs.values():
            leftovers = [path for name, path in partials if name in finals]
            if leftovers and not any(_is_locked(path) for _, path in partials):
                for path in leftovers:
                    _remove(path)


def _is_locked(path: str) -> bool:
    assert fcntl is not None
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _rename(partial: str, final: str) -> None:
    if is_remote(final):
        import tensorflow as tf

        tf.io.gfile.rename(partial, final, overwrite=True)
    else:
        os.replace(partial, final)


def _remove(partial: str) -> None:
    with contextlib.suppress(OSError):
        if is_remote(partial):
            import tensorflow as tf

            if tf.io.gfile.exists(partial):
                tf.io.gfile.remove(partial)
        else:
            os.remove(partial)
