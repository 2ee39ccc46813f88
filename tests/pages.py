"""What the pages of the documentation hold: programs and commands."""

import re
import shlex
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]


def all_blocks(page: Path) -> list[tuple[str, str]]:
    """Lists language and text of the fenced blocks, indented ones (tabs) included."""
    fence = r"^( *)```(\w+)[^\n]*\n(.*?)^\1```$"
    found = re.findall(fence, page.read_text(), re.MULTILINE | re.DOTALL)
    return [(language, textwrap.dedent(text)) for _, language, text in found]


def blocks(page: Path, language: str) -> list[str]:
    """Lists the fenced blocks of one language."""
    return [text for found, text in all_blocks(page) if found == language]


def commands(page: Path) -> list[list[str]]:
    """Lists the words of each shell command, comments left out."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]
