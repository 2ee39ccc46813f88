"""MNIST images, and the smaller digits of scikit-learn for a quick run."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
from sklearn import datasets

SOURCE = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"


@dataclasses.dataclass(frozen=True)
class Images:
    """Images `[n, height, width, 1]` with values in [0, 1], and labels `[n]`."""

    x: np.ndarray
    y: np.ndarray


def load_mnist(path: Path | None) -> tuple[Images, Images]:
    """Returns the 60,000 training images and the 10,000 test images.

    Args:
      path: The file mnist.npz, as stored by Keras. With None, Keras downloads it.

    Raises:
      FileNotFoundError: If the file does not exist; the message says where to get it.
    """
    if path is None:
        parts = keras.datasets.mnist.load_data()
    elif path.exists():
        with np.load(path) as file:
            parts = [
                (file[f"x_{part}"], file[f"y_{part}"]) for part in ("train", "test")
            ]
    else:
        raise FileNotFoundError(
            f"There is no file {path}. Download the images from {SOURCE} (11 MB), or"
            " omit --data to let Keras download them."
        )
    train, test = (
        Images((x / 255).astype(np.float32)[..., np.newaxis], y.astype(np.int32))
        for x, y in parts
    )
    return train, test


def load_digits() -> tuple[Images, Images]:
    """Returns scikit-learn's 1,797 digits, enlarged from 8 x 8 to 16 x 16 pixels."""
    x, y = datasets.load_digits(return_X_y=True)
    x = np.kron(x.reshape(-1, 8, 8) / 16, np.ones((1, 2, 2)))
    x, y = x.astype(np.float32)[..., np.newaxis], y.astype(np.int32)
    return Images(x[:1500], y[:1500]), Images(x[1500:], y[1500:])
