"""Networks for MNIST that withstand attacks, and the proof.

A small network is trained plainly, on attacked images (PGD training: Madry et al.,
2018, https://arxiv.org/abs/1706.06083), with TRADES (Zhang et al., 2019,
https://arxiv.org/abs/1901.08573), and on interval bounds (Gowal et al., 2018,
https://arxiv.org/abs/1810.12715), which prove of most images that no attack succeeds.
No pixel may move by more than 0.3 (white is 0, black is 1).

    python examples/robust_mnist.py --data=mnist.npz
    python examples/robust_mnist.py --quick

One core takes an hour and a quarter: 53 minutes for training, of which the bounds take
41, and the rest for the attacks of AutoAttack. An interrupted program resumes. Without
--data, Keras downloads the images (11 MB); --quick takes scikit-learn's digits instead.
"""

import argparse
import dataclasses
from pathlib import Path

import keras
import numpy as np
from keras import layers
from keras.optimizers import schedules
from sklearn.datasets import load_digits

import nsl

NAMES = ("plain", "pgd", "trades", "bounds")
Images = tuple[np.ndarray, np.ndarray]  # `[n, height, width, 1]` in [0, 1], and `[n]`


@dataclasses.dataclass(frozen=True)
class Settings:
    """Chosen on the last 5,000 training images, which are left out here."""

    epsilon: float = 0.3
    steps: int = 5
    step_size: float = 0.1
    learning_rate: float = 0.002
    epochs: tuple[int, ...] = (3, 5, 5, 32)
    batch_size: int = 128


QUICK = Settings(0.2, 2, 0.15, 0.01, (4, 4, 4, 6), 64)


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


def make_model(shape: tuple[int, ...], clips: bool) -> keras.Model:
    """Returns a network that gives logits; `clips` raises the contrast first.

    To begin with, all below 0.3 is then white and all above 0.7 black. Madry et al.
    (2018, appendix C) found that their network had learned such thresholds by itself.
    """
    model = keras.Sequential([keras.Input(shape)])
    if clips:
        model.add(contrast := layers.Conv2D(1, 1))
        contrast.set_weights([np.array([[[[2.5]]]]), np.array([-0.75])])
        model.add(layers.ReLU(max_value=1.0))
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
    model = trained = make_model(images[0].shape[1:], clips=bounds)
    updates = epochs * -(-len(images[1]) // settings.batch_size)
    # With all of epsilon at once, nothing is learned for long.
    grown = schedules.PolynomialDecay(0.0, int(0.2 * updates), settings.epsilon)
    config = nsl.configs.make_adv_reg_config(
        adv_grad_norm="infinity",
        adv_step_size=settings.step_size,
        pgd_iterations=settings.steps,
        pgd_epsilon=grown,
        random_init=True,
        clip_value_min=0.0,
        clip_value_max=1.0,
        multiplier=4.0 if name == "trades" else 1.0,
        **({"objective": "trades"} if name == "trades" else {"mode": "replace"}),
    )
    if bounds:
        options = {"multiplier": 0.05, "steps": 1, "warmup_steps": int(0.45 * updates)}
        config = nsl.keras.presets.interval_bounds(settings.epsilon, **options)
    if name != "plain":
        trained = nsl.keras.AdversarialRegularization(model, adv_config=config)
    warmup = int((0.1 if bounds else 0.3) * updates)
    rising = {"warmup_target": settings.learning_rate, "warmup_steps": warmup}
    rate = schedules.CosineDecay(0.0, updates - warmup, **rising)
    trained.compile(
        keras.optimizers.Adam(rate, use_ema=bounds, ema_momentum=0.998),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    trained.fit(*images, batch_size=settings.batch_size, epochs=epochs, verbose=0)
    return model


def evaluate(
    name: str, images: Images, test: Images, settings: Settings, seed: int, folder: Path
) -> nsl.robustness.RobustnessReport:
    """Attacks a network; what is in the folder is not computed again."""
    path = folder / f"{name}-{seed}.keras"
    if not path.exists():
        train(name, images, settings, seed).save(path)
    model, kept = keras.models.load_model(path), path.with_suffix(".json")
    suite = {"attacks": "quick" if settings == QUICK else "standard", "certify": True}
    suite |= {"bounds": (0.0, 1.0), "seed": seed, "resume": kept}
    return nsl.evaluate_robustness(model, *test, [settings.epsilon], **suite)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="mnist.npz as Keras stores it")
    parser.add_argument("--images", type=int, default=1000, help="default: 1,000")
    parser.add_argument("--output_dir", type=Path, default="robust_mnist")
    parser.add_argument("--quick", action="store_true", help="small images, in seconds")
    options = parser.parse_args(arguments)
    settings, folder = QUICK if options.quick else Settings(), options.output_dir
    images, (x, y) = load(options.data, options.quick)
    test = x[: options.images], y[: options.images]
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        report = evaluate(name, images, test, settings, 0, folder)
        print(f"{name}\n{report}\n")


if __name__ == "__main__":
    main()
