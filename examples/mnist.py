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
    python examples/mnist.py --quick

Without --data, Keras downloads the images (11 MB). --quick uses scikit-learn's digits.
"""

import argparse
from pathlib import Path

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

import nsl

NAMES = ("plain", "regularized", "PGD training")
SOURCE = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
Images = tuple[np.ndarray, np.ndarray]  # `[n, height, width, 1]` in [0, 1], and `[n]`


def load_mnist(path: Path | None) -> list[Images]:
    """Returns the images to train and to test with; None downloads them.

    Raises:
      FileNotFoundError: If there is no such file; the message says where to get it.
    """
    if path is None:
        parts = keras.datasets.mnist.load_data()
    elif path.exists():
        file = np.load(path)
        parts = [(file[f"x_{part}"], file[f"y_{part}"]) for part in ("train", "test")]
    else:
        raise FileNotFoundError(
            f"No {path}. Download the images from {SOURCE} (11 MB)."
        )
    return [((x / 255).astype("float32")[..., None], y) for x, y in parts]


def load_small() -> list[Images]:
    """Returns scikit-learn's digits, enlarged from 8 x 8 to 16 x 16 pixels."""
    x, y = load_digits(return_X_y=True)
    x = np.kron(x.reshape(-1, 8, 8) / 16, np.ones((1, 2, 2))).astype("float32")
    return [(x[:1500, ..., None], y[:1500]), (x[1500:, ..., None], y[1500:])]


def make_model(shape: tuple[int, ...]) -> keras.Model:
    model = keras.Sequential([keras.Input(shape)])
    for number, filters in enumerate((32, 64, 64) if shape[0] > 16 else (8, 16)):
        if number:
            model.add(layers.MaxPooling2D())
        model.add(layers.Conv2D(filters, 3, activation="relu"))
    model.add(layers.Flatten())
    model.add(layers.Dense(64, activation="relu"))
    model.add(layers.Dense(10, activation="softmax"))
    return model


def train(images: Images, epsilon: float, seed: int) -> list[keras.Model]:
    """Returns the trained networks, without wrappers."""
    fgsm = nsl.configs.make_adv_reg_config(
        multiplier=0.2, adv_step_size=epsilon, adv_grad_norm="infinity"
    )
    models = []
    for config in (None, fgsm, nsl.keras.presets.pgd(epsilon, steps=3)):
        keras.utils.set_random_seed(seed)
        model = trained = make_model(images[0].shape[1:])
        if config is not None:
            trained = nsl.keras.AdversarialRegularization(model, adv_config=config)
        trained.compile("adam", "sparse_categorical_crossentropy")
        trained.fit(*images, epochs=5 if epsilon > 0.1 else 6, verbose=0)
        models.append(model)
    return models


def fgsm(model: keras.Model, images: Images, epsilon: float) -> Images:
    attack = nsl.attacks.FGSM()
    return attack(model, *images, epsilon=epsilon, bounds=(0, 1)), images[1]


def pgd(model: keras.Model, images: Images, epsilon: float) -> Images:
    attack = nsl.attacks.PGD(steps=10)
    return attack(model, *images, epsilon=epsilon, bounds=(0, 1)), images[1]


def accuracy(model: keras.Model, images: Images) -> float:
    predictions = model.predict(images[0], batch_size=500, verbose=0)
    return 100 * float(np.mean(predictions.argmax(axis=1) == images[1]))


def evaluate(
    models: list[keras.Model], test: Images, epsilon: float
) -> dict[str, list[float]]:
    """Returns the accuracies in percent, by row of the table."""
    transferred = fgsm(models[0], test, epsilon)
    return {
        "clean": [accuracy(model, test) for model in models],
        "FGSM on the plain network": [accuracy(m, transferred) for m in models],
        "FGSM on the network itself": [
            accuracy(model, fgsm(model, test, epsilon)) for model in models
        ],
        "PGD, 10 steps, on the network itself": [
            accuracy(model, pgd(model, test, epsilon)) for model in models
        ],
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="mnist.npz as Keras stores it")
    parser.add_argument("--seeds", type=int, default=5, choices=range(1, 21))
    parser.add_argument("--quick", action="store_true", help="one seed, small images")
    options = parser.parse_args(arguments)
    images, test = load_small() if options.quick else load_mnist(options.data)
    seeds, epsilon = (1, 0.1) if options.quick else (options.seeds, 0.2)
    runs = []
    for seed in range(seeds):
        runs.append(evaluate(train(images, epsilon, seed), test, epsilon))
    print(f"{'test accuracy in %':37}", *(f"{name:>14}" for name in NAMES))
    for row in runs[0]:
        columns = zip(*(run[row] for run in runs), strict=True)
        print(f"{row:37}", *(f"{np.mean(c):8.1f} ± {np.std(c):3.1f}" for c in columns))


if __name__ == "__main__":
    main()
