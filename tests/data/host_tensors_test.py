"""Tensors that share the memory of arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from nsl.data.host_tensors import host_tensor


@pytest.mark.parametrize(
    "dtype", ["f2", "f4", "f8", "i1", "i8", "u2", "?", "c8", ">f4"]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_array(dtype: str, order: Any) -> None:
    array = np.arange(24).reshape(4, 6).astype(dtype, order=order)
    for view in (array, array[1:], array[:0], array[:, ::2]):
        tensor = host_tensor(view)
        assert tensor.dtype.as_numpy_dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(tensor, view)


def test_strings() -> None:
    assert host_tensor(np.array(["ä", "b"])).numpy().tolist() == ["ä".encode(), b"b"]


@pytest.mark.parametrize("mode", ["r", "c", "r+"])
def test_a_memory_mapped_array_is_not_copied(tmp_path: Path, mode: Any) -> None:
    np.save(tmp_path / "x.npy", np.arange(32.0).reshape(4, 8))
    mapped = np.load(tmp_path / "x.npy", mmap_mode=mode)
    # The second view starts within the map, at an address that is aligned too.
    for array in (mapped, mapped[1:]):
        tensor = host_tensor(np.asarray(array))
        np.testing.assert_array_equal(tensor, np.asarray(array))
        address = np.asarray(memoryview(tensor)).__array_interface__["data"][0]
        assert address == array.__array_interface__["data"][0]


def test_the_tensor_keeps_the_map_open(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(1 << 16))
    tensor = host_tensor(np.asarray(np.load(tmp_path / "x.npy", mmap_mode="r")))
    assert int(tf.gather(tensor, 65_535)) == 65_535
