"""Checks the files that changed: lint, types, and their tests.

    make check
    python scripts/check.py --since=HEAD~1

Runs every changed test file. For a module of nsl, runs the test file that mirrors it;
if there is none, the tests of its subpackage that mention it most, or else those of the
modules that import it, as many as take a minute or two. Also runs the programs of
changed pages and the tests of changed examples. `make test` runs everything.
"""

import argparse
import contextlib
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Lines of tests that two cores run in a minute and a half, for one changed file.
LINES = 1500
# Cheap tests that cover every file of the package.
ALWAYS = ("tests/imports_test.py", "tests/public_api_test.py")
# The tests of files that no test mirrors.
OTHERS = {
    ".github/workflows/": "tests/workflows_test.py",
    "README.md": "tests/readme_test.py",
    "neural_structured_learning/": "tests/alias_test.py",
    "nsl/__init__.py": "tests/package_test.py",
    "pyproject.toml": "tests/distribution_test.py",
    "tools/": "tests/readme_test.py",
}


def _git(*words: str) -> list[str]:
    command = ["git", *words]
    return subprocess.check_output(command, cwd=ROOT, text=True).splitlines()


def changed_files(since: str) -> list[str]:
    """Lists the existing files that differ from a commit, including untracked ones."""
    base = _git("merge-base", since, "HEAD")[0]
    names = _git("diff", "--name-only", "--diff-filter=d", base)
    names += _git("ls-files", "--others", "--exclude-standard")
    return sorted(set(names))


def _named(room: Path, stem: str) -> list[str]:
    """Lists the tests of a subpackage that mention a module in any case, most first."""
    word = re.compile(rf"\b{stem.replace('_', '_?')}\b", re.IGNORECASE)
    tests = sorted((ROOT / room).rglob("*_test.py"))
    counts = {path: len(word.findall(path.read_text())) for path in tests}
    found = sorted(filter(counts.get, tests), key=counts.__getitem__, reverse=True)
    return [str(path.relative_to(ROOT)) for path in found]


def _affordable(tests: Iterable[str]) -> list[str]:
    """Lists the first tests, as many as have `LINES` lines, and at least one."""
    found, lines = [], 0
    for test in dict.fromkeys(tests):
        lines += len((ROOT / test).read_text().splitlines())
        if found and lines > LINES:
            break
        found.append(test)
    return found


def tests_of(file: str) -> list[str]:
    """Lists the pytest arguments for a changed file."""
    path = Path(file)
    if file.endswith("_test.py"):
        return [file]
    for start, test in OTHERS.items():
        if file.startswith(start):
            return [test]
    if path.parts[0] == "docs" and path.suffix == ".md":
        page = path.relative_to("docs")
        if "```python" in path.read_text() or "```sh" in path.read_text():
            return [f"tests/docs_test.py::test_the_programs_of[{page}]"]
    if path.suffix != ".py":
        return []
    if path.parts[0] == "nsl":
        path = path.relative_to("nsl")
    if path.parts[0] == "tests":
        return _affordable(_named(path.parent, path.stem))
    mirror = Path("tests", path).with_name(f"{path.stem}_test.py")
    if (ROOT / mirror).exists():
        return [str(mirror)]
    return _affordable(
        _named(Path("tests", path.parts[0]), path.stem)
        or [test for importer in _importers(path) for test in tests_of(importer)]
    )


def _importers(path: Path) -> list[str]:
    """Lists the files of the same subpackage that import a module."""
    word = re.compile(rf"^ *(from|import) .*\b{path.stem}\b", re.MULTILINE)
    room = sorted((ROOT / "nsl" / path.parts[0]).rglob("*.py"))
    return [
        str(file.relative_to(ROOT))
        for file in room
        if file.stem not in (path.stem, "__init__") and word.search(file.read_text())
    ]


def chosen(files: Iterable[str]) -> list[str]:
    """Lists the pytest arguments for all changed files, without duplicates."""
    found = dict.fromkeys(test for file in files for test in tests_of(file))
    if any(file.startswith("nsl/") for file in files):
        found |= dict.fromkeys(ALWAYS)
    whole = {test for test in found if "::" not in test}
    return [test for test in found if test in whole or test.split("::")[0] not in whole]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs ruff, mypy and pytest; returns 1 if any of them fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--since", default="main", help="default: %(default)s")
    files = changed_files(parser.parse_args(arguments).since)
    python = [file for file in files if file.endswith(".py")]
    tests = chosen(files)
    commands = []
    if python:
        commands += [["ruff", "check", *python], ["ruff", "format", "--check", *python]]
    if tests:
        both = ["-n2", "--dist=worksteal"] if len(tests) > len(ALWAYS) + 1 else []
        commands += [["pytest", "-q", *both, *tests]]
    failed = False
    with contextlib.ExitStack() as stack:
        # The types beside the tests, which leave a core to spare at times.
        types = [stack.enter_context(_types())] if python else []
        for command in commands:
            print(" ".join(command), flush=True)
            command = [sys.executable, "-m", *command]
            failed |= subprocess.run(command, cwd=ROOT, check=False).returncode != 0
        for process in types:
            print("mypy", process.communicate()[0], sep="\n", end="", flush=True)
            failed |= process.returncode != 0
    return int(failed)


def _types() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mypy"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


if __name__ == "__main__":
    sys.exit(main())
