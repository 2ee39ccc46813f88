"""Pages become notebooks that run where nsl is not installed yet."""

import json
import re
from pathlib import Path

import pytest

from scripts import notebooks
from tests.pages import ROOT, all_blocks

PAGES = [
    path
    for path in sorted((ROOT / "docs").rglob("*.md"))
    if notebooks.has_programs(path.read_text())
]
PAGE = """# A page

See [another](other.md#part) and [the index](../index.md) or [nsl](https://example.org).

![A picture
of digits](../images/digits.png)

```python
a = 1
```

```text
not a program
```

```sh title="shell"
ls
```
"""


def test_blocks_become_cells_and_pictures_travel_along() -> None:
    made = notebooks.notebook(PAGE, "guides/page.md")
    kinds = [cell.cell_type for cell in made.cells]
    assert kinds == ["code", "markdown", "code", "markdown", "code"]
    install, page, python, text, shell = made.cells
    assert '%pip install --quiet "nsl[examples]"' in install.source
    assert python.source == "a = 1"
    assert shell.source == "%%bash\nls"
    assert "not a program" in text.source
    assert list(page.attachments) == ["digits.png"]
    assert "![A picture\nof digits](attachment:digits.png)" in page.source
    assert "See another and the index or [nsl](https://example.org)." in page.source


def test_links_lead_into_the_site_once_it_has_an_address() -> None:
    made = notebooks.notebook(PAGE, "guides/page.md", "https://example.org/nsl")
    site = "https://example.org/nsl"
    assert f"[another]({site}/guides/other.html#part)" in made.cells[1].source
    assert f"[the index]({site}/index.html)" in made.cells[1].source


def test_an_executed_notebook_finds_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The environment of `make notebooks` is not activated."""
    pytest.importorskip("nbclient")
    monkeypatch.setattr(notebooks, "DOCS", tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    page = tmp_path / "page.md"
    page.write_text("""# A page

```python
import shutil

assert shutil.which("nsl-build-graph")
```
""")
    assert notebooks.main([str(page)]) == 0
    assert capsys.readouterr().out == "page.md: 3 cells\n"


@pytest.mark.parametrize(
    "path", PAGES, ids=lambda path: str(path.relative_to(ROOT / "docs"))
)
def test_the_notebook_of(path: Path) -> None:
    page = str(path.relative_to(ROOT / "docs"))
    made = notebooks.notebook(path.read_text(), page)
    code = [cell.source for cell in made.cells if cell.cell_type == "code"][1:]
    programs = [
        text.strip() for kind, text in all_blocks(path) if kind in ("python", "sh")
    ]
    assert [source.removeprefix("%%bash\n") for source in code] == programs
    text = "".join(cell.source for cell in made.cells if cell.cell_type == "markdown")
    assert not re.search(r"\]\((?!https?:|attachment:|#)", text)
    assert "--8<--" not in text
    again = notebooks.notebook(path.read_text(), page)
    assert json.dumps(made) == json.dumps(again)
