"""The custom training loop of examples/custom_loop.py."""

from pathlib import Path

import custom_loop
import pytest


@pytest.fixture(scope="module")
def result() -> custom_loop.Result:
    return custom_loop.train(epochs=5, seed=1)


@pytest.mark.arithmetic
def test_every_loss_falls_and_the_model_learns(result: custom_loop.Result) -> None:
    first, last = result.losses[0], result.losses[-1]
    assert last["labeled"] < 0.5 * first["labeled"]
    assert last["adversarial"] < 0.7 * first["adversarial"]
    assert result.clean_accuracy > 0.85
    assert 0.3 < result.attacked_accuracy < result.clean_accuracy


@pytest.mark.arithmetic
def test_the_distance_term_brings_neighbors_together() -> None:
    with_term = custom_loop.train(epochs=4, seed=1, distance_weight=20.0)
    without = custom_loop.train(epochs=4, seed=1, distance_weight=0.0)
    assert with_term.losses[-1]["distance"] < 0.7 * without.losses[-1]["distance"]


def test_quick_prints_two_epochs_and_draws_them(
    result: custom_loop.Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    custom_loop.main(["--quick", "--seed=1", f"--output_dir={tmp_path / 'made'}"])
    printed = capsys.readouterr().out
    # The same seed gives the same losses.
    for epoch, losses in enumerate(result.losses[:2], 1):
        told = "  ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
        assert f"epoch   {epoch}/2  {told}\n" in printed
    assert "500 test images: accuracy" in printed
    assert (tmp_path / "made" / "custom_loop.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("argument", "said"),
    [("--help", "--seed"), ("--epochs=0", "--epochs must be at least 1, received 0")],
)
def test_command_line(
    argument: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        custom_loop.main([argument])
    assert said in "".join(capsys.readouterr())
