"""examples/robust_mnist.py in small."""

import contextlib
import io
import re
from pathlib import Path

import keras
import pytest
import robust_mnist

ARGUMENTS = ["--quick", "--images=150"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the program made, and in `printed.txt` what it said."""
    folder = tmp_path_factory.mktemp("robust_mnist")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        robust_mnist.main([*ARGUMENTS, f"--output_dir={folder}"])
    (folder / "printed.txt").write_text(printed.getvalue())
    return folder


def test_networks_and_finished_attacks_are_not_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = {path: path.read_text() for path in folder.glob("*-0.json")}
    assert len(reports) == 4
    monkeypatch.delattr(robust_mnist, "train")
    robust_mnist.main([*ARGUMENTS, f"--output_dir={folder}"])
    # They tell how long each attack took.
    assert reports == {path: path.read_text() for path in reports}


@pytest.mark.arithmetic
def test_adversarial_training_withstands_what_brings_the_plain_network_down(
    folder: Path,
) -> None:
    printed = (folder / "printed.txt").read_text()
    clean, robust = (
        [float(share) for share in re.findall(rf"\n{row} +([\d.]+)%", printed)]
        for row in ("clean", "robust accuracy")
    )
    assert min(clean) > 70
    plain, pgd, trades, _ = robust
    assert min(pgd, trades) > plain + 15


def test_evaluations_of_other_images_are_not_taken_for_these(folder: Path) -> None:
    with pytest.raises(ValueError, match="belongs to another evaluation"):
        robust_mnist.main(["--quick", "--images=140", f"--output_dir={folder}"])


def test_a_saved_network_needs_no_wrapper(folder: Path) -> None:
    model = keras.models.load_model(folder / "pgd-infinity-0.keras")
    assert isinstance(model, keras.Sequential)
