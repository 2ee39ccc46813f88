"""The custom training loop of examples/custom_loop.py."""

import subprocess
import sys
from pathlib import Path

import custom_loop
import pytest

ROOT = Path(__file__).parents[2]


def test_every_loss_falls_and_the_model_learns() -> None:
    result = custom_loop.train(epochs=6, seed=1)
    first, last = result.losses[0], result.losses[-1]
    assert last["labeled"] < 0.5 * first["labeled"]
    assert last["adversarial"] < 0.7 * first["adversarial"]
    assert result.clean_accuracy > 0.85
    assert 0.3 < result.attacked_accuracy < result.clean_accuracy


def test_the_distance_term_brings_neighbors_together() -> None:
    with_term = custom_loop.train(epochs=4, seed=1, distance_weight=20.0)
    without = custom_loop.train(epochs=4, seed=1, distance_weight=0.0)
    assert with_term.losses[-1]["distance"] < 0.7 * without.losses[-1]["distance"]


def test_the_same_seed_gives_the_same_losses() -> None:
    first, second = (custom_loop.train(epochs=1, seed=3) for _ in range(2))
    assert first.losses == second.losses


@pytest.mark.parametrize("arguments", [["--help"], ["--epochs=0"]])
def test_command_line(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "examples/custom_loop.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if arguments == ["--help"]:
        assert done.returncode == 0
        assert "--epochs" in done.stdout
        assert "--seed" in done.stdout
    else:
        assert done.returncode == 2
        assert "--epochs must be at least 1, received 0" in done.stderr
