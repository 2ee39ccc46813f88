"""Tests of `nsl.files.output_files`."""

import gzip
import os
from pathlib import Path

import pytest

from nsl.files.output_files import atomic_files, check_output, shard_names


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_files_appear_when_all_are_written(tmp_path: Path) -> None:
    paths = [str(tmp_path / "a"), str(tmp_path / "b")]
    Path(paths[0]).write_text("old")
    with atomic_files(paths) as (first, second):
        first.write(b"one")
        second.write(b"two")
        assert Path(paths[0]).read_text() == "old"
        assert not Path(paths[1]).exists()
    assert [Path(path).read_text() for path in paths] == ["one", "two"]
    assert names(tmp_path) == {"a", "b"}


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_one_after_the_other(compression: str | None, tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in "abc"]
    with atomic_files(paths, compression) as files:
        for file in files[:2]:
            with file:
                file.write(b"one")
                file.write(b"two")
        # None of them is open, and all are kept from another run.
        with atomic_files(paths):
            pass
    unpack = gzip.decompress if compression else bytes
    contents = [unpack(Path(path).read_bytes()) for path in paths]
    assert contents == [b"onetwo", b"onetwo", b""]
    assert names(tmp_path) == set("abc")


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f".{name}.0123abcd.incomplete").touch()
    others = {".a.incomplete", ".a.x.incomplete", ".c.0123abcd.incomplete"}
    for name in others:
        (tmp_path / name).touch()
    with atomic_files([str(tmp_path / "a"), str(tmp_path / "b")]):
        pass
    assert names(tmp_path) == {"a", "b"} | others


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_after_an_error(
    error: type[BaseException], tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("old")

    def write() -> None:
        with atomic_files([str(tmp_path / "a"), str(tmp_path / "b")]) as files:
            files[0].write(b"new")
            raise error

    with pytest.raises(error):
        write()
    assert names(tmp_path) == {"a"}
    assert (tmp_path / "a").read_text() == "old"


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    with atomic_files([str(tmp_path / "link")]) as (file,):
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_permissions_are_those_of_a_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic_files([str(tmp_path / "whole")]):
        pass
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_live_writer_keeps_its_file(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    with atomic_files([path]) as (first,):
        first.write(b"first")
        with atomic_files([path]) as (second,):
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
