"""benchmarks/matrix.py, without making the environments that it makes."""

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
GROUPS = 5
NAMES = [f"{v}-{age}" for v in ("3.11", "3.12", "3.13") for age in ("oldest", "newest")]


@pytest.fixture
def matrix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    path = ROOT / "benchmarks" / "matrix.py"
    spec = importlib.util.spec_from_file_location("matrix", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses looks for it.
    monkeypatch.setitem(sys.modules, "matrix", module)
    spec.loader.exec_module(module)
    page = tmp_path / "versions.md"
    page.write_text("Before.\n\n| old |\n| --- |\n\nAfter.\n")
    monkeypatch.setattr(module, "PAGE", page)
    return module


class Machine:
    """Stands for uv and pytest: notes what would be installed and run."""

    def __init__(self, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        self.packages = "keras==3.99.0\nnumpy==2.0.0\ntensorflow==2.98.1\n"
        self.pythons = {"3.11", "3.12", "3.13"}
        self.sources = "one"
        self.last = "90 passed, 2 skipped, 5 deselected in 3.21s (0:01:00)"
        self.status = 0
        self.installed: list[str] = []
        self.ran: list[list[str]] = []
        for name in ("find_python", "packages", "install", "sources", "run"):
            monkeypatch.setattr(module, name, getattr(self, f"_{name}"))

    def _find_python(self, version: str) -> str | None:
        return f"python{version}" if version in self.pythons else None

    def _packages(self, *_: Any) -> str:
        return self.packages

    def _install(self, python: str, environment: Path, requirements: Path) -> None:
        assert requirements.read_text() == self.packages
        self.installed.append(environment.name)

    def _sources(self) -> str:
        return self.sources

    def _run(self, command: Sequence[str], log: Path, show: Any) -> int:
        self.ran.append(list(command))
        show("55%")
        log.write_text(f"FAILED tests/it.py::test_it\n{self.last}\n")
        return self.status


@pytest.fixture
def machine(matrix: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(matrix, monkeypatch)


def start(matrix: ModuleType, tmp_path: Path, *arguments: str) -> int:
    folder = tmp_path / "kept"
    return matrix.main(
        [f"--output_dir={folder}", f"--environments={tmp_path}", *arguments]
    )


def test_the_table_has_a_line_for_each_pair_and_goes_into_the_page(
    matrix: ModuleType,
    machine: Machine,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert start(matrix, tmp_path) == 0
    assert machine.installed == NAMES
    assert len(machine.ran) == GROUPS * len(NAMES)
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()[: 2 + len(NAMES)]
    assert lines[0].split()[1::2] == [*matrix.NAMES, *matrix.NUMBERS]
    cells = [cell.strip() for cell in lines[2].split("|")[1:-1]]
    assert cells == ["3.11", "2.98.1", "3.99.0", "450", "0", "10", "0"]
    assert len({len(line) for line in lines}) == 1
    page = "\n".join(["Before.", "", *lines, "", "After.", ""])
    assert matrix.PAGE.read_text() == page


def test_what_is_finished_runs_again_only_after_a_change(
    matrix: ModuleType, machine: Machine, tmp_path: Path
) -> None:
    only = "--only=3.13-newest"
    assert start(matrix, tmp_path, only) == 0
    assert start(matrix, tmp_path, only) == 0
    assert len(machine.ran) == GROUPS
    assert machine.installed == ["3.13-newest"]
    machine.sources = "two"
    assert start(matrix, tmp_path, only) == 0
    assert len(machine.ran) == 2 * GROUPS
    machine.packages = machine.packages.replace("2.98.1", "2.99.0")
    assert start(matrix, tmp_path, only) == 0
    assert len(machine.ran) == 3 * GROUPS
    (tmp_path / "kept" / "3.13-newest-applications.json").unlink()
    assert start(matrix, tmp_path, only) == 0
    assert len(machine.ran) == 3 * GROUPS + 1
    assert "applications" in machine.ran[-1]


def test_a_failure_is_told_each_time_and_is_the_exit_code(
    matrix: ModuleType,
    machine: Machine,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine.status, machine.last = 1, "1 failed, 11 passed, 1 error in 3.21s"
    for _ in range(2):
        assert start(matrix, tmp_path, "--only=3.11-oldest") == 1
        printed = capsys.readouterr().out
        assert printed.count("FAILED tests/it.py::test_it") == GROUPS
        assert "3.11-oldest: keras failed, see" in printed
        assert printed.splitlines()[-1].split()[7:12:2] == ["55", "10", "0"]
    assert len(machine.ran) == GROUPS
    assert "old" in matrix.PAGE.read_text()


def test_pythons_that_are_not_there_are_named_and_the_page_stays(
    matrix: ModuleType,
    machine: Machine,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine.pythons = {"3.11"}
    assert start(matrix, tmp_path) == 0
    printed = capsys.readouterr().out
    for name in NAMES[2:]:
        assert f"{name}: left out, there is no python{name[:4]} that starts" in printed
    assert machine.installed == NAMES[:2]
    assert "old" in matrix.PAGE.read_text()


def test_an_environment_that_cannot_be_made_fails_and_others_run(
    matrix: ModuleType,
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def packages(pair: Any, *_: Any) -> str:
        if pair.python == "3.12":
            raise RuntimeError("no solution")
        return machine.packages

    monkeypatch.setattr(matrix, "packages", packages)
    assert start(matrix, tmp_path) == 1
    assert "3.12-newest: no environment could be made\nno solution" in (
        capsys.readouterr().out
    )
    assert machine.installed == [name for name in NAMES if "3.12" not in name]


def test_arguments_reach_pytest_and_unknown_pairs_are_refused(
    matrix: ModuleType,
    machine: Machine,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert start(matrix, tmp_path, "--only=3.12-oldest", "--", "-n", "2") == 0
    assert all(command[-2:] == ["-n", "2"] for command in machine.ran)
    with pytest.raises(SystemExit):
        start(matrix, tmp_path, "--only=2.7-oldest")
    assert "--only must be among" in capsys.readouterr().err


def test_progress_is_for_terminals(
    matrix: ModuleType,
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert start(matrix, tmp_path, "--only=3.12-oldest") == 0
    captured = capsys.readouterr()
    assert "3.12-oldest: keras 55%" in captured.err
    assert "55%" not in captured.out


def test_uv_is_asked_for_the_age(
    matrix: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def uv(*words: str | Path) -> str:
        asked.append([str(word) for word in words])
        return ""

    monkeypatch.setattr(matrix, "_uv", uv)
    for age in ("oldest", "newest", "nightly"):
        matrix.packages(matrix.Pair("3.12", age), "python3.12", tmp_path)
    assert "--resolution=lowest-direct" in asked[0]
    assert "--resolution=highest" in asked[1]
    assert not [word for word in asked[2] if word.startswith("--prerelease")]
    override = asked[2][asked[2].index("--override") + 1]
    replaced = Path(override).read_text().splitlines()
    assert [line.split()[0] for line in replaced] == ["tensorflow", "keras"]
    assert (tmp_path / "nightly.txt").read_text() == "tf-nightly\nkeras-nightly\n"


def test_what_uv_says_is_the_error(
    matrix: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.CompletedProcess([], 1, "", "no solution")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(RuntimeError, match="no solution"):
        matrix._uv("pip")


@pytest.mark.parametrize(
    ("requirements", "tensorflow", "keras"),
    [
        ("keras==3.11.0\ntensorflow==2.18.0\n", "2.18.0", "3.11.0"),
        (
            "keras-nightly==3.16.0.dev1\ntf-nightly==2.23.0.dev2\n",
            "2.23.0.dev2",
            "3.16.0.dev1",
        ),
    ],
)
def test_versions_are_those_of_the_requirements(
    matrix: ModuleType, requirements: str, tensorflow: str, keras: str
) -> None:
    assert matrix.version_of("tensorflow", requirements) == tensorflow
    assert matrix.version_of("keras", requirements) == keras
    with pytest.raises(ValueError, match="No version of keras"):
        matrix.version_of("keras", "keras-hub==1.0\n")


def test_this_python_is_found_and_no_other_takes_its_place(
    matrix: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert matrix.find_python("3.12") is None
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    assert matrix.find_python("3.12") is None
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    program = tmp_path / "versions" / f"{version}.1" / "bin" / f"python{version}"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    program.chmod(0o755)
    assert matrix.find_python(version) == str(program)


def test_pytest_runs_its_output_is_kept_and_its_percents_are_shown(
    matrix: ModuleType, tmp_path: Path
) -> None:
    program = "print('.... [ 55%]'); print('F... [100%]'); raise SystemExit(3)"
    shown: list[str] = []
    log = tmp_path / "log"
    assert matrix.run([sys.executable, "-c", program], log, shown.append) == 3
    assert shown == ["55%", "100%"]
    assert log.read_text() == ".... [ 55%]\nF... [100%]\n"


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ("12 passed, 90 deselected in 3.21s", (12, 0, 0)),
        ("1 failed, 11 passed, 3 skipped, 2 errors in 3.21s", (11, 3, 3)),
        ("Segmentation fault", (0, 0, 0)),
        ("", (0, 0, 0)),
    ],
)
def test_counts(matrix: ModuleType, last: str, expected: tuple[int, ...]) -> None:
    assert tuple(matrix.counts(f"5 dots\n{last}\n").values()) == expected


def test_counts_are_found_before_what_workers_say_as_they_end(
    matrix: ModuleType,
) -> None:
    printed = "...\n1 failed, 835 passed in 41.26s\nWARNING: of stderr\nE0 1\n"
    assert matrix.counts(printed) == {"passed": 835, "failed": 1, "skipped": 0}


def test_the_page_of_the_documentation_has_one_table_of_this_form(
    matrix: ModuleType,
) -> None:
    page = (ROOT / "docs" / "versions.md").read_text()
    result = matrix.Result(1, 0, 0, 2, status=0, key="")
    new = matrix.table([matrix.Row("3.11", "2.18.0", "3.11.0", (result,))])
    assert new in matrix.replace_table(page, new)
    assert (
        new.splitlines()[0].split()
        == next(
            line for line in page.splitlines() if line.startswith("| Python")
        ).split()
    )
    with pytest.raises(ValueError, match="one table, it has 0"):
        matrix.replace_table("no table\n", new)


def test_the_groups_name_tests_that_there_are(matrix: ModuleType) -> None:
    assert len(matrix.GROUPS) == GROUPS
    for tests in matrix.GROUPS.values():
        for word in tests:
            assert (ROOT / word).exists() or word in ("-m", "applications")
