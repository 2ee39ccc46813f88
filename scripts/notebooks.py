"""Converts pages that have programs to notebooks, and executes them.

    make notebooks
    python scripts/notebooks.py docs/guides/tables.md

The site has a notebook next to each such page (`scripts/site_hooks.py`). The first cell
installs nsl if necessary. Pictures are embedded. Links between pages point to the site
if mkdocs.yml has its address; otherwise they become plain text.
"""

import argparse
import base64
import mimetypes
import os
import posixpath
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jupytext
import nbformat

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
INSTALL = """# Install nsl if necessary.
import importlib.util

if importlib.util.find_spec("nsl") is None:
    %pip install --quiet "nsl[{extras}]"
"""
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)(?:\{[^}]*\})?", re.DOTALL)


def has_programs(markdown: str) -> bool:
    """Returns whether a page has Python programs."""
    return re.search(r"^```python", markdown, re.MULTILINE) is not None


def _with_links(cell: Any, page: str, site_url: str) -> None:
    """Embeds the pictures of a cell, and resolves its links."""
    attachments: dict[str, dict[str, str]] = {}

    def replaced(match: re.Match[str]) -> str:
        mark, text, target = match.groups()
        if re.match(r"https?:|#", target):
            return match[0]
        file, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), file))
        if mark:
            picture = DOCS / path
            kind = mimetypes.guess_type(picture)[0] or ""
            data = base64.b64encode(picture.read_bytes()).decode()
            attachments[picture.name] = {kind: data}
            return f"![{text}](attachment:{picture.name})"
        if not site_url:
            return text
        html = path.removesuffix(".md") + ".html" if path.endswith(".md") else path
        return f"[{text}]({posixpath.join(site_url, html)}{'#' * bool(anchor)}{anchor})"

    cell.source = LINK.sub(replaced, cell.source)
    if attachments:
        cell.attachments = attachments


def notebook(markdown: str, page: str, site_url: str = "") -> nbformat.NotebookNode:
    """Converts a page to a notebook.

    Args:
      markdown: The page. Python blocks become cells, `sh` blocks bash cells.
      page: Its path in docs/, such as "guides/tables.md".
      site_url: The URL of the site, or "" if it has none.

    Returns:
      A valid notebook whose first cell installs nsl.
    """
    markdown = re.sub(r"^--8<-- .*\n", "", markdown, flags=re.MULTILINE)
    markdown = re.sub(r"^(```)sh\b.*$", r"\1bash", markdown, flags=re.MULTILINE)
    made = jupytext.reads(markdown, fmt={"extension": ".md", "split_at_heading": True})
    for cell in made.cells:
        if cell.cell_type == "markdown":
            _with_links(cell, page, site_url)
    extras = "examples,beam" if "nsl.beam" in markdown else "examples"
    first = nbformat.v4.new_code_cell(INSTALL.format(extras=extras))
    made.cells.insert(0, first)
    for number, cell in enumerate(made.cells):
        cell.id = f"cell-{number}"  # reproducible
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made.metadata = nbformat.from_dict({"kernelspec": kernel})
    nbformat.validate(made)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Executes notebooks of pages, each in an empty directory; stops at an error."""
    import nbclient

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", type=Path, help="default: all")
    pages = parser.parse_args(arguments).pages or sorted(DOCS.rglob("*.md"))
    # The commands are beside this Python, which need not be activated.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for file in pages:
        markdown, page = file.read_text(), str(file.resolve().relative_to(DOCS))
        if has_programs(markdown):
            with tempfile.TemporaryDirectory() as folder:
                resources = {"metadata": {"path": folder}}
                made = notebook(markdown, page)
                client = nbclient.NotebookClient(made, timeout=600, resources=resources)
                client.execute(env={**os.environ, "PATH": path})
            print(f"{page}: {len(made.cells)} cells", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
