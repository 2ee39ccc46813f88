"""The loop of examples/distributed_loop.py on one machine."""

import concurrent.futures
import contextlib
import io
import multiprocessing
from pathlib import Path

import distributed_loop
import pytest


def _run_twice(backup: Path) -> list[list[str]]:
    """Returns what the program prints at first, and once it is done."""
    printed = []
    for _ in range(2):
        with contextlib.redirect_stdout(io.StringIO()) as lines:
            distributed_loop.main(["--quick", f"--backup={backup}"])
        printed.append(lines.getvalue().splitlines())
    return printed


@pytest.mark.arithmetic
def test_two_devices_learn_and_a_job_that_is_done_trains_no_more(
    tmp_path: Path,
) -> None:
    # In a process of its own: TensorFlow numbers the collective operations of all
    # strategies of a process together, and those of other tests may get in the way.
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as process:
        first, second = process.submit(_run_twice, tmp_path).result(300)
    assert len(first) == 3
    losses = [float(line.split("loss ")[1].split()[0]) for line in first[:2]]
    assert losses[1] < 0.9 * losses[0]
    assert "scaled_adversarial_loss" in first[0]
    assert "scaled_graph_loss" in first[0]
    assert first[2].startswith("517 test images: accuracy")
    assert second == first[2:]
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "epoch-00001.weights.h5",
        "epoch-00002.weights.h5",
    ]


def test_there_must_be_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        distributed_loop.main(["--epochs=0"])
    assert "--epochs must be at least 1, received 0" in capsys.readouterr().err
