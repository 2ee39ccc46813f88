"""Lets the tests import the programs in examples/; two CPU devices for them."""

import sys
from pathlib import Path

import tests.two_devices  # noqa: F401

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
