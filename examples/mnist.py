"""MNIST with adversarial regularization, as in the first tutorial of NSL.

The same convolutional network is trained for 5 epochs on 60,000 images, with and
without `nsl.keras.AdversarialRegularization`. The adversarial loss, with factor 0.2, is
computed at the adversarial neighbor of each image: one gradient sign step of 0.2 per
pixel (FGSM, Goodfellow et al., 2015). All settings are those of the tutorial. Both
networks are evaluated on the 10,000 clean images, and under FGSM of the same size:
first on images that fool the plain network (a transfer attack), as in the tutorial,
then on images that fool the evaluated network itself, as in training. The last row,
PGD, is a stronger attack of the same size that is not used in training.

The third network is what you would train today, for the same number of epochs: on
adversarial examples of three steps instead of one, with `nsl.keras.presets.pgd`. See
robust_mnist.py for more.

    python examples/mnist.py --data=mnist.npz
    python examples/mnist.py --quick --output_dir=/tmp/mnist

Without --data, keras.datasets.mnist.load_data downloads the images (11 MB). An
interrupted program resumes with the next seed. The networks of the first seed are saved
in the output folder. --quick uses enlarged digits of scikit-learn instead.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import digit_rows
import keras
import mnist_picture
import numpy as np
from mnist_images import Images, load_digits, load_mnist
from progress import Progress
from seeds import Figures, format_table, make_parser, over_seeds

import nsl

NAMES = ("plain", "regularized", "PGD training")
NSL14 = {"clean": "98.2 / 99.1", "FGSM on the plain network": "50.6 / 94.8"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of the tutorial, and the steps of PGD in training and evaluation."""

    epsilon: float = 0.2
    multiplier: float = 0.2
    epochs: int = 5
    batch_size: int = 32
    filters: tuple[int, ...] = (32, 64, 64)
    units: int = 64
    train_steps: int = 3
    pgd_steps: int = 10


QUICK = Settings(epsilon=0.1, epochs=6, filters=(8, 16), units=32)


def make_model(shape: tuple[int, ...], settings: Settings) -> keras.Model:
    model = keras.Sequential([keras.Input(shape)])
    for number, filters in enumerate(settings.filters):
        if number:
            model.add(keras.layers.MaxPooling2D())
        model.add(keras.layers.Conv2D(filters, 3, activation="relu"))
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(settings.units, activation="relu"))
    model.add(keras.layers.Dense(10, activation="softmax"))
    return model


def adversarial(
    model: keras.Model, settings: Settings
) -> nsl.keras.AdversarialRegularization:
    config = nsl.configs.make_adv_reg_config(
        multiplier=settings.multiplier,
        adv_step_size=settings.epsilon,
        adv_grad_norm="infinity",
    )
    return nsl.keras.AdversarialRegularization(model, adv_config=config)


def compile_model(model: keras.Model) -> None:
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])


def train(images: Images, settings: Settings, seed: int) -> dict[str, keras.Model]:
    """Returns the trained networks by name, without wrappers."""
    models = {}
    for name in NAMES:
        keras.utils.set_random_seed(seed)
        model = trained = make_model(images.x.shape[1:], settings)
        if name == "regularized":
            trained = adversarial(model, settings)
        elif name == "PGD training":
            recipe = nsl.keras.presets.pgd(settings.epsilon, steps=settings.train_steps)
            trained = nsl.keras.AdversarialRegularization(model, adv_config=recipe)
        compile_model(trained)
        trained.fit(
            images.x,
            images.y,
            batch_size=settings.batch_size,
            epochs=settings.epochs,
            verbose=0,
        )
        models[name] = model
    return models


def fgsm(model: keras.Model, images: Images, settings: Settings) -> Images:
    """Moves each pixel by epsilon to increase the loss of `model`."""
    attacker = adversarial(model, settings)
    compile_model(attacker)
    parts = [
        attacker.perturb_on_batch(
            images.x[first : first + 500], images.y[first : first + 500]
        )
        for first in range(0, len(images.y), 500)
    ]
    return Images(np.clip(np.concatenate(parts), 0.0, 1.0), images.y)


def pgd(model: keras.Model, images: Images, settings: Settings) -> Images:
    attack = nsl.attacks.PGD(norm="infinity", steps=settings.pgd_steps)
    attacked = attack(
        model, images.x, images.y, epsilon=settings.epsilon, bounds=(0, 1)
    )
    return Images(attacked, images.y)


def classify(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return np.argmax(model.predict(x, batch_size=500, verbose=0), axis=-1)


def evaluate(
    models: Mapping[str, keras.Model], test: Images, settings: Settings
) -> Figures:
    """Returns the accuracies in percent, by row of the table."""
    made_on_plain = fgsm(models["plain"], test, settings)

    def accuracy(name: str, images: Images) -> float:
        return 100 * float(np.mean(classify(models[name], images.x) == images.y))

    rows = {
        "clean": dict.fromkeys(models, test),
        "FGSM on the plain network": dict.fromkeys(models, made_on_plain),
        "FGSM on the network itself": {
            name: made_on_plain if name == "plain" else fgsm(model, test, settings)
            for name, model in models.items()
        },
        f"PGD, {settings.pgd_steps} steps, on the network itself": {
            name: pgd(model, test, settings) for name, model in models.items()
        },
    }
    return {
        row: tuple(accuracy(name, images[name]) for name in NAMES)
        for row, images in rows.items()
    }


def picture_rows(
    models: Mapping[str, keras.Model], test: Images, settings: Settings
) -> list[digit_rows.Row]:
    """Attacks the first test image of each digit, to avoid cherry-picking."""
    first = [np.flatnonzero(test.y == digit)[0] for digit in range(10)]
    images = Images(test.x[first], test.y[first])
    rows = [digit_rows.Row("clean", images.x[..., 0])]
    for name, model in models.items():
        attacked = fgsm(model, images, settings)
        answers = classify(model, attacked.x)
        rows.append(digit_rows.Row(name, attacked.x[..., 0], answers))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "mnist", "one seed on small images, in seconds")
    parser.add_argument(
        "--data", type=Path, help="the file mnist.npz, as stored by Keras"
    )
    options = parser.parse_args(arguments)
    settings = QUICK if options.quick else Settings()
    train_images, test = load_digits() if options.quick else load_mnist(options.data)
    folder = options.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    saved = {name: folder / f"{name}.keras" for name in NAMES}

    def measure(seed: int) -> Figures:
        models = train(train_images, settings, seed)
        if seed == 0:
            for name, model in models.items():
                model.save(saved[name])
        return evaluate(models, test, settings)

    figures = over_seeds(
        measure, options.seeds, folder / "mnist.json", settings, Progress()
    )
    table = format_table(
        figures,
        f"test accuracy in %, epsilon {settings.epsilon}",
        None if options.quick else ("NSL 1.4", NSL14),
        columns=NAMES,
    )
    (folder / "mnist.txt").write_text(f"{table}\n")
    models = {name: keras.models.load_model(path) for name, path in saved.items()}
    mnist_picture.draw(
        folder / "mnist.png",
        picture_rows(models, test, settings),
        "The first test image of each digit, with the predictions of each network\n"
        f"under FGSM on the network itself, epsilon {settings.epsilon}",
        figures,
        NAMES,
    )
    print(f"{table}\n\nplot: {folder / 'mnist.png'}")


if __name__ == "__main__":
    main()
