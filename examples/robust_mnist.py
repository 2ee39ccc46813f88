"""Networks for MNIST that withstand attacks, and the proof.

A small network is trained plainly, on attacked images (PGD training), with TRADES, and
on interval bounds, which prove of most images that no attack succeeds. No pixel may
move by more than 0.3 (white is 0, black is 1); with --norm=l2, no image may move by
more than 2.0 in the L2 norm. docs/guides/robust_training.md explains the methods.

    python examples/robust_mnist.py --data=mnist.npz  # or --quick

One core takes an hour and a quarter. An interrupted program resumes.
"""

import argparse
import dataclasses
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from keras.optimizers import schedules
from sklearn.datasets import load_digits

import nsl

NAMES = ("plain", "pgd", "trades", "bounds")
Images = tuple[np.ndarray, np.ndarray]  # `[n, height, width, 1]` in [0, 1], and `[n]`


@dataclasses.dataclass(frozen=True)
class Settings:
    """Chosen on the last 5,000 training images, which are left out here."""

    norm: str = "infinity"
    epsilon: float = 0.3
    steps: int = 5
    learning_rate: float = 0.002
    epochs: tuple[int, ...] = (3, 5, 5, 32)
    batch_size: int = 128


L2 = Settings("l2", 2.0, epochs=(3, 8))
QUICK = Settings("infinity", 0.2, 2, 0.01, (4, 4, 4, 16), 64)


def load(path: Path | None, quick: bool) -> tuple[Images, Images]:
    """Returns images to train and to test with."""
    if quick:
        x, y = load_digits(return_X_y=True)
        x = np.kron(x.reshape(-1, 8, 8) / 16, np.ones((1, 2, 2))).astype("float32")
        return (x[:1500, ..., None], y[:1500]), (x[1500:, ..., None], y[1500:])
    if path is None:
        parts = keras.datasets.mnist.load_data()
    else:
        file = np.load(path)
        parts = [(file[f"x_{part}"], file[f"y_{part}"]) for part in ("train", "test")]
    train, test = (((x / 255).astype("float32")[..., None], y) for x, y in parts)
    return (train[0][:55_000], train[1][:55_000]), test


def vary(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Distorts images a little, and moves them by up to one pixel."""
    count, center = tf.shape(x)[0], tf.fill([2, 1], (x.shape[1] - 1) / 2)
    matrix = tf.eye(2) + tf.random.uniform([count, 2, 2], -0.12, 0.12)
    shift = tf.random.uniform([count, 2, 1], -1.0, 1.0)
    rows = tf.concat([matrix, center - matrix @ center + shift], axis=2)
    transforms = tf.pad(tf.reshape(rows, [count, 6]), [[0, 0], [0, 2]])
    x = keras.ops.image.affine_transform(x, transforms)
    return tf.clip_by_value(1.45 * x - 0.225, 0.0, 1.0), y  # Interpolation blurs.


def make_model(shape: tuple[int, ...], contrast: bool) -> keras.Model:
    """Returns a network that gives logits; `contrast` puts a soft threshold first."""
    model = keras.Sequential([keras.Input(shape)])
    if contrast:
        model.add(first := layers.Conv2D(1, 1, activation="sigmoid"))
        first.set_weights([np.array([[[[20.0]]]]), np.array([-10.0])])
    convolution = {"strides": 2, "padding": "same", "activation": "relu"}
    model.add(layers.Conv2D(32, 4, **convolution))
    model.add(layers.Conv2D(64, 4, **convolution))
    model.add(layers.Flatten())
    model.add(layers.Dense(128, activation="relu"))
    model.add(layers.Dense(10))
    return model


def train(name: str, images: Images, settings: Settings, seed: int) -> keras.Model:
    """Returns a trained network, with no wrapper around it."""
    keras.utils.set_random_seed(seed)
    bounds, epochs = name == "bounds", settings.epochs[NAMES.index(name)]
    model = trained = make_model(images[0].shape[1:], contrast=bounds)
    data = tf.data.Dataset.from_tensor_slices(images).shuffle(len(images[1]))
    data = data.batch(settings.batch_size)
    updates, presets = epochs * len(data), nsl.keras.presets
    # With all of epsilon at once, nothing is learned for long.
    ball = (settings.epsilon, settings.norm, (0.0, 1.0), settings.steps)
    if bounds:
        options = {"multiplier": 0.15, "steps": 1, "warmup_steps": int(0.45 * updates)}
        config = presets.interval_bounds(settings.epsilon, **options)
        data = data.map(vary)
    elif name == "trades":
        config = presets.trades(*ball, beta=4.0, warmup_steps=int(0.2 * updates))
    elif name == "pgd":
        config = presets.pgd(*ball, warmup_steps=int(0.2 * updates))
    if name != "plain":
        trained = nsl.keras.AdversarialRegularization(model, adv_config=config)
    warmup = int((0.1 if bounds else 0.3) * updates)
    rising = {"warmup_target": settings.learning_rate, "warmup_steps": warmup}
    rate = schedules.CosineDecay(0.0, updates - warmup, **rising)
    trained.compile(
        keras.optimizers.Adam(rate, use_ema=bounds, ema_momentum=0.998),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    trained.fit(data.prefetch(1), epochs=epochs, shuffle=False, verbose=0)
    return model


def evaluate(
    name: str, images: Images, test: Images, settings: Settings, seed: int, folder: Path
) -> nsl.robustness.RobustnessReport:
    """Attacks a network; what is in the folder is not computed again."""
    path = folder / f"{name}-{settings.norm}-{seed}.keras"
    if not path.exists():
        train(name, images, settings, seed).save(path)
    suite = {"attacks": "quick" if settings == QUICK else "standard", "seed": seed}
    suite |= {"norm": settings.norm, "certify": settings.norm == "infinity"}
    suite |= {"bounds": (0.0, 1.0), "resume": path.with_suffix(".json")}
    model = keras.models.load_model(path)
    return nsl.evaluate_robustness(model, *test, settings.epsilon, **suite)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="mnist.npz; default: a download")
    parser.add_argument("--images", type=int, default=1000, help="default: 1,000")
    parser.add_argument("--norm", default="infinity", choices=("infinity", "l2"))
    parser.add_argument("--output_dir", type=Path, default="robust_mnist")
    parser.add_argument("--quick", action="store_true", help="small images, in seconds")
    options = parser.parse_args(arguments)
    settings = L2 if options.norm == "l2" else QUICK if options.quick else Settings()
    images, (x, y) = load(options.data, options.quick)
    test = x[: options.images], y[: options.images]
    options.output_dir.mkdir(parents=True, exist_ok=True)
    for name in NAMES[: len(settings.epochs)]:
        report = evaluate(name, images, test, settings, 0, options.output_dir)
        print(f"{name}\n{report}\n")


if __name__ == "__main__":
    main()
