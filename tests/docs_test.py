"""Every Python and shell block of the documentation runs, page by page, in order.

Models train for two epochs at most; `make notebooks` runs the pages as they are. What
needs another machine or takes long is marked as another language (`console`, `text`).
Programs in examples/ have tests of their own.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import pytest

from tests.pages import ROOT, all_blocks

RUN = ("python", "sh")
#: A page that asserts what its models learn.
IN_FULL = ROOT / "docs" / "guides" / "few_labels.md"
PAGES = [
    page
    for page in sorted((ROOT / "docs").rglob("*.md"))
    if any(language in RUN for language, _ in all_blocks(page))
]


_FIT = keras.Model.fit


@functools.wraps(_FIT)
def _fit_briefly(*data: Any, epochs: int = 1, **settings: Any) -> Any:
    return _FIT(*data, epochs=min(epochs, 2), **settings)


def _run_in_shell(text: str, where: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{where}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs"))
)
def test_the_programs_of(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("tools", "examples", "benchmarks"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    if page != IN_FULL:
        monkeypatch.setattr(keras.Model, "fit", _fit_briefly)
    keras.utils.set_random_seed(0)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, (language, text) in enumerate(all_blocks(page), 1):
        where = f"{page.name}, block {number}"
        if language == "python":
            exec(compile(text, where, "exec"), namespace)
        elif language == "sh":
            _run_in_shell(text, where)


def test_the_reader_of_pages_sees_indented_blocks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        '```python\na = 1\n```\n=== "Tab"\n\n    ```sh title="x"\n    ls\n'
        "    ```\n\n```text\nc\n```\n"
    )
    assert all_blocks(page) == [("python", "a = 1\n"), ("sh", "ls\n"), ("text", "c\n")]
