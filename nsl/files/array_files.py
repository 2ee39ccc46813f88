"""Reads NumPy files (.npy)."""

from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

_MAGIC = b"\x93NUMPY"


def is_array_file(head: bytes) -> bool:
    """Returns whether a file's first bytes are those of a .npy file."""
    return head.startswith(_MAGIC)


def read_array(file: BinaryIO, path: str) -> npt.NDArray[Any]:
    """Reads an array; local, uncompressed files are mapped into memory.

    Args:
      file: The open file.
      path: The path of the file.

    Raises:
      ValueError: If the file is corrupt, or holds Python objects.
    """
    file.seek(0)
    try:
        # Remote and compressed files are open as temporary copies.
        if file.name == path:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        return np.load(file, allow_pickle=False)
    except ValueError as error:
        message = str(error).rstrip(".")
        raise ValueError(f"{path} cannot be read as an array: {message}.") from None
