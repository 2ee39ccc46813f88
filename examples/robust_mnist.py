"""Networks for MNIST that withstand attacks, and the proof.

The same small convolutional network is trained three times: plainly; on attacked images
alone (PGD training: Madry et al., 2018, https://arxiv.org/abs/1706.06083); and with
TRADES (Zhang et al., 2019, https://arxiv.org/abs/1901.08573), both with
`nsl.keras.AdversarialRegularization` in an ordinary `fit`. No pixel may move by more
than epsilon = 0.3, where white is 0 and black is 1. Then `nsl.evaluate_robustness`
attacks 1,000 test images with the standard suite (Auto-PGD on the cross-entropy,
targeted Auto-PGD on the difference of logits ratio, FAB, Square), and with Auto-PGD
alone over many epsilons.

The program prints a table and draws a picture. Networks, reports, table and picture go
into a folder, and what is there already is not made again: an interrupted run goes on
where it was, and with the networks there the evaluation alone is repeated when their
reports are deleted.

    python examples/robust_mnist.py --weights_dir=robust_mnist
    python examples/robust_mnist.py --quick --weights_dir=/tmp/quick

On one core the three trainings took 30 s, 4 and 5 minutes of CPU time, and the attacks
on each of the robust networks 10 minutes. With --models=pgd and --models=trades two
processes share the work; without --models the program then puts all together.

Without --data, keras.datasets.mnist.load_data downloads the images (11 MB). --quick
does all of it in seconds, with scikit-learn's digits, scaled up, for a test.
"""

import argparse
import csv
import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import digit_rows
import keras
import numpy as np
import robust_mnist_picture

import nsl

