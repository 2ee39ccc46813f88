"""examples/mnist.py in small."""

from pathlib import Path

import keras
import mnist
import numpy as np
import pytest
from mnist_images import load_digits, load_mnist


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mnist")
    mnist.main(["--quick", f"--output_dir={folder}"])
    return folder


@pytest.mark.arithmetic
def test_adversarial_neighbors_help_against_what_they_are_made_with(
    folder: Path,
) -> None:
    lines = (folder / "mnist.txt").read_text().splitlines()
    shares = {line[:38].strip(): line[38:].split() for line in lines}
    for row in ("FGSM on the plain network", "FGSM on the network itself"):
        plain, regularized = float(shares[row][0]), float(shares[row][3])
        assert regularized > plain + 2
    assert min(float(shares["clean"][0]), float(shares["clean"][3])) > 75


def test_the_attacked_images_are_images(folder: Path) -> None:
    _, test = load_digits()
    test = mnist.Images(test.x[:50], test.y[:50])
    model = keras.models.load_model(folder / "plain.keras")
    for attack in (mnist.fgsm, mnist.pgd):
        attacked = attack(model, test, mnist.QUICK).x
        assert attacked.min() >= 0
        assert attacked.max() <= 1
        assert np.abs(attacked - test.x).max() == pytest.approx(0.1, abs=1e-6)


def test_the_picture_is_drawn(folder: Path) -> None:
    assert (folder / "mnist.png").stat().st_size > 20_000


def test_mnist_is_read_from_a_file_as_keras_stores_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        f"{kind}_{part}": rng.integers(0, high, shape, np.uint8)
        for part, count in (("train", 20), ("test", 10))
        for kind, high, shape in (("x", 256, (count, 28, 28)), ("y", 10, (count,)))
    }
    np.savez(tmp_path / "mnist.npz", **arrays)
    train, test = load_mnist(tmp_path / "mnist.npz")
    np.testing.assert_array_equal(train.y, arrays["y_train"])
    np.testing.assert_allclose(test.x[..., 0], arrays["x_test"] / 255, rtol=1e-6)
    assert train.x.shape == (20, 28, 28, 1)
    assert test.x.dtype == np.float32


def test_a_missing_file_is_told_with_where_to_get_it() -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.npz\. Download the images from"):
        load_mnist(Path("no.npz"))
