"""Each program can be copied: it is short, and needs no file beside it."""

import ast
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = sorted(EXAMPLES.rglob("*.py"))


def _imported_at_start(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or ".").split(".")[0])
    return names


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_needs_no_program_beside_it_and_is_short(path: Path) -> None:
    beside = {other.stem for other in PROGRAMS} - {path.stem}
    if path.parent.name == "imdb":  # Its two programs read the same reviews.
        beside -= {"reviews"}
    assert not _imported_at_start(path) & beside
    assert len(path.read_text().splitlines()) <= 150


def test_the_page_of_examples_names_every_program() -> None:
    page = (EXAMPLES.parent / "docs" / "examples.md").read_text()
    for path in PROGRAMS:
        if path.stem not in ("digits_picture", "reviews"):
            assert f"`{path.relative_to(EXAMPLES)}`" in page
