"""Runs the tests on the oldest and the newest TensorFlow and Keras of each Python.

The oldest are the lowest releases that pyproject.toml allows, of all its packages at
once, and the newest the highest there are. Each pair gets an environment of its own, in
which the tests of nsl.keras, lib, attacks and data run, and after them a training step
of models from keras.applications and of small ones of keras-hub. The table also stands
in docs/versions.md, which is written once every row is there.

    make matrix
    python benchmarks/matrix.py --only=3.13-newest
    python benchmarks/matrix.py --only=3.13-nightly

The third runs what is not released yet, and is left out unless asked for. A Python that
is not on this machine is left out and named. Finished rows are kept in --output_dir,
beside what pytest printed, and run again once the sources or the packages change.
"""

import argparse
import dataclasses
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "versions.md"
PYTHONS = ("3.11", "3.12", "3.13")
# For the last one TensorFlow has nightly packages only.
NIGHTLY_PYTHONS = (*PYTHONS, "3.14")
OLDEST, NEWEST, NIGHTLY = "oldest", "newest", "nightly"
GROUPS = {
    "lib": ("tests/lib",),
    "data": ("tests/data",),
    "attacks": ("tests/attacks",),
    "keras": ("tests/keras",),
    "applications": (
        "tests/keras/applications_test.py",
        "tests/keras/hub_test.py",
        "-m",
        "applications",
    ),
}
NAMES = ("Python", "TensorFlow", "Keras")
NUMBERS = ("passed", "failed", "skipped", "seconds")
# Of each kind of environment: how uv chooses among releases.
_CHOICES = {OLDEST: "lowest-direct", NEWEST: "highest", NIGHTLY: "highest"}
# The nightly packages have names of their own and take the place of the released ones.
_RELEASED = "tensorflow ; python_version < '3'\nkeras ; python_version < '3'\n"
_NIGHTLY = "tf-nightly\nkeras-nightly\n"
# Only tests/keras/hub_test.py uses it. TensorFlow Text needs a released TensorFlow, of
# its own version.
_HUB = "keras-hub>=0.21\ntensorflow-text>=2.18\n"


@dataclasses.dataclass(frozen=True)
class Pair:
    """An environment: a Python and how old the packages are."""

    python: str
    age: str

    def __str__(self) -> str:
        return f"{self.python}-{self.age}"


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of a group of tests in an environment.

    Attributes:
      status: That with which pytest ended.
      key: A digest of the sources and packages.
    """

    passed: int
    failed: int
    skipped: int
    seconds: int
    status: int
    key: str


@dataclasses.dataclass(frozen=True)
class Row:
    """What came of all groups of tests in an environment."""

    python: str
    tensorflow: str
    keras: str
    results: tuple[Result, ...]

    def cells(self) -> tuple[str, ...]:
        """Returns what stands in the table."""
        sums = (sum(getattr(each, name) for each in self.results) for name in NUMBERS)
        return self.python, self.tensorflow, self.keras, *map(str, sums)


def find_python(version: str) -> str | None:
    """Returns the path of a Python of this version that starts, or None."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    name = f"python{version}"
    candidates = [shutil.which(name)]
    candidates += map(str, pyenv.glob(f"versions/{version}.*/bin/{name}"))
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    for candidate in filter(None, candidates):
        # A shim of pyenv is found, and fails, where its version is not chosen.
        done = subprocess.run(
            [candidate, "-c", program], capture_output=True, text=True, check=False
        )
        if done.stdout.strip() == version:
            return candidate
    return None


