"""The loop of examples/distributed_loop.py on one machine."""

import subprocess
import sys
from pathlib import Path

import distributed_loop
import pytest
import tensorflow as tf

from tests.keras.contract.base import assert_weights_equal

ROOT = Path(__file__).parents[2]


def test_two_devices_learn_what_one_learns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    model = distributed_loop.train(two, 2, seed=1, backup=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines[:2]]
    assert losses[1] < 0.9 * losses[0]
    assert "scaled_adversarial_loss" in lines[0]
    assert "scaled_graph_loss" in lines[0]
    # A job that is done trains no more.
    again = distributed_loop.train(two, 2, seed=1, backup=tmp_path)
    assert_weights_equal(again.get_weights(), model.get_weights(), 0.0)
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
