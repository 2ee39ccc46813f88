"""Runs the three tutorials of NSL 1.4, and prints the results next to its own.

    python benchmarks/nsl14_tutorials.py --data=FOLDER --seeds=3
    python benchmarks/nsl14_tutorials.py --data=FOLDER --only=cora

Each is an NSL 1.4 program: it uses the old import name, `tf.keras`, `tf.data` batches
that are dicts or come from TFRecord files, and the network, settings and epochs of the
tutorial. `docs/from_nsl14.md` lists the changes that were necessary. The tutorials
download their data; here it is read from files:

- mnist.npz, as stored by Keras.
- cora.npz, in the format of `examples/cora.py`. Each seed draws another training set of
  80%: the rows are in another order than in the file that the tutorial splits.
- imdb_train.jsonl.gz and imdb_test.jsonl.gz, as `examples/imdb/reviews.py` reads. Word
  ids are those of the 10,000 most frequent words. The tutorial's graph connects reviews
  by pretrained word embeddings; this one by latent semantic analysis of the reviews,
  with the same number of dimensions, and a threshold of 0.9 instead of 0.99.
"""

import argparse
import gzip
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

import neural_structured_learning as nsl

Figures: TypeAlias = dict[str, float]

# As published in the tutorials. For Cora, where they print nothing, the results of a
# run of NSL 1.4 on the same data (docs/results.md).
NSL14 = {
    "mnist, base": "99",
    "mnist, regularized": "99",
    "mnist, base, perturbed": "about 50",
    "mnist, regularized, perturbed": "95",
    "cora, base": "77.0 (measured)",
    "cora, regularized": "80.6 (measured; 2 to 3 more than base)",
    "imdb, Bi-LSTM, base": "83",
    "imdb, Bi-LSTM, regularized": "83",
    "imdb, feed-forward, base": "76",
    "imdb, feed-forward, regularized": "80",
}


def crossentropy() -> tf.keras.losses.Loss:
    return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def mnist(folder: Path, seed: int) -> Figures:
    """Adversarial regularization of a convolutional network."""
    del seed
    with np.load(folder / "mnist.npz") as file:
        arrays = {name: file[name] for name in file.files}

    def batches(part: str) -> tf.data.Dataset:
        images = arrays[f"x_{part}"][..., None].astype("float32") / 255.0
        labels = arrays[f"y_{part}"].astype("int64")
        data = tf.data.Dataset.from_tensor_slices((images, labels))
        return (data.shuffle(10000) if part == "train" else data).batch(32)

    def network() -> tf.keras.Model:
        inputs = tf.keras.Input(shape=[28, 28, 1], dtype=tf.float32, name="image")
        x = inputs
        for number, filters in enumerate([32, 64, 64]):
            if number:
                x = tf.keras.layers.MaxPooling2D((2, 2))(x)
            x = tf.keras.layers.Conv2D(filters, (3, 3), activation="relu")(x)
        x = tf.keras.layers.Dense(64, activation="relu")(tf.keras.layers.Flatten()(x))
        return tf.keras.Model(inputs=inputs, outputs=tf.keras.layers.Dense(10)(x))

    train, test = batches("train"), batches("test")
    base_model = network()
    base_model.compile(optimizer="adam", loss=crossentropy(), metrics=["acc"])
    base_model.fit(train, epochs=5, verbose=0)
    figures = {"mnist, base": base_model.evaluate(test, verbose=0)[1]}

    adv_config = nsl.configs.make_adv_reg_config(
        multiplier=0.2, adv_step_size=0.2, adv_grad_norm="infinity"
    )

    def as_dict(image: Any, label: Any) -> dict[str, Any]:
        return {"image": image, "label": label}

    adv_model = nsl.keras.AdversarialRegularization(
        network(), label_keys=["label"], adv_config=adv_config
    )
    adv_model.compile(optimizer="adam", loss=crossentropy(), metrics=["acc"])
    adv_model.fit(train.map(as_dict), epochs=5, verbose=0)
    results = adv_model.evaluate(test.map(as_dict), verbose=0, return_dict=True)
    figures["mnist, regularized"] = results["acc"]

    reference_model = nsl.keras.AdversarialRegularization(
        base_model, label_keys=["label"], adv_config=adv_config
    )
    reference_model.compile(optimizer="adam", loss=crossentropy(), metrics=["acc"])
    models = {"base": base_model, "regularized": adv_model.base_model}
    accuracies = {name: tf.keras.metrics.SparseCategoricalAccuracy() for name in models}
    for batch in test.map(as_dict):
        perturbed = reference_model.perturb_on_batch(batch)
        perturbed["image"] = tf.clip_by_value(perturbed["image"], 0.0, 1.0)
        y_true = perturbed.pop("label")
        for name, model in models.items():
            accuracies[name](y_true, model(perturbed))
    for name, accuracy in accuracies.items():
        figures[f"mnist, {name}, perturbed"] = float(accuracy.result())
    return figures


