"""examples/robust_mnist.py in small."""

from pathlib import Path

import keras
import pytest
import robust_mnist
import robust_mnist_networks

ARGUMENTS = ["--quick", "--images=150"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("robust_mnist")
    robust_mnist.main([*ARGUMENTS, f"--output_dir={folder}"])
    return folder


def shares(table: str, title: str) -> list[float]:
    [line] = [line for line in table.splitlines() if line.startswith(title)]
    return [float(cell) for cell in line.split()[-12::3]]


@pytest.mark.arithmetic
def test_adversarial_training_withstands_what_brings_the_plain_network_down(
    folder: Path,
) -> None:
    table = (folder / "robust_mnist.txt").read_text()
    assert min(shares(table, "clean")) > 70
    plain, pgd, trades, _ = shares(table, "robust accuracy")
    assert min(pgd, trades) > plain + 15


def test_the_picture_is_drawn(folder: Path) -> None:
    assert (folder / "robust_mnist.png").stat().st_size > 20_000


def test_networks_and_finished_attacks_are_not_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = (folder / "robust_mnist.txt").read_text()
    (folder / "robust_mnist.json").unlink()
    reports = {path: path.read_text() for path in folder.glob("*-0.json")}
    assert len(reports) == 4
    monkeypatch.delattr(robust_mnist_networks, "train")
    monkeypatch.setattr(robust_mnist, "draw_picture", lambda *_: None)
    robust_mnist.main([*ARGUMENTS, f"--output_dir={folder}"])
    assert capsys.readouterr().out.startswith(table)
    # They tell how long each attack took.
    assert reports == {path: path.read_text() for path in reports}


def test_networks_of_other_settings_are_not_taken_for_these(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        robust_mnist.main(["--quick", "--images=140", f"--output_dir={folder}"])
    assert "has networks of other settings" in capsys.readouterr().err


def test_a_saved_network_needs_no_wrapper(folder: Path) -> None:
    model = keras.models.load_model(folder / "pgd-0.keras")
    assert isinstance(model, keras.Sequential)
