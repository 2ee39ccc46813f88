"""benchmarks/arithmetics.py, without running the tests that it runs."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def arithmetics(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = ROOT / "benchmarks" / "arithmetics.py"
    spec = importlib.util.spec_from_file_location("arithmetics", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["arithmetics.py"])
    return module


def test_numpy_starts_without_what_is_disabled(arithmetics: ModuleType) -> None:
    for environment in arithmetics.arithmetics().values():
        if "NPY_DISABLE_CPU_FEATURES" in environment:
            code = "import numpy"
            command = [sys.executable, "-W", "error", "-c", code]
            subprocess.run(command, env=environment, check=True)


@pytest.mark.parametrize(
    ("last", "status", "row"),
    [
        ("12 passed, 90 deselected in 3.21s", 0, ["12", "0"]),
        ("1 failed, 11 passed, 1 error in 3.21s (0:01:00)", 1, ["11", "2"]),
        ("90 deselected in 3.21s", 5, ["0", "0"]),
    ],
)
def test_the_table_has_a_row_for_each_arithmetic(
    last: str,
    status: int,
    row: list[str],
    arithmetics: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = subprocess.CompletedProcess([], status, f"FAILED it\n{last}\n", "told\n")
    monkeypatch.setattr(arithmetics, "run", lambda *_: done)
    with pytest.raises(SystemExit) as stopped:
        arithmetics.main()
    assert bool(stopped.value.code) == bool(status)
    printed = capsys.readouterr().out
    names = list(arithmetics.arithmetics())
    assert len(names) >= 3
    assert printed.count("FAILED it") == (len(names) if status else 0)
    table = printed.splitlines()[-len(names) :]
    assert [line[:16].strip() for line in table] == names
    assert all(line[16:].split()[:2] == row for line in table)