def cora(folder: Path, seed: int) -> Figures:
    """Graph regularization of a multilayer perceptron."""
    words, classes, neighbors = 1433, 7, 1
    train_file, test_file = _write_cora(folder / "cora.npz", seed)

    def parse(record: Any, training: bool) -> tuple[dict[str, Any], Any]:
        zeros = tf.zeros([words], tf.int64)
        row = tf.io.FixedLenFeature([words], tf.int64, default_value=zeros)
        spec = {"words": row, "label": tf.io.FixedLenFeature((), tf.int64)}
        for i in range(neighbors if training else 0):
            spec[f"NL_nbr_{i}_words"] = row
            spec[f"NL_nbr_{i}_weight"] = tf.io.FixedLenFeature(
                [1], tf.float32, default_value=tf.zeros([1])
            )
        features = tf.io.parse_single_example(record, spec)
        return features, features.pop("label")

    def batches(file: str, training: bool = False) -> tf.data.Dataset:
        data = tf.data.TFRecordDataset([file])
        data = data.shuffle(10000) if training else data
        return data.map(lambda record: parse(record, training)).batch(128)

    def network() -> tf.keras.Model:
        inputs = tf.keras.Input(shape=(words,), dtype="int64", name="words")
        x = tf.keras.layers.Lambda(lambda x: tf.cast(x, tf.float32))(inputs)
        for units in [50, 50]:
            x = tf.keras.layers.Dense(units, activation="relu")(x)
            x = tf.keras.layers.Dropout(0.5)(x)
        return tf.keras.Model(inputs, outputs=tf.keras.layers.Dense(classes)(x))

    train, test = batches(train_file, training=True), batches(test_file)
    graph_reg_config = nsl.configs.make_graph_reg_config(
        max_neighbors=neighbors,
        multiplier=0.1,
        distance_type=nsl.configs.DistanceType.L2,
        sum_over_axis=-1,
    )
    regularized = nsl.keras.GraphRegularization(network(), graph_reg_config)
    figures = {}
    for name, model in {"base": network(), "regularized": regularized}.items():
        model.compile(optimizer="adam", loss=crossentropy(), metrics=["accuracy"])
        model.fit(train, epochs=100, verbose=0)
        figures[f"cora, {name}"] = model.evaluate(test, verbose=0)[1]
    return figures


