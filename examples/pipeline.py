"""From raw files to a served model, with all intermediate files.

    raw CSV -> TFRecord -> build_graph -> pack_nbrs -> tf.data -> fit -> export -> serve

The raw file has the measurements of 400 cell samples (Wolberg et al., 1993; included in
scikit-learn). Ten samples of each class, malignant and benign, have a label. The
command-line tools of nsl connect similar samples and write each sample with its
neighbors. A Keras model that standardizes the raw measurements is trained on the 20
labels alone, and with `nsl.keras.GraphRegularization` on all records. It is evaluated
on 169 other samples, then exported as a SavedModel and as a .keras file. A new process
without nsl, pipeline_serve.py, predicts the raw test file with both. The predictions
must be those of the trained model.

    python examples/pipeline.py

All files of the first seed remain in the output folder. The number of neighbors, the
multiplier and the training settings are those of other examples; none was tuned on this
data.
"""

import csv
import dataclasses
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import pipeline_picture
import records
from progress import Progress
from seeds import Figures, format_table, make_parser, over_seeds
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

import nsl

SERVE = Path(__file__).with_name("pipeline_serve.py")
ANSWERS = "answers.csv"


@dataclasses.dataclass(frozen=True)
class Settings:
    """The number of labels per class, and the training settings."""

    labels_per_kind: int = 10
    neighbors: int = 5
    multiplier: float = 1.0
    steps: int = 300
    batch_size: int = 200
    learning_rate: float = 0.003


QUICK = Settings(steps=60)


def write_raw_files(folder: Path, settings: Settings, seed: int) -> None:
    """Writes the raw files: train.csv, test.csv and test_labels.csv."""
    x, y = load_breast_cancer(return_X_y=True)
    train, test = train_test_split(
        np.arange(len(y)), test_size=169, stratify=y, random_state=0
    )
    rng = np.random.default_rng(seed)
    labeled = {
        row
        for kind in (0, 1)
        for row in rng.choice(
            train[y[train] == kind], settings.labels_per_kind, replace=False
        )
    }
    with open(folder / "train.csv", "w", newline="") as file:
        writer = csv.writer(file)
        for row in train:
            label = y[row] if row in labeled else ""
            writer.writerow([f"sample{row}", label, *x[row]])
    np.savetxt(folder / "test.csv", x[test], "%s", delimiter=",")
    np.savetxt(folder / "test_labels.csv", y[test], "%d")


@dataclasses.dataclass(frozen=True)
class Samples:
    """The contents of train.csv: ids, labels (-1: none) and raw measurements."""

    ids: list[bytes]
    labels: np.ndarray
    raw: np.ndarray


def read_raw_file(path: Path) -> Samples:
    with open(path, newline="") as file:
        ids, labels, *columns = zip(*csv.reader(file), strict=True)
    return Samples(
        [name.encode() for name in ids],
        np.array([int(label or -1) for label in labels]),
        np.array(columns, np.float32).T,
    )


def pack(folder: Path, samples: Samples, settings: Settings) -> None:
    """Writes graph.tsv and packed.tfr with the command-line tools."""
    # Samples are similar if their standardized measurements are.
    embeddings = (samples.raw - samples.raw.mean(axis=0)) / samples.raw.std(axis=0)

    def examples(labeled: bool) -> Iterator[dict[str, records.Value]]:
        for row in np.flatnonzero((samples.labels >= 0) == labeled):
            example = {
                "id": samples.ids[row],
                "raw": samples.raw[row],
                "embedding": embeddings[row],
            }
            yield example | ({"label": int(samples.labels[row])} if labeled else {})

    files = [folder / "labeled.tfr", folder / "unlabeled.tfr"]
    for path, labeled in zip(files, (True, False), strict=True):
        records.write_examples(path, examples(labeled))
    records.run_tool(
        "build_graph.py",
        f"--num_neighbors={settings.neighbors}",
        "--similarity_threshold=0",
        ",".join(map(str, files)),
        folder / "graph.tsv",
    )
    records.run_tool(
        "pack_nbrs.py",
        "--seeds=all",
        "--neighbor_features=raw",
        f"--max_nbrs={settings.neighbors}",
        *files,
        folder / "graph.tsv",
        folder / "packed.tfr",
    )


