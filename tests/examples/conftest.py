"""Lets the tests import the programs in examples/, and benchmarks of them."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("examples", "examples/imdb", "benchmarks")
sys.path[:0] = [str(ROOT / folder) for folder in FOLDERS]
