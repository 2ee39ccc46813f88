"""Updates the tables and plots of docs/results.md: every example, over several seeds.

Runs the programs in examples/, which takes hours. The results of every seed are kept,
so an interrupted run resumes, and finished seeds are not run again unless the program
has changed. Examples whose data is missing are skipped: their sections of the page do
not change.

    make results DATA=folder
    python benchmarks/results.py --data_dir=folder --output_dir=results
    python benchmarks/results.py --only=digits,tables

The data folder contains cora.npz (see examples/cora.py), mnist.npz (as stored by Keras)
and the files of film reviews (see examples/imdb/reviews.py), or some of these.
"""

import argparse
import dataclasses
import functools
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import keras
import numpy as np
from seeds import Figures, format_table, over_seeds

import nsl

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"
IMAGES = ROOT / "docs" / "images"
PROGRAMS = ROOT / "examples"
sys.path[:0] = [str(PROGRAMS), str(PROGRAMS / "imdb")]
pictures = import_module("pictures")

MNIST_NAMES = ("plain", "PGD training", "TRADES", "interval bounds")


@dataclasses.dataclass(frozen=True)
class Example:
    """A program in examples/ that compares networks.

    Attributes:
      run: Writes the pictures into a folder, given the folder and the data, and returns
        the table. It has the name of the table.
      data: The pattern of its data in the data folder, or '' if it needs none. The
        program receives the file, or the folder if there are several files.
      pictures: The names of its pictures.
      program: The path of the program, if it does not have the name of the table.
    """

    run: Callable[[Path, Path | None], str]
    data: str = ""
    pictures: tuple[str, ...] = ()
    program: str = ""

    @property
    def name(self) -> str:
        """The name of the table."""
        return self.run.__name__

    @property
    def path(self) -> Path:
        """The program."""
        return PROGRAMS / (self.program or f"{self.name}.py")


def _figures(
    measure: Callable[[int], Figures], program: str, folder: Path, seeds: int = 5
) -> list[Figures]:
    code = (PROGRAMS / program).read_bytes()
    path = folder / f"{Path(program).stem}.json"
    return over_seeds(measure, range(seeds), path, hashlib.sha256(code).hexdigest())


def digits(folder: Path, data: Path | None) -> str:
    return import_module("digits").main([f"--output_dir={folder}"])


def tables(folder: Path, data: Path | None) -> str:
    example = import_module("tables")
    figures = _figures(example.compare, "tables.py", folder)
    known, test = example.load_patients()
    guess = float(np.mean(np.abs(test.y - known.y.mean())))
    chosen = (example.PLAIN, example.REGULARIZED)
    models = [example.train(known, 0, **settings) for settings in chosen]
    measured = [example.predict(model, test) for model in models]
    worst = [example.worst_errors(model, test) for model in models]
    attacked = [example.predict(m, part) for m, part in zip(models, worst, strict=True)]
    path = folder / "tables.png"
    pictures.tables(path, figures, test.y, measured, attacked, guess)
    return (
        f"{format_table(figures, 'mean absolute error in points')}\n"
        f"{len(test.y)} patients; always predicting the mean gives {guess:.1f}"
    )


def robust_table(folder: Path, data: Path | None) -> str:
    example = import_module("robust_table")
    figures = _figures(example.compare, "robust_table.py", folder)
    return format_table(figures, "correct diagnoses in %", example.NAMES)


def time_series(folder: Path, data: Path | None) -> str:
    example = import_module("time_series")
    figures = _figures(example.compare, "time_series.py", folder)
    series, kinds = example.make_series(600, seed=0)
    names = [example.KINDS[kind] for kind in kinds]
    graph = example.make_graph(series, neighbors=5)
    pictures.time_series(folder / "time_series.png", figures, series, names, graph)
    return format_table(figures, "test accuracy in %, 6 labels")


def pipeline(folder: Path, data: Path | None) -> str:
    example = import_module("pipeline")

    def measure(seed: int) -> Figures:
        return example.compare(folder / f"seed-{seed}", seed)

    figures = _figures(measure, "pipeline.py", folder)
    samples = example.read_raw_file(folder / "seed-0" / "train.csv")
    graph = nsl.tools.read_tsv_graph(folder / "seed-0" / "graph.tsv")
    pictures.pipeline(folder / "pipeline.png", figures, *samples, graph)
    command = [sys.executable, PROGRAMS / "pipeline_serve.py", folder / "seed-0"]
    served = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    table = format_table(figures, "test accuracy in %, 20 labels")
    return f"{table}\npipeline_serve.py: {served}"


