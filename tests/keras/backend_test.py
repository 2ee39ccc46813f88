"""Limits that are told at import."""

import subprocess
import sys

# The other backends are no dependency of the tests, so Keras only says it runs one.
PROGRAM = """
import keras
keras.backend.backend = lambda: "torch"
import nsl.keras
"""


def test_another_backend_is_refused_with_the_way_out():
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "ImportError: nsl.keras runs on Keras's TensorFlow backend" in result.stderr
    assert "set to 'torch'" in result.stderr
    assert "KERAS_BACKEND=tensorflow" in result.stderr
