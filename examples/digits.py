"""Both kinds of regularization on scikit-learn's handwritten digits.

(a) Few labels: 20 of 1,000 training images keep their label, two a class. A graph that
    joins similar images is built with tools/build_graph.py, and the same small network
    is trained on the 20 labels alone, and on labels and graph with
    `nsl.keras.few_labels` (digits_graph.py).
(b) Attacks: the same network is trained on all 1,000 labels without and with
    `nsl.keras.AdversarialRegularization`, and attacked with FGSM and PGD
    (digits_adversarial.py).

The program prints one table and draws one picture, and writes a page on how robust the
regularized network of (b) is (`nsl.evaluate_robustness`). Nothing is downloaded.
Settings of (b) were chosen with digits_search.py.

    python examples/digits.py --output_dir=demo
"""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import digit_rows
import digits_picture
import keras
import numpy as np
from digits_adversarial import (
    ATTACKS,
    PGD_ITERATIONS,
    AdversarialSettings,
    accuracy_under_attack,
    attack,
    train_on_all,
)
from digits_data import CLASSES, Images, Split, accuracy, classify, load_split
from digits_graph import GraphSettings, train_on_labels, train_with_graph
from progress import Progress
from seeds import Figures, format_table, make_parser, over_seeds

import nsl
from nsl.keras import few_labels

EPSILONS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
TABLE_EPSILONS = (0.05, 0.1, 0.2)
PICTURED_EPSILON = 0.1
REPORTED_EPSILONS = (0.05, 0.1)
REPORTED_IMAGES = 200
FEW_LABELS = "20 labels; with a graph"
ALL_LABELS = "1,000 labels; adversarial neighbors"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Those of both parts, and the sizes of perturbations."""

    graph: GraphSettings = dataclasses.field(default_factory=GraphSettings)
    adversarial: AdversarialSettings = dataclasses.field(
        default_factory=AdversarialSettings
    )
    epsilons: tuple[float, ...] = EPSILONS


QUICK = Settings(
    GraphSettings(
        steps=150, with_graph=few_labels.Settings(teacher_steps=60, steps=100)
    ),
    AdversarialSettings(epochs=10),
    epsilons=(0.0, *TABLE_EPSILONS),
)


def attacked_row(attack_name: str, epsilon: float) -> str:
    return f"  under {attack_name}, epsilon {epsilon}" if epsilon else ALL_LABELS


def measure(
    split: Split, settings: Settings, seed: int, folder: Path, progress: Progress
) -> Figures:
    """Trains and tests all networks; saves those of seed 0 with all labels.

    Returns:
      Test accuracies in percent, by row of the table.
    """
    progress.step("20 labels alone")
    few = [train_on_labels(split.train, settings.graph, seed)]
    progress.step("20 labels and the graph")
    with tempfile.TemporaryDirectory() as files:
        few.append(train_with_graph(split.train, settings.graph, seed, Path(files)))
    plain, regularized = (100 * accuracy(model, split.test) for model in few)
    figures: Figures = {FEW_LABELS: (plain, regularized)}

    curves: dict[str, list[list[float]]] = {name: [] for name in ATTACKS}
    for name in ("plain", "regularized"):
        progress.step(f"training the {name} network on 1,000 labels")
        model = train_on_all(
            split.train, settings.adversarial, seed, name == "regularized"
        )
        if seed == 0:
            model.save(folder / f"{name}.keras")
        for attack_name, iterations in ATTACKS.items():
            progress.step(f"attacking the {name} network with {attack_name}")
            curves[attack_name].append(
                accuracy_under_attack(model, split.test, iterations, settings.epsilons)
            )
    for attack_name, (plain_curve, curve) in curves.items():
        for epsilon, *shares in zip(settings.epsilons, plain_curve, curve, strict=True):
            plain, regularized = (100 * share for share in shares)
            figures[attacked_row(attack_name, epsilon)] = plain, regularized
    return figures


def lay_out(figures: Sequence[Figures], test: Images) -> str:
    """Returns the table, without the epsilons that only the picture shows."""
    rows = [FEW_LABELS, ALL_LABELS]
    rows += [attacked_row(name, e) for name in ATTACKS for e in TABLE_EPSILONS]
    shown = [{row: found[row] for row in rows} for found in figures]
    table = format_table(shown, "test accuracy in %")
    return f"{table}\n{len(test.y)} test images"


def picture_rows(
    models: Mapping[str, keras.Model], test: Images
) -> list[digit_rows.Row]:
    """Attacks the first test image of each digit, so that nobody picks them."""
    first = [np.flatnonzero(test.y == digit)[0] for digit in range(CLASSES)]
    images = Images(test.x[first], test.y[first])
    rows = [digit_rows.Row("clean", images.x.reshape(-1, 8, 8))]
    for name, model in models.items():
        attacked = attack(model, images, PICTURED_EPSILON, PGD_ITERATIONS).x
        title = digits_picture.NAMES[name].replace(" ", "\n")
        answers = classify(model, attacked)
        rows.append(digit_rows.Row(title, attacked.reshape(-1, 8, 8), answers))
    return rows


def draw(
    folder: Path, figures: Sequence[Figures], settings: Settings, test: Images
) -> None:
    names = ("plain", "regularized")
    models = {name: keras.models.load_model(folder / f"{name}.keras") for name in names}

    def accuracies(row: str, side: int) -> list[float]:
        return [found[row][side] for found in figures]

    digits_picture.draw(
        folder / "digits.png",
        picture_rows(models, test),
        "The first test image of each digit, each pixel moved by at most"
        f" {PICTURED_EPSILON} (PGD, {PGD_ITERATIONS} steps), and what each network"
        " answers",
        settings.epsilons,
        {
            (name, attack_name): np.transpose(
                [
                    accuracies(attacked_row(attack_name, e), side)
                    for e in settings.epsilons
                ]
            )
            for attack_name in ATTACKS
            for side, name in enumerate(names)
        },
        {
            name: np.array(accuracies(FEW_LABELS, side))
            for side, name in enumerate(names)
        },
    )


def write_report(folder: Path, test: Images, attacks: str) -> Path:
    """Evaluates the network with adversarial neighbors, on images of 8 x 8."""
    flat = keras.models.load_model(folder / "regularized.keras")
    model = keras.Sequential([keras.Input((8, 8)), keras.layers.Flatten(), flat])
    images, labels = test.x[:REPORTED_IMAGES], test.y[:REPORTED_IMAGES]
    report = nsl.evaluate_robustness(
        model,
        images.reshape(-1, 8, 8),
        labels,
        REPORTED_EPSILONS,
        attacks=attacks,
        bounds=(0.0, 1.0),
    )
    report.to_html(folder / "robustness.html")
    return folder / "robustness.html"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "demo", "one seed, shorter training")
    options = parser.parse_args(arguments)
    folder, settings = options.output_dir, QUICK if options.quick else Settings()
    folder.mkdir(parents=True, exist_ok=True)
    split, progress = load_split(), Progress()
    figures = over_seeds(
        lambda seed: measure(split, settings, seed, folder, progress),
        options.seeds,
        folder / "digits.json",
        settings,
        progress,
    )
    table = lay_out(figures, split.test)
    (folder / "digits.txt").write_text(f"{table}\n")
    draw(folder, figures, settings, split.test)
    page = write_report(folder, split.test, "quick" if options.quick else "standard")
    print(f"\n{table}\n\npicture: {folder / 'digits.png'}\npage: {page}")


if __name__ == "__main__":
    main()
