"""Networks for MNIST that withstand attacks, and the proof.

The same small convolutional network is trained plainly; on attacked images alone (PGD
training: Madry et al., 2018, https://arxiv.org/abs/1706.06083); and with TRADES (Zhang
et al., 2019, https://arxiv.org/abs/1901.08573). A fourth network raises the contrast
of the image first, and is trained for longer: on images attacked by one step, and on
interval bounds (Gowal et al., 2018, https://arxiv.org/abs/1810.12715), which prove of
most images that no attack succeeds. All are trained with
`nsl.keras.AdversarialRegularization` in an ordinary `fit` (robust_mnist_networks.py).
No pixel may move by more than epsilon = 0.3, where white is 0 and black is 1. Then
`nsl.evaluate_robustness` attacks test images with the standard suite (Auto-PGD on the
cross-entropy, targeted Auto-PGD on the difference of logits ratio, FAB, Square), and
counts those of which the bounds prove that nothing else would succeed either; for the
picture, those of the first seed also with Auto-PGD alone over many epsilons.

    python examples/robust_mnist.py --data=mnist.npz
    python examples/robust_mnist.py --quick --output_dir=/tmp/robust_mnist

On one core a seed takes an hour and a quarter: the four trainings 1, 5, 6 and 41
minutes, the attacks on PGD training and TRADES 10 each for 1,000 images, those on the
fourth network, which leave out what is proven, 2. Networks and finished attacks are
kept, and an interrupted program goes on where it was.

Without --data, keras.datasets.mnist.load_data downloads the images (11 MB). --quick
takes scikit-learn's digits instead, scaled up, and a few steps of PGD.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import digit_rows
import keras
import numpy as np
import robust_mnist_networks as networks
import robust_mnist_picture
from mnist_images import Images, load_digits, load_mnist
from progress import Progress
from seeds import Figures, format_table, make_parser, over_seeds

import nsl

CURVE = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
STEPS = 40


def attack(
    model: keras.Model, test: Images, epsilon: float, suite: str, seed: int, kept: Path
) -> nsl.robustness.RobustnessReport:
    return nsl.evaluate_robustness(
        model,
        test.x,
        test.y,
        epsilons=[epsilon],
        attacks=suite,
        bounds=networks.BOUNDS,
        certify=True,
        seed=seed,
        resume=kept,
    )


def percentages(reports: Sequence[nsl.robustness.RobustnessReport]) -> Figures:
    """Returns the accuracies of the networks, by row of the table."""
    [epsilon] = reports[0].epsilons
    rows = {"clean": [report.clean_accuracy for report in reports]}
    for name in reports[0].accuracy:
        title = f"then {name}" if len(rows) > 1 else f"after {name}"
        rows[title] = [report.accuracy[name][epsilon] for report in reports]
    rows["robust accuracy"] = [report.robust_accuracy[epsilon] for report in reports]
    rows["certified"] = [report.certified_accuracy[epsilon] for report in reports]
    return {row: tuple(100 * share for share in rows[row]) for row in rows}


def draw_picture(
    path: Path,
    models: Mapping[str, keras.Model],
    test: Images,
    epsilon: float,
    epsilons: Sequence[float],
    robust_accuracy: Sequence[float],
) -> None:
    """Draws the first test image of each digit, and accuracies over epsilon."""
    auto_pgd = nsl.attacks.AutoPGD(steps=STEPS, early_stop=True)
    first = [np.flatnonzero(test.y == digit)[0] for digit in range(10)]
    x, y = test.x[first], test.y[first]
    rows, curves = [digit_rows.Row("clean", x[..., 0])], {}

    def classify(model: keras.Model, x: np.ndarray) -> np.ndarray:
        return np.argmax(model.predict(x, batch_size=500, verbose=0), axis=-1)

    for name, model in models.items():
        attacked = auto_pgd(model, x, y, epsilon=epsilon, bounds=networks.BOUNDS)
        title = robust_mnist_picture.NAMES[name].replace(" ", "\n")
        answers = classify(model, attacked)
        rows.append(digit_rows.Row(title, attacked[..., 0], answers))
        found = auto_pgd(
            model, test.x, test.y, epsilon=epsilons, bounds=networks.BOUNDS
        )
        curves[name] = {
            radius: float(np.mean(classify(model, moved) == test.y))
            for radius, moved in zip((0.0, *epsilons), (test.x, *found), strict=True)
        }
    robust_mnist_picture.draw(
        path,
        rows,
        f"The first test image of each digit, each pixel moved by at most {epsilon}\n"
        f"(Auto-PGD, {STEPS} steps), and what each network answers",
        curves,
        f"{len(test.y)} test images under Auto-PGD ({STEPS} steps);"
        "\ntriangles: all attacks of the table",
        {
            name: {epsilon: share / 100}
            for name, share in zip(models, robust_accuracy, strict=True)
        },
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(
        __doc__, "robust_mnist", "one seed on small images, in seconds", seeds=1
    )
    add = parser.add_argument
    add("--data", type=Path, help="mnist.npz as Keras stores it")
    add("--images", type=int, default=1000, help="test images (default: %(default)s)")
    options = parser.parse_args(arguments)
    training = networks.QUICK if options.quick else networks.Training()
    epsilon, folder = training.epsilon, options.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    settings, made_with = repr((training, options.images)), folder / "settings.txt"
    if made_with.exists() and made_with.read_text() != settings:
        parser.error(f"{folder} has networks of other settings: take another folder")
    made_with.write_text(settings)
    train_images, test = load_digits() if options.quick else load_mnist(options.data)
    # Settings were chosen with what is left out.
    train_images = Images(train_images.x[:55_000], train_images.y[:55_000])
    test = Images(test.x[: options.images], test.y[: options.images])
    progress = Progress()

    def network(name: str, seed: int) -> keras.Model:
        path = folder / f"{name}-{seed}.keras"
        if not path.exists():
            progress.part(f"seed {seed}, {name}: training")
            start = time.process_time()
            networks.train(name, train_images, training, seed).save(path)
            seconds = time.process_time() - start
            progress.part(f"seed {seed}, {name}: took {seconds:.0f} s of CPU time")
        return keras.models.load_model(path)

    def measure(seed: int) -> Figures:
        suite = "quick" if options.quick else "standard"
        reports = []
        for name in networks.NAMES:
            kept = folder / f"{name}-{seed}.json"
            model = network(name, seed)
            reports.append(attack(model, test, epsilon, suite, seed, kept))
        return percentages(reports)

    kept = folder / "robust_mnist.json"
    figures = over_seeds(measure, options.seeds, kept, settings, progress)
    titles = [robust_mnist_picture.NAMES[name] for name in networks.NAMES]
    table = format_table(
        figures, f"test accuracy in %, epsilon {epsilon}", columns=titles
    )
    (folder / "robust_mnist.txt").write_text(f"{table}\n")
    picture = folder / "robust_mnist.png"
    models = {name: network(name, 0) for name in networks.NAMES}
    curve = (0.1, 0.2) if options.quick else CURVE
    robust_accuracy = figures[0]["robust accuracy"]
    draw_picture(picture, models, test, epsilon, curve, robust_accuracy)
    print(f"{table}\n\npicture: {picture}")


if __name__ == "__main__":
    main()