def make_model(samples: Samples) -> keras.Model:
    """Returns a model of raw measurements."""
    scale = {"mean": samples.raw.mean(axis=0), "variance": samples.raw.var(axis=0)}
    return keras.Sequential(
        [
            keras.Input((samples.raw.shape[1],), name="raw"),
            keras.layers.Normalization(**scale),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )


def compile_model(model: keras.Model, settings: Settings) -> None:
    optimizer = keras.optimizers.Adam(settings.learning_rate)
    model.compile(optimizer, "sparse_categorical_crossentropy")


def train_on_labels(samples: Samples, settings: Settings) -> keras.Model:
    model = make_model(samples)
    compile_model(model, settings)
    known = samples.labels >= 0
    x, y = samples.raw[known], samples.labels[known]
    model.fit(x, y, batch_size=len(y), epochs=settings.steps, verbose=0)
    return model


def train_on_packed(
    folder: Path, samples: Samples, settings: Settings, seed: int
) -> keras.Model:
    config = nsl.configs.make_graph_reg_config(
        max_neighbors=settings.neighbors,
        multiplier=settings.multiplier,
        objective="propagation",
    )
    data = records.read_packed(
        folder / "packed.tfr",
        "raw",
        samples.raw.shape[1],
        settings.neighbors,
        settings.batch_size,
        seed,
    )
    model = make_model(samples)
    wrapper = nsl.keras.GraphRegularization(model, config)
    compile_model(wrapper, settings)
    wrapper.fit(data, steps_per_epoch=settings.steps, shuffle=False, verbose=0)
    return model


def run(folder: Path, settings: Settings, seed: int) -> Figures:
    """Runs all steps except serving, and returns test accuracies in percent."""
    folder.mkdir(parents=True, exist_ok=True)
    write_raw_files(folder, settings, seed)
    samples = read_raw_file(folder / "train.csv")
    pack(folder, samples, settings)
    keras.utils.set_random_seed(seed)
    plain = train_on_labels(samples, settings)
    keras.utils.set_random_seed(seed)
    regularized = train_on_packed(folder, samples, settings, seed)
    regularized.save(folder / "model.keras")
    regularized.export(folder / "saved_model", verbose=False)

    raw = np.loadtxt(folder / "test.csv", np.float32, delimiter=",")
    labels = np.loadtxt(folder / "test_labels.csv", int)
    found = [model.predict(raw, verbose=0) for model in (plain, regularized)]
    np.save(folder / "predictions.npy", found[1])
    right = [answers.argmax(axis=1) == labels for answers in found]
    rows = {"all": labels >= 0, "malignant": labels == 0, "benign": labels == 1}
    return {
        row: (
            100 * float(right[0][chosen].mean()),
            100 * float(right[1][chosen].mean()),
        )
        for row, chosen in rows.items()
    }


def serve(folder: Path) -> str:
    """Predicts the raw test file in a new process, and returns its output."""
    command = [sys.executable, SERVE, folder, folder / "test.csv", folder / ANSWERS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{SERVE.name} failed:\n{done.stderr}")
    return done.stdout.strip()


def largest_difference(folder: Path) -> float:
    """Compares the served predictions with those of the trained model.

    Raises:
      RuntimeError: If they differ.
    """
    served = np.loadtxt(folder / ANSWERS, delimiter=",")
    largest = float(np.abs(served - np.load(folder / "predictions.npy")).max())
    if largest > 1e-5:
        raise RuntimeError(f"served and trained model differ by {largest}")
    return largest


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "pipeline", "one seed, shorter training")
    options = parser.parse_args(arguments)
    folder, settings = options.output_dir, QUICK if options.quick else Settings()
    progress = Progress()
    figures = over_seeds(
        lambda seed: run(folder / f"seed-{seed}", settings, seed),
        options.seeds,
        folder / "pipeline.json",
        settings,
        progress,
    )
    progress.part("serving")
    first = folder / "seed-0"
    title = f"test accuracy in %, {2 * settings.labels_per_kind} labels"
    table = (
        f"{format_table(figures, title)}\n{SERVE.name}: {serve(first)};"
        f" largest difference {largest_difference(first):.0e}"
    )
    (folder / "pipeline.txt").write_text(f"{table}\n")
    samples = read_raw_file(first / "train.csv")
    pipeline_picture.draw(
        folder / "pipeline.png",
        samples.raw,
        samples.labels,
        samples.ids,
        nsl.tools.read_tsv_graph(str(first / "graph.tsv")),
        figures,
    )
    print(f"{table}\n\nplot: {folder / 'pipeline.png'}")


if __name__ == "__main__":
    main()