MODELS = ("plain", "pgd", "trades")
CLASSES = 10
BOUNDS = (0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What was chosen, with prototypes scored on images 55,000 to 55,999 for training.

    The number of epochs and the multiplier of TRADES follow the time there is for
    training, and were not compared on those images.

    Attributes:
      epsilon: How far a pixel may move, in training and in the standard suite.
      steps: The number of steps of the attack in training, from a random start.
      step_size: Their size.
      ramp: The share of the training in which epsilon grows from 0, for with all of it
        from the start the network long learns nothing.
      learning_rate: Its peak, at `warmup` of the training; it falls to 0 as a cosine.
      warmup: The share of the training in which the learning rate grows from 0.
      batch_size: Images a step.
      epochs: Passes over the training images, by model.
      trades_multiplier: What the divergence of TRADES counts beside the labeled loss.
      filters: Of the two convolutions.
      units: Of the hidden dense layer.
      curve: Epsilons of the curves in the picture.
      curve_steps: The number of steps of their attack.
    """

    epsilon: float = 0.3
    steps: int = 5
    step_size: float = 0.1
    ramp: float = 0.2
    learning_rate: float = 0.002
    warmup: float = 0.3
    batch_size: int = 128
    epochs: Mapping[str, int] = dataclasses.field(
        default_factory=lambda: {"plain": 3, "pgd": 5, "trades": 5}
    )
    trades_multiplier: float = 4.0
    filters: tuple[int, int] = (32, 64)
    units: int = 128
    curve: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
    curve_steps: int = 40


QUICK = Settings(
    epsilon=0.1,
    steps=2,
    step_size=0.075,
    learning_rate=0.01,
    batch_size=64,
    epochs=dict.fromkeys(MODELS, 8),
    filters=(8, 16),
    units=32,
    curve=(0.05, 0.1, 0.2),
    curve_steps=5,
)


@dataclasses.dataclass(frozen=True)
class Images:
    """Images `[n, 28, 28, 1]` of values in [0, 1], and their digits `[n]`."""

    x: np.ndarray
    y: np.ndarray

    def first(self, count: int) -> "Images":
        """Returns the first images."""
        return Images(self.x[:count], self.y[:count])


def load_mnist(path: str | None) -> tuple[Images, Images]:
    """Returns the images to train on and to test with.

    Of the training set, the last 5,000 images are left out, for settings were chosen
    with them.
    """
    if path is None:
        (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
    else:
        with np.load(path) as file:
            x_train, y_train = file["x_train"], file["y_train"]
            x_test, y_test = file["x_test"], file["y_test"]
    train = Images(x_train[:55_000], y_train[:55_000])
    scaled = [
        Images(
            (part.x / 255).astype(np.float32)[..., np.newaxis], part.y.astype(np.int32)
        )
        for part in (train, Images(x_test, y_test))
    ]
    return scaled[0], scaled[1]


def load_digits() -> tuple[Images, Images]:
    """Returns scikit-learn's digits, scaled up to the size of MNIST's."""
    from sklearn import datasets

    x, y = datasets.load_digits(return_X_y=True)
    x = np.kron(x.reshape(-1, 8, 8) / 16, np.ones((1, 3, 3)))
    x = np.pad(x, ((0, 0), (2, 2), (2, 2))).astype(np.float32)[..., np.newaxis]
    y = y.astype(np.int32)
    return Images(x[:1500], y[:1500]), Images(x[1500:], y[1500:])


def make_model(settings: Settings) -> keras.Model:
    """Returns a network of two strided convolutions, which gives logits."""
    convolutions = [
        keras.layers.Conv2D(filters, 4, strides=2, padding="same", activation="relu")
        for filters in settings.filters
    ]
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            *convolutions,
            keras.layers.Flatten(),
            keras.layers.Dense(settings.units, activation="relu"),
            keras.layers.Dense(CLASSES),
        ]
    )


def adversarial_config(
    name: str, settings: Settings, total_steps: int
) -> nsl.configs.AdvRegConfig:
    """Returns what makes PGD training, or TRADES, of adversarial regularization."""
    growing_epsilon = keras.optimizers.schedules.PolynomialDecay(
        0.0, int(settings.ramp * total_steps), settings.epsilon
    )
    attack = {
        "adv_grad_norm": "infinity",
        "adv_step_size": settings.step_size,
        "pgd_iterations": settings.steps,
        "pgd_epsilon": growing_epsilon,
        "random_init": True,
        "clip_value_min": BOUNDS[0],
        "clip_value_max": BOUNDS[1],
    }
    if name == "pgd":
        return nsl.configs.make_adv_reg_config(multiplier=1.0, mode="replace", **attack)
    return nsl.configs.make_adv_reg_config(
        multiplier=settings.trades_multiplier, objective="trades", **attack
    )


class CPUSeconds(keras.callbacks.Callback):
    """Logs the CPU time of each epoch, which other work on the machine leaves alone."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Reads the clock."""
        self._start = time.process_time()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Adds what has passed to the logs."""
        logs["cpu_seconds"] = time.process_time() - self._start


def train(
    name: str, images: Images, settings: Settings, seed: int, folder: Path
) -> keras.Model:
    """Trains a network and saves it, unless it is there; returns it."""
    path = folder / f"{name}.keras"
    if path.exists():
        return keras.models.load_model(path)
    keras.utils.set_random_seed(seed)
    model = trained = make_model(settings)
    epochs = settings.epochs[name]
    total_steps = epochs * -(-len(images.y) // settings.batch_size)
    if name != "plain":
        config = adversarial_config(name, settings, total_steps)
        trained = nsl.keras.AdversarialRegularization(model, adv_config=config)
    warmup_steps = int(settings.warmup * total_steps)
    learning_rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        total_steps - warmup_steps,
        warmup_target=settings.learning_rate,
        warmup_steps=warmup_steps,
    )
    trained.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    trained.fit(
        images.x,
        images.y,
        batch_size=settings.batch_size,
        epochs=epochs,
        callbacks=[
            CPUSeconds(),
            keras.callbacks.CSVLogger(folder / f"{name}.csv", append=True),
            keras.callbacks.BackupAndRestore(folder / f"{name}_backup"),
        ],
        verbose=int(sys.stderr.isatty()),
    )
    model.save(path)
    return model


def training_seconds(name: str, folder: Path) -> float:
    """Returns the CPU time of the training, over all epochs."""
    with open(folder / f"{name}.csv", newline="") as file:
        return sum(float(row["cpu_seconds"]) for row in csv.DictReader(file))


def classify(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return np.argmax(model(x, training=False).numpy(), axis=-1)


def progress(start: float, title: str) -> None:
    if sys.stderr.isatty():
        print(f"[{time.monotonic() - start:5.0f} s] {title}", file=sys.stderr)


def evaluate(
    name: str,
    model: keras.Model,
    test: Images,
    settings: Settings,
    options: argparse.Namespace,
) -> dict[str, nsl.robustness.RobustnessReport]:
    """Attacks a network; what the folder holds already is not repeated.

    Returns:
      The reports 'standard', of the standard suite at one epsilon, and 'curve', of
      Auto-PGD on the cross-entropy at many.
    """
    curve = nsl.attacks.AutoPGD(norm="infinity", steps=settings.curve_steps)
    suites: dict[str, tuple[Any, Sequence[float]]] = {
        "curve": ({"APGD-CE": curve}, settings.curve),
        "standard": ("standard", [settings.epsilon]),
    }
    if options.quick:
        pgd = nsl.attacks.PGD(norm="infinity", steps=10, step_size=0.03)
        suites["standard"] = ({"PGD": pgd}, [settings.epsilon])
    reports = {}
    for suite, (attacks, epsilons) in suites.items():
        reports[suite] = nsl.evaluate_robustness(
            model,
            test.x,
            test.y,
            epsilons=epsilons,
            norm="infinity",
            attacks=attacks,
            bounds=BOUNDS,
            seed=options.seed,
            resume=options.weights_dir / f"{name}_{suite}.json",
        )
    return reports


def picture_rows(
    models: Mapping[str, keras.Model], test: Images, settings: Settings
) -> list[digit_rows.Row]:
    """Attacks the first test image of each digit, so that nobody picks them."""
    first = [np.flatnonzero(test.y == digit)[0] for digit in range(CLASSES)]
    x, y = test.x[first], test.y[first]
    rows = [digit_rows.Row("clean", x[..., 0])]
    attack = nsl.attacks.AutoPGD(norm="infinity", steps=settings.curve_steps)
    for name, model in models.items():
        attacked = attack(model, x, y, epsilon=settings.epsilon, bounds=BOUNDS)
        title = robust_mnist_picture.NAMES[name].replace(" ", "\n")
        answers = classify(model, attacked)
        rows.append(digit_rows.Row(title, attacked[..., 0], answers))
    return rows


def format_table(
    standard: Mapping[str, nsl.robustness.RobustnessReport],
    seconds: Mapping[str, float],
) -> str:
    """Lays out accuracies in percent, a column a network."""
    report = next(iter(standard.values()))
    [epsilon] = report.epsilons
    titles = [robust_mnist_picture.NAMES[name] for name in standard]
    lines = [
        f"{'test accuracy in %':34}" + "".join(f"{title:>16}" for title in titles),
        "-" * (34 + 16 * len(titles)),
    ]

    def row(title: str, values: Sequence[float], form: str = ".1f") -> None:
        lines.append(f"{title:34}" + "".join(f"{v:>16{form}}" for v in values))

    row("clean", [100 * r.clean_accuracy for r in standard.values()])
    for number, attack in enumerate(report.accuracy):
        shares = [100 * r.accuracy[attack][epsilon] for r in standard.values()]
        row(f"{'then' if number else 'after'} {attack}, epsilon {epsilon}", shares)
    row("worst case", [100 * r.worst_case[epsilon] for r in standard.values()])
    lines.append(lines[1])
    row("CPU seconds of training", [seconds[name] for name in standard], ".0f")
    lines.append(f"{report.num_examples} test images")
    for name, found in standard.items():
        lines += [f"{name}: {warning}" for warning in found.warnings]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--weights_dir",
        type=Path,
        default=Path("robust_mnist"),
        help="folder of all that is made (default: %(default)s)",
    )
    add("--data", help="mnist.npz as Keras stores it; downloaded if not given")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--models", default=",".join(MODELS), help="default: %(default)s")
    add("--images", type=int, default=1000, help="test images (default: %(default)s)")
    add("--quick", action="store_true", help="all of it in small, in seconds")
    options = parser.parse_args(arguments)
    names = options.models.split(",")
    if not set(names) <= set(MODELS):
        parser.error(f"--models must be among {','.join(MODELS)}, received {names}")

    settings = QUICK if options.quick else Settings()
    train_images, test = load_digits() if options.quick else load_mnist(options.data)
    test = test.first(options.images)
    options.weights_dir.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    models, seconds, standard, curves = {}, {}, {}, {}
    for name in names:
        progress(start, f"{name}: training")
        models[name] = train(
            name, train_images, settings, options.seed, options.weights_dir
        )
        seconds[name] = training_seconds(name, options.weights_dir)
        progress(start, f"{name}: attacking")
        reports = evaluate(name, models[name], test, settings, options)
        standard[name] = reports["standard"]
        curve = reports["curve"]
        curves[name] = {0.0: curve.clean_accuracy} | curve.worst_case
    picture = options.weights_dir / "robust_mnist.png"
    robust_mnist_picture.draw(
        picture,
        picture_rows(models, test, settings),
        f"The first test image of each digit, each pixel moved by at most"
        f" {settings.epsilon}\n(Auto-PGD, {settings.curve_steps} steps), and what each"
        " network answers",
        curves,
        f"{len(test.y)} test images under Auto-PGD ({settings.curve_steps} steps);"
        f"\ntriangles: the standard suite",
        {name: report.worst_case for name, report in standard.items()},
    )
    table = format_table(standard, seconds)
    (options.weights_dir / "robust_mnist.txt").write_text(f"{table}\n")
    print(f"{table}\n\npicture: {picture}")


if __name__ == "__main__":
    main()