def _uv(*words: str | Path) -> str:
    """Returns what uv printed; where it fails, its message is an error."""
    done = subprocess.run(
        [sys.executable, "-m", "uv", *words], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def packages(pair: Pair, python: str, folder: Path) -> str:
    """Returns a requirement for each package of an environment, one a line."""
    words: list[str | Path] = ["pip", "compile", "--quiet", "--no-build"]
    words += ["--no-header", "--no-annotate", "--extra=test", "--python", python]
    words += [f"--resolution={_CHOICES[pair.age]}", "pyproject.toml"]
    if pair.age == NIGHTLY:
        more, less = folder / "nightly.txt", folder / "released.txt"
        more.write_text(_NIGHTLY)
        less.write_text(_RELEASED)
        words += [more, "--override", less]
    else:
        hub = folder / "hub.txt"
        hub.write_text(_HUB)
        words.append(hub)
    return _uv(*words)


def install(python: str, environment: Path, requirements: Path) -> None:
    """Makes an environment anew, with these packages and nsl."""
    _uv("venv", "--clear", "--python", python, environment)
    install = ("pip", "install", "--python", _python_of(environment))
    # Where Python must not write bytecode, every process would compile what it imports.
    compiled = (*install, "--compile-bytecode")
    _uv(*compiled, "--no-build", "--requirements", requirements)
    _uv(*install, "--no-deps", "--editable", ROOT)


def _python_of(environment: Path) -> Path:
    return environment / "bin" / "python"


def version_of(package: str, requirements: str) -> str:
    """Returns the version of a package, or of its nightly, among requirements."""
    names = {"tensorflow": "tensorflow|tf-nightly", "keras": "keras|keras-nightly"}
    found = re.search(rf"^(?:{names[package]})==(\S+)", requirements, re.MULTILINE)
    if found is None:
        raise ValueError(f"No version of {package} among:\n{requirements}")
    return found[1]


@functools.cache
def sources() -> str:
    """Returns a digest of all that the tests read."""
    digest = hashlib.sha256((ROOT / "pyproject.toml").read_bytes())
    for folder in ("nsl", "tests", "examples"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".json"):
                digest.update(f"{path.relative_to(ROOT)}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


def run(command: Sequence[str], log: Path, show: Callable[[str], None]) -> int:
    """Runs pytest, keeps what it prints and shows how far it is.

    Returns:
      The status with which it ended.
    """
    # No path to another checkout.
    environment = {**os.environ}
    environment.pop("PYTHONPATH", None)
    with (
        log.open("w", buffering=1) as file,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            if percent := re.search(r"\[ *(\d+%)\]$", line):
                show(percent[1])
    return process.returncode


def counts(printed: str) -> dict[str, int]:
    """Returns how many tests passed, failed and were skipped, from pytest's summary.

    Workers may still write to stderr after the summary. Where pytest did not come to
    it, all are 0, and its status tells.
    """
    lines = re.findall(r"^\D*\d+ [a-z]+.* in \d[\d.]*s.*$", printed, re.MULTILINE)
    last = lines[-1] if lines else ""
    found = {kind: int(n) for n, kind in re.findall(r"(\d+) ([a-z]+)", last)}
    return {
        "passed": found.get("passed", 0),
        "failed": sum(found.get(kind, 0) for kind in ("failed", "error", "errors")),
        "skipped": found.get("skipped", 0),
    }


def table(rows: Iterable[Row]) -> str:
    """Returns the rows as a table of Markdown, which reads well as text too."""
    lines = [(*NAMES, *NUMBERS), *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        [
            cell.rjust(width) if column >= len(NAMES) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    rule = ["-" * width for width in widths[: len(NAMES)]]
    rule += ["-" * (width - 1) + ":" for width in widths[len(NAMES) :]]
    return "".join(
        f"| {' | '.join(cells)} |\n" for cells in (padded[0], rule, *padded[1:])
    )


def replace_table(page: str, new: str) -> str:
    """Puts a table in the place of the one on a page.

    Raises:
      ValueError: If the page does not have just one table.
    """
    replaced, count = re.subn(r"(?:^\|.*\n)+", lambda _: new, page, flags=re.MULTILINE)
    if count != 1:
        raise ValueError(f"The page needs one table, it has {count}.")
    return replaced


def row(
    pair: Pair, options: argparse.Namespace, show: Callable[[str], None]
) -> Row | None:
    """Returns what came of an environment, now or before, or None without its Python.

    Args:
      pair: The environment.
      options: Of the program.
      show: Tells a person who waits what is done.

    Raises:
      RuntimeError: If the environment cannot be made.
    """
    python = find_python(pair.python)
    if python is None:
        return None
    show(f"{pair}: choosing packages")
    requirements = packages(pair, python, options.output_dir)
    listed = options.output_dir / f"{pair}.txt"
    listed.write_text(requirements)
    key = hashlib.sha256(f"{sources()}\n{requirements}".encode()).hexdigest()
    environment = options.environments / str(pair)
    results: list[Result] = []
    installed = False
    for group in GROUPS:
        kept = options.output_dir / f"{pair}-{group}.json"
        log = kept.with_suffix(".log")
        result = Result(**json.loads(kept.read_text())) if kept.exists() else None
        if result is None or result.key != key:
            if not installed:
                show(f"{pair}: installing")
                install(python, environment, listed)
                installed = True
            words = ["-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"]
            command = [str(_python_of(environment)), *words, *GROUPS[group]]
            command += options.pytest
            show(f"{pair}: {group}")
            start = time.monotonic()
            status = run(command, log, functools.partial(_show_part, show, pair, group))
            seconds = round(time.monotonic() - start)
            found = counts(log.read_text())
            result = Result(**found, seconds=seconds, status=status, key=key)
            kept.write_text(json.dumps(dataclasses.asdict(result), indent=2))
        if result.status:
            show("")
            print(f"{pair}: {group} failed, see {log}", flush=True)
            for line in re.findall(r"^(?:FAILED|ERROR) .*\n", log.read_text(), re.M):
                print(f"  {line}", end="", flush=True)
        results.append(result)
    tensorflow = version_of("tensorflow", requirements)
    keras = version_of("keras", requirements)
    return Row(pair.python, tensorflow, keras, tuple(results))


def _show_part(show: Callable[[str], None], pair: Pair, group: str, part: str) -> None:
    show(f"{pair}: {group} {part}")


def _show_on_a_terminal(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is not there yet and prints the table.

    Returns:
      1 if a row failed or an environment could not be made, else 0.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    released = [f"{python}-{age}" for python in PYTHONS for age in (OLDEST, NEWEST)]
    names = [*released, *(f"{python}-{NIGHTLY}" for python in NIGHTLY_PYTHONS)]
    add("--only", default=",".join(released), help="default: %(default)s")
    add("--output_dir", type=Path, default=Path("matrix"), help="default: %(default)s")
    environments = Path(tempfile.gettempdir()) / "nsl-matrix"
    add("--environments", type=Path, default=environments, help="default: %(default)s")
    add("pytest", nargs="*", help="further arguments of pytest, after --")
    options = parser.parse_args(arguments)
    chosen = options.only.split(",")
    if not set(chosen) <= set(names):
        parser.error(f"--only must be among {','.join(names)}, received {chosen}")
    options.output_dir = options.output_dir.resolve()
    options.environments = options.environments.resolve()
    options.output_dir.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    made, failed = [], False
    for name in chosen:
        pair = Pair(*name.split("-"))
        try:
            found = row(pair, options, _show_on_a_terminal)
        except RuntimeError as error:
            found, failed = None, True
            reason = f"no environment could be made\n{error}"
        else:
            reason = f"left out, there is no python{pair.python} that starts"
        _show_on_a_terminal("")
        if found is None:
            print(f"{name}: {reason}", flush=True)
        else:
            made.append(name)
            rows.append(found)
    print(table(rows), end="")
    if made == released:
        PAGE.write_text(replace_table(PAGE.read_text(), table(rows)))
        print(f"table: {PAGE}")
    return int(failed or any(each.status for row in rows for each in row.results))


if __name__ == "__main__":
    sys.exit(main())
