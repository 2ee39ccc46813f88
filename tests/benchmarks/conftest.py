"""Lets the tests import the programs in benchmarks/ and examples/."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [
    str(ROOT / folder) for folder in ("benchmarks", "examples", "examples/imdb")
]
