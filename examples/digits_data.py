"""The digits that examples/digits.py learns from, and the network that learns."""

import dataclasses

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

CLASSES = 10
PIXELS = 64
LABELS_PER_CLASS = 2


@dataclasses.dataclass(frozen=True)
class Images:
    """Images of 64 gray values in [0, 1] and their digits."""

    x: np.ndarray
    y: np.ndarray


@dataclasses.dataclass(frozen=True)
class Split:
    """1,000 images to train on, 297 to choose settings with, 500 to test on."""

    train: Images
    validation: Images
    test: Images


def load_split() -> Split:
    """Splits the digits, the same way each time, with equal shares of the classes."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    rest, test = train_test_split(
        np.arange(len(y)), test_size=500, stratify=y, random_state=0
    )
    train, validation = train_test_split(
        rest, train_size=1000, stratify=y[rest], random_state=0
    )
    return Split(*(Images(x[part], y[part]) for part in (train, validation, test)))


def choose_labeled(y: np.ndarray, seed: int) -> np.ndarray:
    """Draws the images that keep their label, two a class."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [
            rng.choice(np.flatnonzero(y == digit), LABELS_PER_CLASS, replace=False)
            for digit in range(CLASSES)
        ]
    )


def make_model() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((PIXELS,), name="pixels"),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(CLASSES, activation="softmax"),
        ]
    )


def compile_model(model: keras.Model, learning_rate: float) -> None:
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )


def classify(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return np.argmax(model(x, training=False).numpy(), axis=-1)


def accuracy(model: keras.Model, images: Images) -> float:
    return float(np.mean(classify(model, images.x) == images.y))
