"""Converts arrays to tensors in host memory, without a copy if possible."""

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

# TensorFlow's CPU kernels require this alignment, in bytes; other arrays are copied.
_ALIGNMENT = 64


class _Writable:
    """A view of an array that claims to be writable, as DLPack requires.

    This is safe because TensorFlow never writes to imported tensors.
    """

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array
        address = array.__array_interface__["data"][0]
        self.__array_interface__ = {
            **array.__array_interface__,
            "data": (address, False),
        }


def host_tensor(array: npt.NDArray[Any]) -> tf.Tensor:
    """Converts an array to a tensor in host memory.

    A memory-mapped array is not loaded: its pages are read on access.

    Args:
      array: Numbers or strings of any shape.

    Returns:
      A tensor of the same dtype and shape, which may share memory with the array.
    """
    shares = (
        array.dtype.kind in "iuf"
        and array.dtype.isnative
        and array.size > 0
        and array.flags.c_contiguous
        and array.__array_interface__["data"][0] % _ALIGNMENT == 0
    )
    if shares:
        writable = np.asarray(_Writable(array))
        return tf.experimental.dlpack.from_dlpack(writable.__dlpack__())
    with tf.device("CPU:0"):
        return tf.convert_to_tensor(array)
