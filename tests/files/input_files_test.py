"""Tests of `nsl.files.input_files`."""

import os
import threading
from pathlib import Path

import pytest

from nsl.files.input_files import expand_paths, open_input


def test_expand_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b2", "b10", "b1", "c,d", "e[1]", "e1"):
        (tmp_path / name).touch()
    assert expand_paths("b2") == ["b2"]
    assert expand_paths("b*") == ["b1", "b10", "b2"]
    assert expand_paths("b2,b1*") == ["b2", "b1", "b10"]
    assert expand_paths(["b2", Path("b1")]) == ["b2", "b1"]
    # What exists under exactly this name is meant.
    assert expand_paths("c,d") == ["c,d"]
    assert expand_paths("e[1]") == ["e[1]"]
    assert expand_paths(f"file://{tmp_path}/b?") == [
        f"file://{tmp_path}/{name}" for name in ("b1", "b2")
    ]


def test_expand_paths_refuses() -> None:
    with pytest.raises(FileNotFoundError, match="There is no file 'nowhere'"):
        expand_paths("nowhere")
    with pytest.raises(FileNotFoundError, match="There is no file ''"):
        expand_paths("")
    with pytest.raises(TypeError, match="list of paths"):
        expand_paths(3)


def test_a_pipe_can_be_read_at_any_position(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"content",))
    writer.start()
    with open_input(str(pipe)) as file:
        writer.join()
        assert file.read() == b"content"
        assert os.pread(file.fileno(), 3, 2) == b"nte"


def test_a_missing_remote_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Cannot read"):
        open_input(f"file://{tmp_path}/nowhere")
