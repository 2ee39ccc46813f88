"""Film reviews with few labels: an LSTM with a graph of similar reviews.

As in NSL's tutorial, a graph connects reviews with similar embeddings, and an LSTM is
trained with and without `nsl.keras.GraphRegularization`. The embeddings are computed
from the texts, without labels. All training reviews are in the graph; those without a
label contribute only to the graph loss. For predictions, the network needs only the
words. The baseline is a logistic regression on the same embeddings and labels.

    python examples/imdb/graph.py --data=aclImdb
    python examples/imdb/graph.py --quick

A seed takes four minutes on one core. Settings were chosen on training reviews.
"""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from reviews import Reviews, draw_labeled, embed, print_table, read_options, tokenize
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import kneighbors_graph

import nsl

WORDS, BATCH_SIZE = 10_000, 32
CONFIG = nsl.configs.make_graph_reg_config(
    max_neighbors=2,
    multiplier=3.0,
    objective="propagation",
    sharpening_temperature=1.0,
)


class Task(NamedTuple):
    """Training reviews with their graph, and new reviews to classify."""

    tokens: np.ndarray
    labels: np.ndarray
    embeddings: np.ndarray
    graph: nsl.data.Graph
    new_tokens: np.ndarray
    new_labels: np.ndarray
    new_embeddings: np.ndarray


def make_task(train: Reviews, new: Reviews, quick: bool) -> Task:
    """Tokenizes and embeds reviews, and connects those with similar embeddings."""
    tokens, new_tokens = tokenize(train, new, WORDS, 26 if quick else 128)
    embeddings, new_embeddings = embed(train, new, dimensions=16)
    nearest = kneighbors_graph(embeddings, 10 if quick else 200, include_self=False)
    graph = nsl.data.Graph(nearest, undirected=True)
    return Task(tokens, train[1], embeddings, graph, new_tokens, new[1], new_embeddings)


def graph_batches(task: Task, rows: np.ndarray, seed: int) -> tf.data.Dataset:
    """Returns batches that are half labeled, with newly sampled neighbors."""
    rest = np.setdiff1d(np.arange(len(task.labels)), rows)
    # Labeled reviews are few, so repeat them until they are half of all samples.
    samples = np.concatenate([np.resize(rows, len(rest)), rest])
    data = nsl.data.neighbor_dataset(
        task.graph,
        {"tokens": task.tokens},
        task.labels[samples],
        sample_weight=np.isin(samples, rows),
        sample_ids=samples,
        neighbor_config=CONFIG.neighbor_config,
        batch_size=2 * BATCH_SIZE,
        sampling="uniform",
        seed=seed,
    )
    return data.repeat()


def train(
    task: Task, rows: np.ndarray, seed: int, with_graph: bool, steps: int
) -> keras.Model:
    """Trains on the labels of the reviews in `rows`, and optionally on the graph."""
    keras.utils.set_random_seed(seed)
    model = trained = keras.Sequential(
        [
            keras.Input(task.tokens.shape[1:], dtype="int32", name="tokens"),
            layers.Embedding(WORDS, 32),
            layers.SpatialDropout1D(0.3),
            layers.LSTM(32, return_sequences=True),
            layers.GlobalAveragePooling1D(),
            layers.Dropout(0.5),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    data = tf.data.Dataset.from_tensor_slices((task.tokens[rows], task.labels[rows]))
    data = data.shuffle(len(rows)).repeat().batch(BATCH_SIZE)
    if with_graph:
        trained = nsl.keras.GraphRegularization(model, CONFIG)
        data = graph_batches(task, rows, seed)
    rate = keras.optimizers.schedules.CosineDecay(0.003, steps)
    # The mean over the labeled reviews of a batch, not over all reviews.
    loss = keras.losses.BinaryCrossentropy(reduction="mean_with_sample_weight")
    trained.compile(keras.optimizers.Adam(rate), loss)
    trained.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0)
    return model


def accuracy(model: keras.Model, task: Task) -> float:
    praised = model.predict(task.new_tokens, batch_size=1000, verbose=0)[:, 0] > 0.5
    return 100 * float(np.mean(praised == task.new_labels))


def compare(task: Task, seed: int, quick: bool = False) -> dict[str, list[float]]:
    """Returns the accuracies of both networks and of the baseline, by row."""
    steps, every, rows = 40 if quick else 250, np.arange(len(task.labels)), {}
    for share in (0.04,) if quick else (0.01, 0.1):
        count = 2 * round(share * len(every) / 2)
        known = draw_labeled(task.labels, count, seed)
        models = [train(task, known, seed, side, steps) for side in (False, True)]
        baseline = LogisticRegression(C=10.0, max_iter=1000)
        baseline.fit(task.embeddings[known], task.labels[known])
        score = 100 * baseline.score(task.new_embeddings, task.new_labels)
        found = [accuracy(model, task) for model in models]
        rows[f"{count:,} labels ({share:.0%})"] = [*found, score]
    if seed < 3:
        model = train(task, every, seed, False, 40 if quick else 1500)
        rows[f"all {len(every):,} labels"] = [accuracy(model, task)]
    return rows


def describe(task: Task) -> str:
    graph = task.graph
    equal = np.mean(task.labels[graph.sources] == task.labels[graph.targets])
    edges = graph.num_edges // graph.num_nodes
    return f"graph: {edges} edges per review, {equal:.0%} of them between equal labels"


def main(arguments: list[str] | None = None) -> None:
    options, reviews, new = read_options(__doc__, arguments)
    task = make_task(reviews, new, options.quick)
    runs = [compare(task, seed, options.quick) for seed in range(options.seeds)]
    print_table(runs, ["plain", "regularized", "linear baseline"])
    print(describe(task))


if __name__ == "__main__":
    main()
