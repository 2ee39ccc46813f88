"""Tests of `nsl.tools.output_files`, and of commands that are stopped."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from example_files import read_examples, write_examples, write_lines

from nsl.tools import pack_nbrs
from nsl.tools.output_files import check_output, shard_names, whole_files


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_files_appear_when_all_are_written(tmp_path: Path) -> None:
    paths = [str(tmp_path / "a"), str(tmp_path / "b")]
    Path(paths[0]).write_text("old")
    with whole_files(paths) as (first, second):
        first.write(b"one")
        second.write(b"two")
        assert Path(paths[0]).read_text() == "old"
        assert not Path(paths[1]).exists()
    assert [Path(path).read_text() for path in paths] == ["one", "two"]
    assert names(tmp_path) == {"a", "b"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_after_an_error(
    error: type[BaseException], tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("old")

    def write() -> None:
        with whole_files([str(tmp_path / "a"), str(tmp_path / "b")]) as files:
            files[0].write(b"new")
            raise error

    with pytest.raises(error):
        write()
    assert names(tmp_path) == {"a"}
    assert (tmp_path / "a").read_text() == "old"


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    with whole_files([str(tmp_path / "link")]) as (file,):
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_permissions_are_those_of_a_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with whole_files([str(tmp_path / "whole")]):
        pass
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_live_writer_keeps_its_file(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    with whole_files([path]) as (first,):
        first.write(b"first")
        with whole_files([path]) as (second,):
            second.write(b"second")
        assert Path(path).read_text() == "second"
    assert Path(path).read_text() == "first"
    assert names(tmp_path) == {"a"}


def test_shard_names() -> None:
    assert shard_names("out", None) == ["out"]
    assert shard_names("out", 2) == ["out-00000-of-00002", "out-00001-of-00002"]


def test_check_output(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "input").touch()
    (tmp_path / "hard").hardlink_to(tmp_path / "input")
    check_output(str(tmp_path / "new"), [str(tmp_path / "input")])
    for path, error in [
        (tmp_path, IsADirectoryError),
        (tmp_path / "pipe", OSError),
        (tmp_path / "nowhere" / "out", FileNotFoundError),
        (tmp_path / "hard", ValueError),
    ]:
        with pytest.raises(error, match="output"):
            check_output(str(path), [str(tmp_path / "input")])
    with pytest.raises(ValueError, match="output path is empty"):
        check_output("")


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
