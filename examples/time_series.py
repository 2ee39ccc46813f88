"""Time series with few labels, and a graph of similar series.

Cylinder, bell and funnel (Saito, 1994) are three classes of events in noise. The series
are synthetic: an event of random start, length and height that is flat, rises or falls.
Of 600 series, two of each class have a label. A graph connects each series to the five
most similar ones over all shifts (the shape-based distance of Paparrizos & Gravano,
2015), without using labels. The same convolutional network is trained on the 6 labels
alone, and with `nsl.keras.GraphRegularization` on all series. It is evaluated on 1,000
other series, which need no graph.

    python examples/time_series.py
"""

import argparse

import keras
import numpy as np
from keras import layers

import nsl

KINDS = ("cylinder", "bell", "funnel")
LENGTH = 128


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
            layers.Reshape((LENGTH, 1)),
            layers.Conv1D(16, 9, strides=2, activation="relu"),
            layers.Conv1D(32, 9, strides=2, activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(32, activation="relu"),
            layers.Dense(len(KINDS), activation="softmax"),
        ]
    )


def compile_model(model: keras.Model) -> None:
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy")


def train_with_graph(
    series: np.ndarray, kinds: np.ndarray, labels: int, seed: int
) -> keras.Model:
    """Trains on all series, the first of which have a label."""
    config = nsl.configs.make_graph_reg_config(
        max_neighbors=3,
        multiplier=1.0,
        objective="propagation",
        distribution_alignment=1.0,  # All classes are equally frequent.
    )
    # Unlabeled series contribute only to the graph loss. The weights of labeled series
    # are scaled so that the labeled loss is their mean.
    weight = (np.arange(len(kinds)) < labels) * np.float32(len(kinds) / labels)
    data = nsl.data.neighbor_dataset(
        make_graph(series, neighbors=5),
        series,
        kinds,
        sample_weight=weight,
        neighbor_config=config.neighbor_config,
        batch_size=200 if len(series) > 300 else 50,
        sampling="uniform",
        seed=seed,
    )
    model = make_model()
    wrapper = nsl.keras.GraphRegularization(model, config)
    compile_model(wrapper)
    wrapper.fit(data, epochs=60, shuffle=False, verbose=0)
    return model


def compare(seed: int, quick: bool = False) -> dict[str, list[float]]:
    """Returns the test accuracies of both networks in percent, by class."""
    series, kinds = make_series(300 if quick else 600, seed)
    labels = 2 * len(KINDS)
    keras.utils.set_random_seed(seed)
    plain = make_model()
    compile_model(plain)
    steps = 60 if quick else 300
    plain.fit(series[:labels], kinds[:labels], epochs=steps, verbose=0)
    keras.utils.set_random_seed(seed)
    regularized = train_with_graph(series, kinds, labels, seed)
    test, truth = make_series(1000, seed + 1000)
    answers = [
        model.predict(test, batch_size=500, verbose=0).argmax(axis=1)
        for model in (plain, regularized)
    ]
    rows = {"all": truth >= 0} | {kind: truth == i for i, kind in enumerate(KINDS)}
    return {
        row: [100 * float(np.mean(found[part] == truth[part])) for found in answers]
        for row, part in rows.items()
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, choices=range(1, 21))
    parser.add_argument("--quick", action="store_true", help="one seed, less training")
    options = parser.parse_args(arguments)
    seeds = range(1 if options.quick else options.seeds)
    runs = [compare(seed, options.quick) for seed in seeds]
    print(f"{'test accuracy in %, 6 labels':29}{'plain':>15}{'regularized':>15}")
    for row in runs[0]:
        sides = zip(*(run[row] for run in runs), strict=True)
        print(f"{row:29}", *(f"{np.mean(s):7.1f} ± {np.std(s):4.1f}" for s in sides))


if __name__ == "__main__":
    main()