def _first_of_each_digit(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first image of each digit, so that nobody picks them."""
    first = [np.flatnonzero(y == digit)[0] for digit in range(10)]
    return x[first], y[first]


def _classify(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return model.predict(x, batch_size=500, verbose=0).argmax(axis=-1)


def cora(folder: Path, data: Path | None) -> str:
    citations, example = import_module("citations"), import_module("cora")
    graph = example.load(data)

    def by_split(seed: int) -> Figures:
        return citations.compare_splits(graph, seed)

    def by_labels(seed: int) -> Figures:
        return citations.compare_counts(graph, seed)

    figures = _figures(by_split, "cora.py", folder, seeds=10)
    curve = _figures(by_labels, "cora.py", folder / "labels", seeds=3)
    pictures.cora_labels(folder / "cora_labels.png", curve, example.NAMES)
    models = [example.train(graph, 0, citations) for citations in (False, True)]
    words, labels = graph.words[graph.test], graph.labels[graph.test]
    hidden = [
        keras.Model(m.inputs, m.get_layer("embedding").output).predict(words, verbose=0)
        for m in models
    ]
    right = [example.accuracy(model, graph, graph.test) for model in models]
    path = folder / "cora_embeddings.png"
    pictures.cora_embeddings(path, example.NAMES, hidden, labels, right)
    title = "test accuracy in %"
    return f"{format_table(figures, title)}\n\n{format_table(curve, title)}"


def mnist(folder: Path, data: Path | None, epsilon: float = 0.2) -> str:
    example = import_module("mnist")
    images, test = example.load_mnist(data)

    def measure(seed: int) -> Figures:
        models = example.train(images, epsilon, seed)
        return example.evaluate(models, test, epsilon)

    figures = _figures(measure, "mnist.py", folder)
    models, shown = example.train(images, epsilon, 0), _first_of_each_digit(*test)
    moved = [example.fgsm(model, shown, epsilon)[0] for model in models]
    pictures.mnist(
        folder / "mnist.png",
        figures,
        example.NAMES,
        shown[0],
        moved,
        [_classify(*pair) for pair in zip(models, moved, strict=True)],
        "The first test image of each digit, with the predictions of each network\n"
        f"under FGSM on the network itself, epsilon {epsilon}",
    )
    beside = {"clean": "98.2 / 99.1", "FGSM on the plain network": "50.6 / 94.8"}
    title = f"test accuracy in %, epsilon {epsilon}"
    return format_table(figures, title, example.NAMES, ("NSL 1.4", beside))


def robust_rows(reports: Sequence[nsl.robustness.RobustnessReport]) -> Figures:
    """Returns the accuracies of the networks in percent, by row of the table."""
    [epsilon] = reports[0].epsilons
    rows = {"clean": [report.clean_accuracy for report in reports]}
    for name in reports[0].accuracy:
        title = f"then {name}" if len(rows) > 1 else f"after {name}"
        rows[title] = [report.accuracy[name][epsilon] for report in reports]
    rows["robust accuracy"] = [report.robust_accuracy[epsilon] for report in reports]
    rows["certified"] = [report.certified_accuracy[epsilon] for report in reports]
    return {row: [100 * share for share in shares] for row, shares in rows.items()}


def robust_mnist(folder: Path, data: Path | None) -> str:
    example = import_module("robust_mnist")
    settings, count = example.Settings(), 250
    images, (x, y) = example.load(data, quick=False)
    test = x[:count], y[:count]

    def measure(seed: int) -> Figures:
        return robust_rows(
            [
                example.evaluate(name, images, test, settings, seed, folder)
                for name in example.NAMES
            ]
        )

    figures = _figures(measure, "robust_mnist.py", folder)
    paths = [folder / f"{name}-infinity-0.keras" for name in example.NAMES]
    models = [keras.models.load_model(path) for path in paths]
    attack = nsl.attacks.AutoPGD(steps=40, early_stop=True)
    epsilons = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
    clean, moved, curves = _first_of_each_digit(x, y), [], []
    for model in models:
        epsilon = settings.epsilon
        moved.append(attack(model, *clean, epsilon=epsilon, bounds=(0, 1)))
        found = attack(model, *test, epsilon=epsilons, bounds=(0, 1))
        pairs = zip((0.0, *epsilons), (test[0], *found), strict=True)
        curve = {e: 100 * np.mean(_classify(model, x) == test[1]) for e, x in pairs}
        curves.append(curve)
    pictures.robust_mnist(
        folder / "robust_mnist.png",
        figures,
        MNIST_NAMES,
        clean[0],
        moved,
        [_classify(*pair) for pair in zip(models, moved, strict=True)],
        "The first test image of each digit, each pixel moved by at most"
        f" {settings.epsilon}\n(Auto-PGD, 40 steps), and what each network answers",
        curves,
        settings.epsilon,
        f"{count} test images under Auto-PGD (40 steps);\ntriangles: all attacks",
    )
    title = f"test accuracy in %, epsilon {settings.epsilon}"
    return format_table(figures, title, MNIST_NAMES)


def _film_reviews(
    example: Any, folder: Path, data: Path | None
) -> tuple[list[Figures], Any]:
    """Returns the figures of a program in imdb/, and the task that it solves."""
    reviews = import_module("reviews")
    parts = [reviews.load(data, part) for part in ("train", "test")]
    task = example.make_task(*parts, quick=False)
    measure = functools.partial(example.compare, task)
    return _figures(measure, f"imdb/{example.__name__}.py", folder), task


def imdb(folder: Path, data: Path | None) -> str:
    example = import_module("graph")
    figures, task = _film_reviews(example, folder, data)
    pictures.imdb(folder / "imdb.png", figures)
    columns = ("plain", "regularized", "linear baseline")
    table = format_table(figures, "test accuracy in %", columns)
    return f"{table} (all labels: the first 3)\n{example.describe(task)}"


def imdb_taught(folder: Path, data: Path | None) -> str:
    figures, _ = _film_reviews(import_module("distill"), folder, data)
    columns = ("labels alone", "teacher", "distilled")
    return format_table(figures, "test accuracy in %", columns)


EXAMPLES = (
    Example(digits, pictures=("digits.png",)),
    Example(tables, pictures=("tables.png",)),
    Example(robust_table),
    Example(time_series, pictures=("time_series.png",)),
    Example(pipeline, pictures=("pipeline.png",)),
    Example(cora, "cora.npz", ("cora_labels.png", "cora_embeddings.png")),
    Example(mnist, "mnist.npz", ("mnist.png",)),
    Example(robust_mnist, "mnist.npz", ("robust_mnist.png",)),
    Example(imdb, "imdb_*.jsonl.gz", ("imdb.png",), "imdb/graph.py"),
    Example(imdb_taught, "imdb_*.jsonl.gz", program="imdb/distill.py"),
)


def find_data(example: Example, data_dir: Path | None) -> Path | None:
    """Returns the data file or folder of an example, or None if it is missing."""
    found = sorted(data_dir.glob(example.data)) if data_dir else []
    return found[0] if len(found) == 1 else data_dir if found else None


def replace_table(page: str, name: str, table: str) -> str:
    """Replaces the table in the block after the comment with its name.

    Raises:
      ValueError: If the page does not have exactly one such block.
    """
    block = rf"(<!-- table of {name} -->\n\n```text\n)(?:(?!```).*\n)*(```\n)"
    replaced, count = re.subn(
        block, lambda found: f"{found[1]}{table.rstrip()}\n{found[2]}", page
    )
    if count != 1:
        raise ValueError(
            f"The page needs one line <!-- table of {name} -->, followed by an empty "
            f"line and a block of text; it has {count}."
        )
    return replaced


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    names = [example.name for example in EXAMPLES]
    add("--data_dir", type=Path, help="the data folder")
    add("--output_dir", type=Path, default=Path("results"), help="default: %(default)s")
    add("--only", default=",".join(names), help="default: %(default)s")
    options = parser.parse_args(arguments)
    chosen = options.only.split(",")
    if not set(chosen) <= set(names):
        parser.error(f"--only must be among {','.join(names)}, received {chosen}")
    for example in EXAMPLES:
        if example.name not in chosen:
            continue
        data = find_data(example, options.data_dir)
        if example.data and data is None:
            print(f"{example.name}: skipped, --data_dir has no {example.data}")
            continue
        print(example.name, flush=True)
        folder = options.output_dir / example.name
        folder.mkdir(parents=True, exist_ok=True)
        table = example.run(folder, data)
        (folder / f"{example.name}.txt").write_text(f"{table}\n")
        PAGE.write_text(replace_table(PAGE.read_text(), example.name, table))
        for picture in example.pictures:
            shutil.copyfile(folder / picture, IMAGES / picture)
    print(f"tables and plots: {PAGE}")


if __name__ == "__main__":
    main()
