"""The loop of examples/distributed_loop.py on one machine."""

import concurrent.futures
import contextlib
import io
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import distributed_loop
import pytest
import tensorflow as tf

import tests.two_devices  # noqa: F401
from tests.keras.contract.base import assert_weights_equal

ROOT = Path(__file__).parents[2]


def _train_twice(backup: Path) -> tuple[list[str], list[Any], list[Any]]:
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        model = distributed_loop.train(two, 2, seed=1, backup=backup)
    again = distributed_loop.train(two, 2, seed=1, backup=backup)
    return printed.getvalue().splitlines(), model.get_weights(), again.get_weights()


def test_two_devices_learn_what_one_learns(tmp_path: Path) -> None:
    # In a process of its own: TensorFlow numbers the collective operations of all
    # strategies of a process together, and those of other tests may get in the way.
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as process:
        lines, weights, again = process.submit(_train_twice, tmp_path).result(300)
    assert len(lines) == 3
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines[:2]]
    assert losses[1] < 0.9 * losses[0]
    assert "scaled_adversarial_loss" in lines[0]
    assert "scaled_graph_loss" in lines[0]
    # A job that is done trains no more.
    assert_weights_equal(again, weights, 0.0)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "epoch-00001.weights.h5",
        "epoch-00002.weights.h5",
    ]


@pytest.mark.parametrize("arguments", [["--quick"], ["--epochs=0"]])
def test_command_line(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "examples/distributed_loop.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if arguments == ["--quick"]:
        assert done.returncode == 0, done.stderr
        assert "epoch   2/2" in done.stdout
        assert "517 test images: accuracy" in done.stdout
    else:
        assert done.returncode == 2
        assert "--epochs must be at least 1, received 0" in done.stderr
