"""Output files that get their final names only when they are whole."""

import contextlib
import errno
import glob
import gzip
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import BinaryIO, cast

from nsl.files.input_files import is_remote

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows has none; leftovers of a killed run then stay.
    fcntl = None

_BUFFER_BYTES = 1 << 20
_SUFFIX = ".incomplete"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_output(path: str, inputs: Iterable[str] = ()) -> None:
    """Raises an error if `path` cannot become an output file.

    Args:
      path: The output's final name.
      inputs: The files that are read, none of which may be the output.

    Raises:
      FileNotFoundError: If the folder does not exist.
      OSError: If `path` is a folder or a device, or the folder is not writable.
      ValueError: If `path` is empty or one of `inputs`.
    """
    if not path:
        raise ValueError("The output path is empty.")
    if is_remote(path):
        if path in set(inputs):
            raise ValueError(f"The output {path} is also one of the inputs.")
        return
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"The folder of the output {path} does not exist.")
    if os.path.isdir(path):
        raise IsADirectoryError(f"The output {path} is a folder, not a file.")
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(f"The output {path} is not a regular file.")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"The folder of the output {path} is not writable.")
    for name in inputs:
        same = os.path.realpath(name) == os.path.realpath(path)
        if same or (os.path.exists(path) and os.path.samefile(name, path)):
            raise ValueError(f"The output {path} is also one of the inputs.")


def shard_names(path: str, num_shards: int | None) -> list[str]:
    """Returns the names of the files that make up one output.

    Args:
      path: The output's name.
      num_shards: The number of files, or None for one file called `path`.

    Returns:
      `path`, or `path-00000-of-0000N` and so on.
    """
    if num_shards is None:
        return [path]
    return [f"{path}-{i:05d}-of-{num_shards:05d}" for i in range(num_shards)]


@contextlib.contextmanager
def whole_files(
    paths: Sequence[str], compression: str | None = None
) -> Iterator[list[BinaryIO]]:
    """Opens files for writing that appear under their names when all is written.

    Each is written beside its final name and renamed when the block ends. If the
    block raises, what was written is removed and files of these names stay as they
    were.

    Args:
      paths: The final names.
      compression: None or 'gzip'.

    Yields:
      One open binary file for each path.

    Raises:
      OSError: If a file cannot be written; a full disk is named as such.
    """
    finals = [path if is_remote(path) else os.path.realpath(path) for path in paths]
    partials: list[str] = []
    try:
        try:
            with contextlib.ExitStack() as stack:
                files = []
                for final in finals:
                    partial, file = _open_partial(final)
                    partials.append(partial)
                    stack.enter_context(file)
                    if compression == "gzip":
                        # Neither name nor time, so that equal data is equal bytes.
                        file = cast(
                            BinaryIO,
                            stack.enter_context(
                                gzip.GzipFile("", "wb", fileobj=file, mtime=0)
                            ),
                        )
                    files.append(file)
                yield files
        except OSError as error:
            if error.errno in _FULL:
                raise OSError(
                    error.errno, "The disk is full; nothing was kept", paths[0]
                ) from error
            raise
        for partial, final in zip(partials, finals, strict=True):
            _rename(partial, final)
    except BaseException:
        for partial in partials:
            _remove(partial)
        raise


def _open_partial(final: str) -> tuple[str, BinaryIO]:
    """Opens a new file beside `final`, under a name that no other run uses."""
    unique = secrets.token_hex(4) + _SUFFIX
    if is_remote(final):
        import tensorflow as tf

        partial = f"{final}.{unique}"
        return partial, cast(BinaryIO, tf.io.gfile.GFile(partial, "wb"))
    folder, name = os.path.split(final)
    _remove_leftovers(folder, name)
    partial = os.path.join(folder, f".{name}.{unique}")
    file = open(partial, "xb", buffering=_BUFFER_BYTES)  # noqa: SIM115
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return partial, file


def _remove_leftovers(folder: str, name: str) -> None:
    """Removes what killed runs left of this output: files that nobody has locked."""
    if fcntl is None:
        return
    pattern = os.path.join(glob.escape(folder), f".{glob.escape(name)}.*{_SUFFIX}")
    for leftover in glob.glob(pattern):
        with contextlib.suppress(OSError), open(leftover, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.remove(leftover)


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
