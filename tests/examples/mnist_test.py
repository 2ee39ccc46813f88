"""examples/mnist.py in small."""

from pathlib import Path

import mnist
import numpy as np
import pytest


@pytest.mark.arithmetic
def test_adversarial_neighbors_help_against_what_they_are_made_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    mnist.main(["--quick"])
    lines = capsys.readouterr().out.splitlines()
    shares = {line[:37].strip(): line[37:].split() for line in lines}
    for row in ("FGSM on the plain network", "FGSM on the network itself"):
        plain, regularized = float(shares[row][0]), float(shares[row][3])
        assert regularized > plain + 2
    assert min(float(shares["clean"][0]), float(shares["clean"][3])) > 75


def test_the_attacked_images_are_images() -> None:
    test = tuple(part[:50] for part in mnist.load_small()[1])
    model = mnist.make_model(test[0].shape[1:])
    for attack in (mnist.fgsm, mnist.pgd):
        attacked, _ = attack(model, test, 0.1)
        assert attacked.min() >= 0
        assert attacked.max() <= 1
        assert np.abs(attacked - test[0]).max() == pytest.approx(0.1, abs=1e-6)


def test_mnist_is_read_from_a_file_as_keras_stores_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        f"{kind}_{part}": rng.integers(0, high, shape, np.uint8)
        for part, count in (("train", 20), ("test", 10))
        for kind, high, shape in (("x", 256, (count, 28, 28)), ("y", 10, (count,)))
    }
    np.savez(tmp_path / "mnist.npz", **arrays)
    train, test = mnist.load_mnist(tmp_path / "mnist.npz")
    np.testing.assert_array_equal(train[1], arrays["y_train"])
    np.testing.assert_allclose(test[0][..., 0], arrays["x_test"] / 255, rtol=1e-6)
    assert train[0].shape == (20, 28, 28, 1)
    assert test[0].dtype == np.float32


def test_a_missing_file_is_told_with_where_to_get_it() -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.npz\. Download the images from"):
        mnist.load_mnist(Path("no.npz"))
