"""examples/robust_mnist.py in small."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import robust_mnist

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("robust_mnist")
    robust_mnist.main([f"--weights_dir={folder}", "--quick", "--images=150"])
    return folder


def cells(table: str, title: str) -> list[float]:
    [line] = [line for line in table.splitlines() if line.startswith(title)]
    return [float(cell) for cell in line[34:].split()]


def test_adversarial_training_withstands_what_brings_the_plain_network_down(
    folder: Path,
) -> None:
    table = (folder / "robust_mnist.txt").read_text()
    clean, worst = cells(table, "clean"), cells(table, "worst case")
    assert len(clean) == len(worst) == 3
    assert min(clean) > 80
    plain, pgd, trades = worst
    assert min(pgd, trades) > plain + 20
    assert all(seconds > 0 for seconds in cells(table, "CPU seconds"))


def test_the_picture_is_drawn(folder: Path) -> None:
    assert (folder / "robust_mnist.png").stat().st_size > 20_000


def test_what_is_in_the_folder_is_not_made_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {path: path.stat().st_mtime_ns for path in folder.glob("*.keras")}
    reports = {path: path.read_text() for path in folder.glob("*.json")}
    assert len(made) == 3
    assert len(reports) == 6
    table = (folder / "robust_mnist.txt").read_text()
    robust_mnist.main([f"--weights_dir={folder}", "--quick", "--images=150"])
    assert capsys.readouterr().out.startswith(table)
    assert made == {path: path.stat().st_mtime_ns for path in made}
    assert reports == {path: path.read_text() for path in reports}


def test_a_saved_network_needs_no_wrapper(folder: Path) -> None:
    model = keras.models.load_model(folder / "pgd.keras")
    assert isinstance(model, keras.Sequential)
    _, test = robust_mnist.load_digits()
    assert robust_mnist.classify(model, test.x[:5]).shape == (5,)


def test_mnist_is_read_from_a_file_as_keras_stores_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        f"{kind}_{part}": rng.integers(0, high, shape, np.uint8)
        for part, count in (("train", 55_010), ("test", 30))
        for kind, high, shape in (("x", 256, (count, 28, 28)), ("y", 10, (count,)))
    }
    np.savez(tmp_path / "mnist.npz", **arrays)
    train, test = robust_mnist.load_mnist(str(tmp_path / "mnist.npz"))
    # The images that settings were chosen with are left out.
    assert train.x.shape == (55_000, 28, 28, 1)
    np.testing.assert_array_equal(train.y, arrays["y_train"][:55_000])
    np.testing.assert_allclose(test.x[..., 0], arrays["x_test"] / 255, rtol=1e-6)
    assert test.x.dtype == np.float32


@pytest.mark.parametrize("arguments", [["--help"], ["--models=plain,robust"]])
def test_command_line(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "examples/robust_mnist.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if arguments == ["--help"]:
        assert done.returncode == 0
        assert "--weights_dir" in done.stdout
    else:
        assert done.returncode == 2
        assert "--models must be among plain,pgd,trades" in done.stderr
