"""Fixtures of the tests of the tools."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def nothing_added(tmp_path: Path) -> Callable[[set[str]], None]:
    """Returns a check that a folder holds the files it held before, and no other."""

    def check(before: set[str]) -> None:
        assert {path.name for path in tmp_path.iterdir()} == before

    return check
