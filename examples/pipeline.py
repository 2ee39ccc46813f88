"""From raw files to a served model, with all intermediate files.

    raw CSV -> TFRecord -> build_graph -> pack_nbrs -> tf.data -> fit -> export -> serve

Of 400 cell samples (Wolberg et al., 1993; in scikit-learn), 20 have a label. A Keras
model of raw measurements is trained on the labels alone, and on all records and a
graph. It is served by pipeline_serve.py, a process without nsl. Nothing was tuned here.

    python examples/pipeline.py
"""

import argparse
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

import nsl

NEIGHBORS = 5


def write_raw_files(folder: Path, seed: int) -> None:
    """Writes train.csv (id, label or -1, measurements), test.csv and its labels."""
    x, y = load_breast_cancer(return_X_y=True)
    rows, labels = np.arange(len(y)), np.full(len(y), -1)
    train, test = train_test_split(rows, test_size=169, stratify=y, random_state=0)
    rng = np.random.default_rng(seed)
    for kind in (0, 1):
        labels[rng.choice(train[y[train] == kind], 10, replace=False)] = kind
    table = np.column_stack([rows, labels, x])[train]
    np.savetxt(folder / "train.csv", table, "%s", delimiter=",")
    np.savetxt(folder / "test.csv", x[test], "%s", delimiter=",")
    np.savetxt(folder / "test_labels.csv", y[test], "%d")


def read_raw_file(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the ids, the labels (-1: none) and the raw measurements."""
    table = np.loadtxt(path, delimiter=",")
    return table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2:].astype("f")


def pack(folder: Path) -> None:
    """Writes graph.tsv and packed.tfr, as nsl-build-graph and nsl-pack-nbrs do."""
    ids, labels, raw = read_raw_file(folder / "train.csv")
    # Samples are similar if their standardized measurements are.
    embeddings = (raw - raw.mean(axis=0)) / raw.std(axis=0)
    files = [str(folder / f"{name}.tfr") for name in ("labeled", "unlabeled")]
    for path, chosen in zip(files, (labels >= 0, labels < 0), strict=True):
        with tf.io.TFRecordWriter(path) as writer:
            for row in np.flatnonzero(chosen):
                example = tf.train.Example()
                feature = example.features.feature
                feature["id"].bytes_list.value.append(b"%d" % ids[row])
                feature["raw"].float_list.value.extend(raw[row])
                feature["embedding"].float_list.value.extend(embeddings[row])
                if labels[row] >= 0:
                    feature["label"].int64_list.value.append(labels[row])
                writer.write(example.SerializeToString())
    graph = folder / "graph.tsv"
    nsl.tools.build_graph(files, graph, 0.0, num_neighbors=NEIGHBORS)
    options = {"seeds": "all", "neighbor_features": ["raw"], "max_nbrs": NEIGHBORS}
    nsl.tools.pack_nbrs(*files, graph, folder / "packed.tfr", **options)


def read_packed(path: Path, batch_size: int, seed: int) -> tf.data.Dataset:
    """Returns batches (features, label, weight): 0 for unlabeled samples."""
    numbers = tf.io.FixedLenFeature([30], tf.float32, [0.0] * 30)
    weight = tf.io.FixedLenFeature([1], tf.float32, [0.0])
    spec = {"raw": numbers, "label": tf.io.FixedLenFeature([], tf.int64, -1)}
    for i in range(NEIGHBORS):
        # The default weight of 0 masks missing neighbors.
        spec |= {f"NL_nbr_{i}_raw": numbers, f"NL_nbr_{i}_weight": weight}

    def parse(records: tf.Tensor) -> tuple:
        features = tf.io.parse_example(records, spec)
        label = features.pop("label")
        known = tf.cast(label >= 0, tf.float32)
        # With these weights, the labeled loss is the mean over labeled samples.
        return features, tf.maximum(label, 0), known / tf.reduce_mean(known)

    everything = tf.data.TFRecordDataset(str(path)).batch(1 << 20).map(parse).unbatch()
    shuffled = everything.shuffle(1 << 20, seed=seed).batch(batch_size)
    return shuffled.cache().repeat()


def make_model(raw: np.ndarray) -> keras.Model:
    scale = layers.Normalization(mean=raw.mean(axis=0), variance=raw.var(axis=0))
    hidden = layers.Dense(32, activation="relu")
    outputs = layers.Dense(2, activation="softmax")
    return keras.Sequential([keras.Input((30,), name="raw"), scale, hidden, outputs])


def train(folder: Path, steps: int, seed: int, regularized: bool) -> keras.Model:
    keras.utils.set_random_seed(seed)
    _, labels, raw = read_raw_file(folder / "train.csv")
    model = trained = make_model(raw)
    batch = raw[labels >= 0], labels[labels >= 0]
    data = tf.data.Dataset.from_tensors(batch).repeat()
    if regularized:
        config = nsl.configs.make_graph_reg_config(
            max_neighbors=NEIGHBORS, multiplier=1.0, objective="propagation"
        )
        trained = nsl.keras.GraphRegularization(model, config)
        data = read_packed(folder / "packed.tfr", batch_size=200, seed=seed)
    trained.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy")
    trained.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0)
    return model


def compare(folder: Path, seed: int, quick: bool = False) -> dict[str, list[float]]:
    """Runs all steps except serving, and returns test accuracies in percent."""
    folder.mkdir(parents=True, exist_ok=True)
    write_raw_files(folder, seed)
    pack(folder)
    settings = folder, 60 if quick else 300, seed
    plain, regularized = (train(*settings, side) for side in (False, True))
    regularized.save(folder / "model.keras")
    regularized.export(folder / "saved_model", verbose=False)
    raw = np.loadtxt(folder / "test.csv", np.float32, delimiter=",")
    labels = np.loadtxt(folder / "test_labels.csv", int)
    rows = {"all": labels >= 0, "malignant": labels == 0, "benign": labels == 1}
    answers = [model.predict(raw, verbose=0) for model in (plain, regularized)]
    np.save(folder / "predictions.npy", answers[1])
    right = [predictions.argmax(axis=1) == labels for predictions in answers]
    return {row: [100 * np.mean(x[part]) for x in right] for row, part in rows.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", type=Path, default=Path("pipeline"))
    parser.add_argument("--seeds", type=int, default=5, choices=range(1, 21))
    parser.add_argument("--quick", action="store_true", help="one seed, less training")
    options = parser.parse_args(arguments)
    runs, folder = [], options.output_dir
    for seed in range(1 if options.quick else options.seeds):
        runs.append(compare(folder / f"seed-{seed}", seed, options.quick))
    print(f"{'test accuracy in %, 20 labels':29}{'plain':>14}{'regularized':>14}")
    for row in runs[0]:
        sides = zip(*(run[row] for run in runs), strict=True)
        print(f"{row:29}", *(f"{np.mean(s):7.1f} ± {np.std(s):3.1f}" for s in sides))
    print(f"To serve it: python examples/pipeline_serve.py {folder / 'seed-0'}")


if __name__ == "__main__":
    main()
