"""Both kinds of regularization on scikit-learn's handwritten digits.

The same network is trained on 20 of 1,000 labels, without and with a graph over all
images (`nsl.keras.few_labels`); then on all labels, without and with
`nsl.keras.AdversarialRegularization`, and attacked. Nothing is downloaded. --output_dir
adds a picture (digits_picture.py), and a page on how robust the last network is.

    python examples/digits.py --output_dir=demo
"""

import argparse
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import Model, layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import nsl
from nsl.keras import few_labels

EPSILONS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
ATTACKS = {"FGSM": nsl.attacks.FGSM(), "PGD": nsl.attacks.PGD(steps=20)}
PIXELS = {"clip_value_min": 0.0, "clip_value_max": 1.0}
LOSS = "sparse_categorical_crossentropy"
Images = tuple[np.ndarray, np.ndarray]  # `[n, 8, 8]` in [0, 1], and digits `[n]`


def load() -> list[Images]:
    """Returns 1,000 images to train on, 297 to validate and 500 to test."""
    x, y = load_digits(return_X_y=True)
    x, rows = (x / 16).astype("float32").reshape(-1, 8, 8), np.arange(len(y))
    rest, test = train_test_split(rows, test_size=500, stratify=y, random_state=0)
    split = train_test_split(rest, train_size=1000, stratify=y[rest], random_state=0)
    return [(x[part], y[part]) for part in (*split, test)]


def choose_labeled(y: np.ndarray, seed: int) -> np.ndarray:
    """Chooses the images that keep their label, two a class."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(y == digit) for digit in range(10)]
    return np.concatenate([rng.choice(some, 2, replace=False) for some in rows])


def build_graph(x: np.ndarray, num_neighbors: int) -> nsl.data.Graph:
    """Joins each image with those of the largest cosine similarity."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.tsv")
        rows = x.reshape(len(x), -1)
        nsl.tools.build_graph(rows, path, 0.0, num_neighbors=num_neighbors)
        return nsl.data.Graph(path, np.arange(len(x)), undirected=True)


def make_model() -> Model:
    hidden = layers.Dense(128, activation="relu")
    outputs = layers.Dense(10, activation="softmax")
    return keras.Sequential([keras.Input((8, 8)), layers.Flatten(), hidden, outputs])


def train_on_few(images: Images, seed: int, with_graph: bool) -> Model:
    keras.utils.set_random_seed(seed)
    (x, y), model = images, make_model()
    labeled = choose_labeled(y, seed)
    if with_graph:
        # Of 0.05, 0.1 and 0.25, this is the best teleport on the validation images.
        settings = few_labels.Settings(teleport=0.05)
        known, graph = np.isin(np.arange(len(y)), labeled), build_graph(x, 5)
        few_labels.fit(model, graph, x, y, known, settings=settings, seed=seed)
    else:
        model.compile(keras.optimizers.Adam(0.003), LOSS)
        batch = tf.data.Dataset.from_tensors((x[labeled], y[labeled]))
        model.fit(batch.repeat(600), shuffle=False, verbose=0)
    return model


def train_on_all(images: Images, seed: int, adversarial: bool, quick: bool) -> Model:
    keras.utils.set_random_seed(seed)
    model = trained = make_model()
    if adversarial:
        # Of 12 settings, the most robust on the validation images (PGD, mean over
        # epsilons) of those that keep the plain network's accuracy on clean images.
        config = nsl.configs.make_adv_reg_config(
            multiplier=5.0, adv_step_size=0.2, adv_grad_norm="infinity", **PIXELS
        )
        trained = nsl.keras.AdversarialRegularization(model, adv_config=config)
    trained.compile(keras.optimizers.Adam(0.003), LOSS)
    trained.fit(*images, batch_size=100, epochs=10 if quick else 60, verbose=0)
    return model


def accuracy(model: Model, x: np.ndarray, y: np.ndarray) -> float:
    return 100 * float(np.mean(model(x).numpy().argmax(axis=1) == y))


def measure(seed: int, regularized: bool, quick: bool) -> tuple[dict, Model]:
    """Returns accuracies in percent by row, and the network trained on all labels."""
    train, _, test = load()
    few = train_on_few(train, seed, regularized)
    full = train_on_all(train, seed, regularized, quick)
    rows = {"20 labels; with a graph": accuracy(few, *test)}
    rows["1,000 labels; adversarial neighbors"] = accuracy(full, *test)
    for name, attack in ATTACKS.items():
        attacked = attack(full, *test, epsilon=EPSILONS, bounds=(0, 1))
        for epsilon, x in zip(EPSILONS, attacked, strict=True):
            rows[f"  under {name}, epsilon {epsilon}"] = accuracy(full, x, test[1])
    return rows, full


def main(arguments: list[str] | None = None) -> str:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", type=Path, help="for the picture and the page")
    parser.add_argument("--seeds", type=int, default=5, choices=range(1, 21))
    parser.add_argument("--quick", action="store_true", help="one seed, less training")
    options = parser.parse_args(arguments)
    runs = []
    for seed in range(1 if options.quick else options.seeds):
        print(f"seed {seed}", file=sys.stderr)
        runs.append([measure(seed, side, options.quick) for side in (False, True)])

    test = load()[-1]
    table = f"{'test accuracy in %':37}{'plain':>16}{'regularized':>16}\n{'-' * 69}\n"
    for row in runs[0][0][0]:
        if not row.endswith(("0.02", "0.15", "0.3")):  # Those are only in the picture.
            sides = np.array([[found[row] for found, _ in run] for run in runs]).T
            cells = [f"{side.mean():.1f} ± {side.std():.1f}" for side in sides]
            table += f"{row:37}{cells[0]:>16}{cells[1]:>16}\n"
    table += f"{'-' * 69}\nmean ± standard deviation of {len(runs)} seeds\n"
    print(table := f"{table}{len(test[1])} test images")
    if options.output_dir:
        import digits_picture

        options.output_dir.mkdir(parents=True, exist_ok=True)
        picture = options.output_dir / "digits.png"
        digits_picture.draw(picture, test, runs)
        page = picture.with_name("robustness.html")
        suite = "quick" if options.quick else "standard"
        model, (x, y) = runs[0][1][1], test
        limits = {"epsilons": [0.05, 0.1], "bounds": (0, 1), "attacks": suite}
        nsl.evaluate_robustness(model, x[:200], y[:200], **limits).to_html(page)
        print(f"picture: {picture}\npage: {page}")
    return table


if __name__ == "__main__":
    main()
