"""Tests of `nsl.files.ids`."""

import numpy as np
import pytest

from nsl.files.ids import as_ids


def test_ids_of_all_kinds() -> None:
    for strings in (["ä", "b"], ["ä".encode(), b"b"], np.array(["ä", "b"])):
        assert as_ids(strings, "ids").tolist() == ["ä".encode(), b"b"]
    assert as_ids(range(2), "ids").tolist() == [0, 1]
    assert as_ids([[1, 2]], "ids").shape == (1, 2)
    with pytest.raises(ValueError, match="64 bits"):
        as_ids([1 << 64], "ids")
    with pytest.raises(ValueError, match="64 bits"):
        as_ids(np.array([1 << 63], np.uint64), "ids")
    with pytest.raises(TypeError, match="bool"):
        as_ids(np.array([True]), "ids")
    for wrong in ([b"a", b"\xff"], np.array([b"\xff"])):
        with pytest.raises(ValueError, match=r"ids must be UTF-8, but one is b'\\xff'"):
            as_ids(wrong, "ids")