def imdb(folder: Path, seed: int) -> Figures:
    """Graph regularization of a bidirectional LSTM, and of a feed-forward network."""
    del seed
    length, neighbors, batch_size = 256, 2, 128
    train_file, test_file, count = _write_imdb(folder)

    def parse(record: Any, training: bool) -> tuple[dict[str, Any], Any]:
        row = tf.io.VarLenFeature(tf.int64)
        spec = {"words": row, "label": tf.io.FixedLenFeature((), tf.int64)}
        names = ["words"]
        for i in range(neighbors if training else 0):
            names.append(f"NL_nbr_{i}_words")
            spec[names[-1]] = row
            spec[f"NL_nbr_{i}_weight"] = tf.io.FixedLenFeature(
                [1], tf.float32, default_value=tf.zeros([1])
            )
        features = tf.io.parse_single_example(record, spec)
        for name in names:
            values = features[name].values[:length]
            padded = tf.pad(values, [[0, length - tf.size(values)]])
            features[name] = tf.ensure_shape(padded, [length])
        return features, features.pop("label")

    def batches(file: str, training: bool = False) -> tf.data.Dataset:
        data = tf.data.TFRecordDataset([file])
        data = data.shuffle(10000) if training else data
        return data.map(lambda record: parse(record, training)).batch(batch_size)

    def bi_lstm() -> tf.keras.Model:
        inputs = tf.keras.Input(shape=(length,), dtype="int64", name="words")
        x = tf.keras.layers.Embedding(10000, 16)(inputs)
        x = tf.keras.layers.Bidirectional(tf.keras.layers.LSTM(64))(x)
        x = tf.keras.layers.Dense(64, activation="relu")(x)
        return tf.keras.Model(inputs, outputs=tf.keras.layers.Dense(1)(x))

    def feed_forward() -> tf.keras.Model:
        inputs = tf.keras.Input(shape=(length,), dtype="int64", name="words")
        x = tf.keras.layers.Embedding(10000, 16)(inputs)
        x = tf.keras.layers.GlobalAveragePooling1D()(x)
        x = tf.keras.layers.Dense(16, activation="relu")(x)
        return tf.keras.Model(inputs, outputs=tf.keras.layers.Dense(1)(x))

    # As in the tutorial, each epoch trains on another tenth of the shuffled batches.
    # The tutorial validates on the others; they are omitted here.
    train = batches(train_file, training=True).skip(int(0.9 * (count // batch_size)))
    test = batches(test_file)
    graph_reg_config = nsl.configs.make_graph_reg_config(
        max_neighbors=neighbors,
        multiplier=0.1,
        distance_type=nsl.configs.DistanceType.L2,
        sum_over_axis=-1,
    )
    figures = {}
    for kind, network in {"feed-forward": feed_forward, "Bi-LSTM": bi_lstm}.items():
        regularized = nsl.keras.GraphRegularization(network(), graph_reg_config)
        for name, model in {"base": network(), "regularized": regularized}.items():
            model.compile(
                optimizer="adam",
                loss=tf.keras.losses.BinaryCrossentropy(from_logits=True),
                metrics=["accuracy"],
            )
            model.fit(train, epochs=10, verbose=0)
            accuracy = model.evaluate(test, verbose=0)[1]
            print(f"imdb, {kind}, {name}: {accuracy}", file=sys.stderr, flush=True)
            figures[f"imdb, {kind}, {name}"] = accuracy
    return figures


def _write_cora(path: Path, seed: int) -> tuple[str, str]:
    """Writes training papers with neighbors, and test papers; returns both paths."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    splits = arrays["features_indptr"]
    words = np.zeros(arrays["features_shape"], np.int64)
    rows = np.repeat(np.arange(len(words)), np.diff(splits))
    words[rows, arrays["features_indices"]] = 1
    trains = np.random.default_rng(seed).random(len(words)) <= 0.8
    records = [
        _record(id=f"{i}".encode(), words=row, label=[label])
        for i, (row, label) in enumerate(zip(words, arrays["labels"], strict=True))
    ]
    train, test = (
        _write(f"cora_{name}.tfr", [records[i] for i in np.flatnonzero(chosen)])
        for name, chosen in {"train": trains, "test": ~trains}.items()
    )
    Path("cora.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in arrays["edges"]))
    # Test papers are neighbors too, without their labels.
    nsl.tools.pack_nbrs(
        train,
        test,
        "cora.tsv",
        "cora_packed.tfr",
        add_undirected_edges=True,
        max_nbrs=5,
    )
    return "cora_packed.tfr", test


def _write_imdb(folder: Path) -> tuple[str, str, int]:
    """Writes training reviews with neighbors, and test reviews.

    Returns:
      Both paths, and the number of training reviews.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts, labels = {}, {}
    for part in ("train", "test"):
        with gzip.open(
            folder / f"imdb_{part}.jsonl.gz", "rt", encoding="utf-8"
        ) as file:
            rows = [json.loads(line) for line in file]
        # With reviews sorted by class, a shuffle buffer of 10,000 would leave batches
        # of a single class.
        order = np.random.default_rng(0).permutation(len(rows))
        texts[part] = [rows[i]["text"].replace("<br />", " ") for i in order]
        labels[part] = [rows[i]["label"] for i in order]
    vectorization = tf.keras.layers.TextVectorization(10000, ragged=True)
    vectorization.adapt(texts["train"])
    for part in ("train", "test"):
        words = vectorization(tf.constant(texts[part])).to_list()
        pairs = zip(words, labels[part], strict=True)
        records = (
            _record(id=f"{part}{i}".encode(), words=row, label=[label])
            for i, (row, label) in enumerate(pairs)
        )
        _write(f"imdb_{part}.tfr", records)
    tfidf = TfidfVectorizer(min_df=20, max_df=0.5, sublinear_tf=True, dtype=np.float32)
    svd = TruncatedSVD(20, n_iter=3, random_state=0)
    vectors = svd.fit_transform(tfidf.fit_transform(texts["train"]))
    records = (
        _record(id=f"train{i}".encode(), embedding=row) for i, row in enumerate(vectors)
    )
    _write("imdb_embeddings.tfr", records)
    config = nsl.configs.GraphBuilderConfig(
        similarity_threshold=0.9, lsh_splits=32, lsh_rounds=15, random_seed=12345
    )
    nsl.tools.build_graph_from_config(["imdb_embeddings.tfr"], "imdb.tsv", config)
    edges = len(Path("imdb.tsv").read_text().splitlines())
    print(f"imdb: {edges:,} lines in the graph", flush=True)
    nsl.tools.pack_nbrs(
        "imdb_train.tfr",
        "",
        "imdb.tsv",
        "imdb_packed.tfr",
        add_undirected_edges=True,
        max_nbrs=3,
    )
    return "imdb_packed.tfr", "imdb_test.tfr", len(texts["train"])


def _record(**features: Any) -> bytes:
    """Returns a serialized tf.train.Example of bytes, integers and floats."""
    example = tf.train.Example()
    for name, values in features.items():
        feature = example.features.feature[name]
        if isinstance(values, bytes):
            feature.bytes_list.value.append(values)
        elif np.asarray(values).dtype.kind == "f":
            feature.float_list.value.extend(values)
        else:
            feature.int64_list.value.extend(values)
    return bytes(example.SerializeToString())


def _write(path: str, records: Iterable[bytes]) -> str:
    with tf.io.TFRecordWriter(path) as writer:
        for record in records:
            writer.write(record)
    return path


TUTORIALS: Mapping[str, Callable[[Path, int], Figures]] = {
    "mnist": mnist,
    "cora": cora,
    "imdb": imdb,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the data folder")
    parser.add_argument(
        "--only", nargs="+", choices=TUTORIALS, default=list(TUTORIALS), metavar="NAME"
    )
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    folder = arguments.data.resolve()
    print(f"{'test accuracy in %':34}{'nsl':>14}   NSL 1.4", flush=True)
    for name in arguments.only:
        runs = []
        for seed in range(arguments.seeds):
            tf.keras.utils.set_random_seed(seed)
            with tempfile.TemporaryDirectory() as scratch:
                os.chdir(scratch)
                runs.append(TUTORIALS[name](folder, seed))
                os.chdir(folder)
        for figure in runs[0]:
            values = 100 * np.array([run[figure] for run in runs])
            spread = f" ± {np.std(values):.1f}" if len(values) > 1 else ""
            here = f"{np.mean(values):.1f}{spread}"
            print(f"{figure:34}{here:>14}   {NSL14[figure]}", flush=True)


if __name__ == "__main__":
    main()
