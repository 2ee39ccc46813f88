"""Time series with few labels, and a graph of similar series.

Cylinder, bell and funnel (Saito, 1994) are three classes of events in noise. The series
are synthetic, as defined by the time series archive of the University of California,
Riverside: an event of random start, length and height that is flat, rises or falls. Of
600 series, two of each class have a label. A graph connects each series to the five
most similar ones over all shifts (the shape-based distance of Paparrizos & Gravano,
2015), without using labels. The same one-dimensional convolutional network is trained
on the 6 labels alone, and with `nsl.keras.GraphRegularization` on all series. It is
evaluated on 1,000 other series, which need no graph.

    python examples/time_series.py
"""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
import time_series_picture
from progress import Progress
from seeds import Figures, format_table, make_parser, over_seeds

import nsl

KINDS = ("cylinder", "bell", "funnel")
LENGTH = 128


@dataclasses.dataclass(frozen=True)
class Settings:
    """The hyperparameters; multiplier and epochs were chosen on other series."""

    series: int = 600
    labels_per_kind: int = 2
    neighbors: int = 5
    multiplier: float = 1.0
    epochs: int = 60
    steps_on_labels: int = 300
    batch_size: int = 200
    test_series: int = 1000


# After 20 epochs, which network is better would depend on the seed.
QUICK = Settings(series=300, epochs=60, steps_on_labels=60, batch_size=50)


def make_series(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns standardized series `[count, LENGTH]`, and their classes."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(count) % len(KINDS)
    begin = rng.integers(16, 33, (count, 1))
    end = begin + rng.integers(32, 97, (count, 1))
    time = np.arange(1, LENGTH + 1)
    rising = (time - begin) / (end - begin)
    shapes = np.stack([np.ones_like(rising), rising, 1 - rising])[kinds, range(count)]
    height = 6 + rng.normal(size=(count, 1))
    events = np.where((time >= begin) & (time <= end), height * shapes, 0.0)
    series = events + rng.normal(size=(count, LENGTH))
    series -= series.mean(axis=1, keepdims=True)
    series /= series.std(axis=1, keepdims=True)
    return series.astype(np.float32), kinds


def similarities(series: np.ndarray) -> np.ndarray:
    """Returns the largest correlation over all shifts for each pair of series."""
    spectra = np.fft.rfft(series, 2 * LENGTH)
    return np.stack(
        [
            np.fft.irfft(spectra * spectrum.conj(), 2 * LENGTH).max(axis=1) / LENGTH
            for spectrum in spectra
        ]
    )


def make_graph(series: np.ndarray, neighbors: int) -> nsl.data.Graph:
    """Connects each series to the most similar ones."""
    similarity = similarities(series)
    np.fill_diagonal(similarity, -np.inf)
    nearest = np.argsort(-similarity, axis=1)[:, :neighbors]
    rows = np.arange(len(series))
    return nsl.data.Graph(
        (np.repeat(rows, neighbors), nearest.ravel()), ids=rows, undirected=True
    )


def make_model() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((LENGTH,)),
            keras.layers.Reshape((LENGTH, 1)),
            keras.layers.Conv1D(16, 9, strides=2, activation="relu"),
            keras.layers.Conv1D(32, 9, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(len(KINDS), activation="softmax"),
        ]
    )


def compile_model(model: keras.Model) -> None:
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy")


def train_on_labels(
    series: np.ndarray, kinds: np.ndarray, settings: Settings
) -> keras.Model:
    model = make_model()
    compile_model(model)
    model.fit(
        series,
        kinds,
        batch_size=len(kinds),
        epochs=settings.steps_on_labels,
        verbose=0,
    )
    return model


def train_with_graph(
    series: np.ndarray,
    kinds: np.ndarray,
    labeled: np.ndarray,
    settings: Settings,
    seed: int,
) -> keras.Model:
    config = nsl.configs.make_graph_reg_config(
        max_neighbors=3,
        multiplier=settings.multiplier,
        objective="propagation",
        distribution_alignment=1.0,  # All classes are equally frequent.
    )
    # Unlabeled series contribute only to the graph loss. The weights of labeled series
    # are scaled so that the labeled loss is their mean.
    weight = np.isin(np.arange(len(kinds)), labeled) * (len(kinds) / len(labeled))
    data = nsl.data.neighbor_dataset(
        make_graph(series, settings.neighbors),
        series,
        kinds,
        sample_weight=weight.astype(np.float32),
        neighbor_config=config.neighbor_config,
        batch_size=settings.batch_size,
        sampling="uniform",
        seed=seed,
    )
    model = make_model()
    wrapper = nsl.keras.GraphRegularization(model, config)
    compile_model(wrapper)
    wrapper.fit(data, epochs=settings.epochs, shuffle=False, verbose=0)
    return model


def measure(settings: Settings, seed: int) -> Figures:
    """Trains both networks and returns their test accuracies in percent."""
    series, kinds = make_series(settings.series, seed)
    labeled = np.arange(settings.labels_per_kind * len(KINDS))
    keras.utils.set_random_seed(seed)
    plain = train_on_labels(series[labeled], kinds[labeled], settings)
    keras.utils.set_random_seed(seed)
    regularized = train_with_graph(series, kinds, labeled, settings, seed)
    test, truth = make_series(settings.test_series, seed + 1000)
    found = [
        model.predict(test, batch_size=500, verbose=0).argmax(axis=1) == truth
        for model in (plain, regularized)
    ]
    rows = {"all": slice(None)} | {kind: truth == i for i, kind in enumerate(KINDS)}
    return {
        row: (
            100 * float(found[0][chosen].mean()),
            100 * float(found[1][chosen].mean()),
        )
        for row, chosen in rows.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(
        __doc__, "time_series", "one seed, fewer series, shorter training"
    )
    options = parser.parse_args(arguments)
    folder, settings = options.output_dir, QUICK if options.quick else Settings()
    figures = over_seeds(
        lambda seed: measure(settings, seed),
        options.seeds,
        folder / "time_series.json",
        settings,
        Progress(),
    )
    labels = settings.labels_per_kind * len(KINDS)
    table = format_table(figures, f"test accuracy in %, {labels} labels")
    (folder / "time_series.txt").write_text(f"{table}\n")
    series, kinds = make_series(settings.series, seed=0)
    graph = make_graph(series, settings.neighbors)
    time_series_picture.draw(
        folder / "time_series.png",
        series,
        [KINDS[kind] for kind in kinds],
        {row: graph.targets[graph.row_splits[row] :][:2] for row in range(len(KINDS))},
        figures,
    )
    print(f"{table}\n\nplot: {folder / 'time_series.png'}")


if __name__ == "__main__":
    main()
