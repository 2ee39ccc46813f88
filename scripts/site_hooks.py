"""mkdocs hooks that complete and check the site.

Each page is also published as Markdown and, if it has programs, as a notebook.
`llms.txt` lists the pages for language models. The build fails if the search index
lacks a public name, or a picture has no alternative text.
"""

import functools
import json
import logging
import posixpath
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts import notebooks, public_api

# Warnings are errors, because mkdocs.yml is strict.
log = logging.getLogger("mkdocs.hooks.site")
# The Markdown and the section of each page, in navigation order.
_MARKDOWN: dict[str, str] = {}
_SECTIONS: dict[str, str] = {}


def _is_notebook(page: str, markdown: str) -> bool:
    return not page.startswith("api/") and notebooks.has_programs(markdown)


def _links(page: str, markdown: str, address: str, repo_url: str | None) -> str:
    """Returns links to the other formats of a page, for the line below its title."""
    name, links = posixpath.basename(address), []
    if _is_notebook(page, markdown):
        if repo_url and "github.com/" in repo_url:
            where = repo_url.rstrip("/").partition("github.com/")[2]
            colab = f"https://colab.research.google.com/github/{where}/blob/gh-pages"
            links.append(f'<a href="{colab}/{address}.ipynb">Open in Colab</a>')
        links.append(f'<a href="{name}.ipynb" download>Notebook</a>')
    links.append(f'<a href="{name}.md">Markdown</a>')
    return f'<p class="forms">{" · ".join(links)}</p>'


def on_nav(nav: Any, config: Any, files: Any) -> None:
    """Stores the order of the pages and their sections."""
    del config, files
    for page in nav.pages:
        _SECTIONS[page.file.src_uri] = page.parent.title if page.parent else "Pages"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Stores the Markdown of a page, and adds links to its formats below the title."""
    del files
    _MARKDOWN[page.file.src_uri] = _with_reference(markdown)
    address = posixpath.splitext(page.file.dest_uri)[0]
    links = _links(page.file.src_uri, markdown, address, config.repo_url)
    title, line, rest = markdown.partition("\n")
    return f"{title}{line}\n{links}\n{rest}"


class _Pictures(HTMLParser):
    """Collects pictures without alternative text."""

    def __init__(self) -> None:
        super().__init__()
        self.silent: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Checks an img or svg element."""
        found = dict(attrs)
        if tag == "img" and not found.get("alt"):
            self.silent.append(found.get("src") or "img")
        labeled = found.get("aria-label") or found.get("aria-labelledby")
        if tag == "svg" and found.get("role") == "img" and not labeled:
            self.silent.append("svg")


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Warns of pictures without alternative text; empty corners are no headers."""
    del config, files
    parser = _Pictures()
    parser.feed(html)
    for picture in parser.silent:
        log.warning("%s: %s has no alternative text", page.file.src_uri, picture)
    return html.replace("<th></th>", "<td></td>")


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Names the search dialog for screen readers, which the theme does not."""
    del page, config
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')


def _with_reference(markdown: str) -> str:
    """Replaces each `::: nsl.package` with signatures and docstrings."""
    names = _public()

    def written(match: re.Match[str]) -> str:
        parts = []
        for path, found in names.items():
            inside = path == match[1] or path.rpartition(".")[0] == match[1]
            if inside and not isinstance(found, str) and not found.is_module:
                lines = "\n".join(public_api.lines_of(path, found))
                docstring = found.docstring.value if found.docstring else ""
                parts.append(f"## {path}\n\n```text\n{lines}\n```\n\n{docstring}\n")
        return "\n".join(parts)

    block = r"^::: ([\w.]+)\n(?: +.*\n)*"
    return re.sub(block, written, markdown, flags=re.MULTILINE)


@functools.cache
def _public() -> dict[str, Any]:
    return dict(sorted(public_api.public().items()))


def unknown_names(index: Any) -> list[str]:
    """Lists the public names that occur in no title or location of a search index."""
    titles = " ".join(
        f"{entry['title']} {entry['location']}" for entry in index["docs"]
    )
    known = set(re.findall(r"\w+", titles))
    names = [name for name, found in _public().items() if not isinstance(found, str)]
    return [name for name in names if name.rpartition(".")[2] not in known]


def summary(markdown: str) -> str:
    """Returns the first sentence of a page."""
    for block in markdown.split("\n\n")[1:]:
        if re.match(r"(?!```)[\w`*\[]", block.strip()):
            text = re.sub(r"\s+", " ", notebooks.LINK.sub(r"\2", block)).strip()
            return re.split(r"(?<=[.:?])\s", text)[0].rstrip(":")
    return ""


def on_post_build(config: Any) -> None:
    """Writes the other formats of the pages and llms.txt, and checks the search."""
    site, url = Path(config.site_dir), config.site_url or ""
    lines = [f"# {config.site_name}", "", f"> {config.site_description}"]
    section = ""
    for page, title in _SECTIONS.items():
        markdown = _MARKDOWN[page]
        target = site / page
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(markdown)
        if _is_notebook(page, markdown):
            made = notebooks.notebook(markdown, page, url)
            nbformat.write(made, target.with_suffix(".ipynb"))
        if title != section:
            section = title
            lines += ["", f"## {section}", ""]
        name = markdown.partition("\n")[0].removeprefix("# ")
        about = summary(markdown)
        lines.append(f"- [{name}]({posixpath.join(url, page)}){about and f': {about}'}")
    (site / "llms.txt").write_text("\n".join(lines) + "\n")
    index = json.loads((site / "search" / "search_index.json").read_text())
    for path in unknown_names(index):
        log.warning("%s is not in the search index: add it to a page in docs/api", path)
