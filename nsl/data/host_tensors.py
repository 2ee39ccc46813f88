"""Arrays as tensors of the host, without a copy where that is possible."""

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

# What TensorFlow's CPU kernels expect; an array placed otherwise has to be copied.
_ALIGNMENT = 64


class _Writable:
    """A view of an array that claims to be writable, as DLPack requires.

    TensorFlow writes into no tensor that it was given.
    """

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array
        address = array.__array_interface__["data"][0]
        self.__array_interface__ = {
            **array.__array_interface__,
            "data": (address, False),
        }


def host_tensor(array: npt.NDArray[Any]) -> tf.Tensor:
    """Makes a tensor of an array, in the memory of the CPU.

    The parts of a memory-mapped array are read when they are needed: the tensor takes
    no memory of its own.

    Args:
      array: Numbers or strings of any shape.

    Returns:
      A tensor of the same dtype and shape. It may share its memory with the array.
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
