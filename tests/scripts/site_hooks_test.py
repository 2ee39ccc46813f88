"""The site: other forms of each page, and what fails its build."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from scripts import site_hooks


def _page(path: str) -> Any:
    return SimpleNamespace(
        file=SimpleNamespace(src_uri=path, dest_uri=path.replace(".md", ".html"))
    )


@pytest.mark.parametrize(
    ("repo_url", "colab"),
    [
        (None, False),
        ("https://github.com/someone/nsl/", True),
    ],
)
def test_a_page_with_programs_offers_its_notebook(repo_url: Any, colab: bool) -> None:
    config = SimpleNamespace(repo_url=repo_url)
    shown = site_hooks.on_page_markdown(
        "# A page\n\nText\n\n```python\n1\n```\n", _page("guides/a.md"), config, None
    )
    title, _, rest = shown.partition("\n")
    assert title == "# A page"
    assert '<a href="a.ipynb" download>' in rest
    assert '<a href="a.md">' in rest
    where = "colab.research.google.com/github/someone/nsl/blob/gh-pages/guides/a.ipynb"
    assert (where in rest) == colab


def test_a_page_without_programs_has_its_markdown_alone() -> None:
    shown = site_hooks.on_page_markdown(
        "# A page\n\nText\n", _page("a.md"), SimpleNamespace(repo_url=None), None
    )
    assert "ipynb" not in shown
    assert '<a href="a.md">' in shown


@pytest.mark.parametrize(
    ("html", "warns"),
    [
        ('<img alt="Digits" src="a.png">', False),
        ('<img src="a.png">', True),
        ('<img alt="" src="a.png">', True),
        ('<svg role="img" aria-label="A step"></svg>', False),
        ('<svg role="img"></svg>', True),
    ],
)
def test_a_picture_without_a_text_is_a_warning(
    html: str, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        site_hooks.on_page_content(html, _page("a.md"), None, None)
    assert ("has no alternative text" in caplog.text) == warns


def test_screen_readers_get_names_and_no_empty_headers() -> None:
    table = "<table><tr><th></th><th>a</th></tr></table>"
    shown = site_hooks.on_page_content(table, _page("a.md"), None, None)
    assert shown == "<table><tr><td></td><th>a</th></tr></table>"
    dialog = site_hooks.on_post_page('<div role="dialog">', None, None)
    assert dialog == '<div role="dialog" aria-label="Search">'


def test_names_that_the_search_does_not_know_are_listed() -> None:
    names = site_hooks.unknown_names({"docs": []})
    assert {"nsl.attacks.PGD", "nsl.evaluate_robustness"} <= set(names)
    entry = {"title": "PGD", "location": "api/attacks.html#nsl.attacks.PGD"}
    assert set(names) - set(site_hooks.unknown_names({"docs": [entry]})) == {
        "nsl.attacks",
        "nsl.attacks.PGD",
    }


def test_the_reference_has_signatures_and_docstrings_in_markdown() -> None:
    page = _page("api/configs.md")
    block = "# nsl.configs\n\n::: nsl.configs\n    options:\n      heading_level: 2\n"
    shown = site_hooks.on_page_markdown(block, page, SimpleNamespace(repo_url=""), None)
    assert "::: nsl.configs" in shown
    kept = site_hooks._MARKDOWN["api/configs.md"]
    assert ":::" not in kept
    assert "## nsl.configs.NormType" in kept
    assert "nsl.configs.NormType.L1 = 'l1'" in kept


@pytest.mark.parametrize(
    ("markdown", "sentence"),
    [
        ("# A\n\n`nsl` trains\n[models](a.md). More.\n", "`nsl` trains models."),
        ("# A\n\n![x](a.png)\n\n```text\nb\n```\n\nTwo ways:\n\n- a\n", "Two ways"),
        ("# A\n", ""),
    ],
)
def test_a_summary_is_the_first_sentence(markdown: str, sentence: str) -> None:
    assert site_hooks.summary(markdown) == sentence
