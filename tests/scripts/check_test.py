"""`make check` finds the tests of what changed."""

import runpy
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pages import ROOT

CHECK = runpy.run_path(str(ROOT / "scripts" / "check.py"))
TESTS_OF: Callable[[str], list[str]] = CHECK["tests_of"]


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    ("file", "test"),
    [
        ("nsl/lib/distances.py", "tests/lib/distances_test.py"),
        ("nsl/attacks/pgd.py", "tests/attacks/attack_test.py"),
        ("nsl/__init__.py", "tests/package_test.py"),
        ("neural_structured_learning/version.py", "tests/alias_test.py"),
        ("tests/lib/distances_test.py", "tests/lib/distances_test.py"),
        ("tests/attacks/linear.py", "tests/attacks/values_test.py"),
        ("examples/tables.py", "tests/examples/tables_test.py"),
        ("benchmarks/matrix.py", "tests/benchmarks/matrix_test.py"),
        ("scripts/check.py", "tests/scripts/check_test.py"),
        ("README.md", "tests/readme_test.py"),
        (".github/workflows/test.yml", "tests/workflows_test.py"),
        (
            "docs/guides/tables.md",
            "tests/docs_test.py::test_the_programs_of[guides/tables.md]",
        ),
    ],
)
def test_a_changed_file_has_its_test(file: str, test: str) -> None:
    assert (ROOT / file).exists()
    assert test in TESTS_OF(file)


def test_every_module_of_the_package_has_a_test() -> None:
    modules = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "nsl").rglob("*.py")
        if path.name != "__init__.py"
    ]
    tests = {module: TESTS_OF(module) for module in modules}
    assert not {module for module in modules if not tests[module]}
    for module, files in tests.items():
        lines = [len((ROOT / file).read_text().splitlines()) for file in files]
        assert len(files) == 1 or sum(lines) <= CHECK["LINES"], module


def test_a_file_without_tests_has_none() -> None:
    assert TESTS_OF("docs/results.md") == TESTS_OF("LICENSE") == []


def test_pages_run_once_and_the_package_is_looked_at_as_a_whole() -> None:
    page = "tests/docs_test.py::test_the_programs_of[index.md]"
    assert CHECK["chosen"](["docs/index.md", "tests/docs_test.py"]) == [
        "tests/docs_test.py"
    ]
    assert CHECK["chosen"](["docs/index.md", "docs/index.md"]) == [page]
    always = list(CHECK["ALWAYS"])
    assert CHECK["chosen"](["nsl/lib/rows.py"])[-2:] == always


def test_changed_files_are_those_of_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> None:
        name = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        subprocess.run(["git", *name, *words], cwd=tmp_path, check=True)

    git("init", "--quiet", "--initial-branch=main")
    for name in ("kept.py", "changed.py", "removed.py"):
        (tmp_path / name).write_text("a = 1\n")
    git("add", ".")
    git("commit", "--quiet", "--message=first")
    git("checkout", "--quiet", "-b", "branch")
    (tmp_path / "changed.py").write_text("a = 2\n")
    (tmp_path / "removed.py").unlink()
    git("commit", "--quiet", "--all", "--message=second")
    (tmp_path / "new.py").write_text("")
    monkeypatch.setitem(CHECK["_git"].__globals__, "ROOT", tmp_path)
    assert CHECK["changed_files"]("main") == ["changed.py", "new.py"]
