"""Commands that are stopped leave whole files or none."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nsl.tools import pack_nbrs
from tests.tools.example_files import read_examples, write_examples, write_lines

# A command whose 20th record meets what stands in {event}.
PROGRAM = """
import os, resource, signal, sys
from nsl.tools import packing
from nsl.tools.pack_nbrs import main
# Where the tests run in the background, a shell has told them to ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
pack, count = packing.Packer.pack, 0
def stopped(*arguments):
    global count
    count += 1
    if count == 20:
        {event}
    return pack(*arguments)
packing.Packer.pack = stopped
code = main(["labeled", "", "graph", "out", "--num_shards=2"])
sys.exit(code)
"""
SHARDS = {"out-00000-of-00002", "out-00001-of-00002"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def run_until(event: str, folder: Path) -> subprocess.CompletedProcess[str]:
    write_examples(
        folder / "labeled", [{"id": [f"n{i}"], "x": [1.0] * 100} for i in range(40)]
    )
    write_lines(folder / "graph", *(f"n{i}\tn{i + 1}" for i in range(39)))
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(event=event)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("event", "code"),
    [("signal.raise_signal(signal.SIGINT)", 130), ("os.kill(0, 0)", 0)],
)
def test_interrupted(event: str, code: int, tmp_path: Path) -> None:
    done = run_until(event, tmp_path)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert names(tmp_path) == {"labeled", "graph"} | (set() if code else SHARDS)


def test_terminated(tmp_path: Path) -> None:
    done = run_until("signal.raise_signal(signal.SIGTERM)", tmp_path)
    assert done.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in done.stderr
    assert names(tmp_path) == {"labeled", "graph"}


def test_killed_then_run_again(tmp_path: Path) -> None:
    done = run_until("os.kill(os.getpid(), signal.SIGKILL)", tmp_path)
    assert done.returncode == -signal.SIGKILL
    assert not SHARDS & names(tmp_path)
    paths = [str(tmp_path / name) for name in ("labeled", "graph", "out")]
    pack_nbrs(paths[0], "", paths[1], paths[2], num_shards=2)
    assert names(tmp_path) == {"labeled", "graph"} | SHARDS
    assert sum(len(read_examples(tmp_path / shard)) for shard in SHARDS) == 40


def test_disk_full(tmp_path: Path) -> None:
    # A limit on the size of files stands for the end of the disk.
    done = run_until("resource.setrlimit(resource.RLIMIT_FSIZE, (99, 99))", tmp_path)
    assert done.returncode == 1
    assert "pack_nbrs: The disk is full; nothing was kept: out" in done.stderr
    assert "Traceback" not in done.stderr
    assert names(tmp_path) == {"labeled", "graph"}
