"""Limits that are told at import."""

import importlib
import sys

import keras
import pytest


def test_another_backend_is_refused_with_the_way_out(monkeypatch):
    # The others are no dependency of the tests, so Keras only says it runs one.
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    monkeypatch.delitem(sys.modules, "nsl.keras")
    with pytest.raises(ImportError) as raised:
        importlib.import_module("nsl.keras")
    assert "nsl.keras runs on Keras's TensorFlow backend" in str(raised.value)
    assert "set to 'torch'" in str(raised.value)
    assert "KERAS_BACKEND=tensorflow" in str(raised.value)
