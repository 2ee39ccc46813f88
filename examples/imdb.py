"""Classifies film reviews with few labels: an LSTM with a graph of similar reviews.

As in NSL's tutorial, a graph connects reviews with similar embeddings, and an LSTM is
trained with and without `nsl.keras.GraphRegularization`. The embeddings need no
download: they are computed from the texts (TF-IDF and a truncated SVD). All training
reviews are in the graph; those without a label contribute only to the graph loss. The
test reviews are not in the graph: for predictions, the network needs only the words.
The linear baseline in the table is a logistic regression on the same embeddings and
labels.

    python examples/imdb.py --data=aclImdb
    python examples/imdb.py --data=aclImdb --validate --seeds=1
    python examples/imdb.py --quick

A seed takes two minutes on one core, and a minute and a half with all labels. An
interrupted program resumes. --quick uses synthetic reviews.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import imdb_data
import imdb_picture
import keras
import numpy as np
import tensorflow as tf
from imdb_data import Task, accuracy_of_embeddings, draw_labeled, make_task
from progress import Progress
from seeds import Figures, format_table, make_parser, mean_and_spread, over_seeds

import nsl


@dataclasses.dataclass(frozen=True)
class Settings:
    """The hyperparameters, chosen on held-out training reviews (--validate).

    Attributes:
      vocabulary: The size of the vocabulary.
      tokens: The number of words that the network reads, from the start of a review.
      embedding: The dimension of word embeddings.
      units: The number of units of the LSTM.
      word_dropout: The dropout rate of word embeddings.
      dropout: The dropout rate of the LSTM's outputs.
      learning_rate: The initial learning rate of Adam, with cosine decay to 0.
      steps: The number of weight updates.
      all_labels_steps: The number of weight updates with all labels.
      batch_size: The number of labeled reviews per step. With a graph, each step has
        the same number of unlabeled reviews.
      dimensions: The dimension of the embeddings that define the graph.
      candidates: The number of most similar reviews that become a review's neighbors.
      neighbors: The number of neighbors sampled per step.
      multiplier: The factor of the graph loss.
      objective: The graph loss.
      sharpening_temperature: The temperature that sharpens the neighbors' predictions.
    """

    vocabulary: int = 10_000
    tokens: int = 128
    embedding: int = 32
    units: int = 32
    word_dropout: float = 0.3
    dropout: float = 0.5
    learning_rate: float = 0.003
    steps: int = 250
    all_labels_steps: int = 1500
    batch_size: int = 32
    dimensions: int = 16
    candidates: int = 200
    neighbors: int = 2
    multiplier: float = 3.0
    objective: str = "propagation"
    sharpening_temperature: float = 1.0


QUICK = Settings(
    vocabulary=400, tokens=26, units=16, steps=40, all_labels_steps=40, candidates=10
)
SHARES = (0.01, 0.1)
QUICK_SHARES = (0.04,)
ALL_LABELS_SEEDS = 3


def make_model(settings: Settings) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((settings.tokens,), dtype="int32", name="tokens"),
            keras.layers.Embedding(settings.vocabulary, settings.embedding),
            keras.layers.SpatialDropout1D(settings.word_dropout),
            keras.layers.LSTM(settings.units, return_sequences=True),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dropout(settings.dropout),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


def labeled_batches(
    task: Task, rows: np.ndarray, settings: Settings
) -> tf.data.Dataset:
    data = tf.data.Dataset.from_tensor_slices((task.tokens[rows], task.labels[rows]))
    return data.shuffle(len(rows)).repeat().batch(settings.batch_size)


def graph_batches(
    task: Task,
    rows: np.ndarray,
    settings: Settings,
    graph_config: nsl.configs.GraphRegConfig,
    seed: int,
) -> tf.data.Dataset:
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
        neighbor_config=graph_config.neighbor_config,
        batch_size=2 * settings.batch_size,
        sampling="uniform",
        seed=seed,
    )
    return data.repeat()


def train(
    task: Task, rows: np.ndarray, settings: Settings, seed: int, regularize: bool
) -> keras.Model:
    """Trains on the labels of the reviews in `rows`, and optionally on the graph."""
    keras.utils.set_random_seed(seed)
    model = trained = make_model(settings)
    data = labeled_batches(task, rows, settings)
    if regularize:
        graph_config = nsl.configs.make_graph_reg_config(
            max_neighbors=settings.neighbors,
            multiplier=settings.multiplier,
            objective=settings.objective,
            sharpening_temperature=settings.sharpening_temperature,
        )
        trained = nsl.keras.GraphRegularization(model, graph_config)
        data = graph_batches(task, rows, settings, graph_config, seed)
    rate = keras.optimizers.schedules.CosineDecay(
        settings.learning_rate, settings.steps
    )
    # The mean over the labeled reviews of a batch, not over all reviews.
    loss = keras.losses.BinaryCrossentropy(reduction="mean_with_sample_weight")
    trained.compile(keras.optimizers.Adam(rate), loss)
    trained.fit(data, steps_per_epoch=settings.steps, shuffle=False, verbose=0)
    return model


def accuracy(model: keras.Model, task: Task) -> float:
    praised = model.predict(task.new_tokens, batch_size=1000, verbose=0)[:, 0] > 0.5
    return 100 * float(np.mean(praised == task.new_labels))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "imdb", "one seed on synthetic reviews, in seconds")
    add = parser.add_argument
    add("--data", type=Path, help="folder with the reviews, such as aclImdb")
    add(
        "--validate",
        action="store_true",
        help="evaluate on a held-out fifth of the training reviews",
    )
    options = parser.parse_args(arguments)
    if options.data is None and not options.quick:
        parser.error(f"--data is missing (or --quick).\n\n{imdb_data.WHERE}")

    progress = Progress()
    progress.part("graph")
    settings, shares = (QUICK, QUICK_SHARES) if options.quick else (Settings(), SHARES)
    train_part, new = (
        imdb_data.make_up() if options.quick else imdb_data.load(options.data)
    )
    if options.validate:
        train_part, new = imdb_data.hold_out(train_part)
    task = make_task(
        train_part,
        new,
        vocabulary=settings.vocabulary,
        tokens=settings.tokens,
        dimensions=settings.dimensions,
        candidates=settings.candidates,
    )
    counts = [2 * round(share * len(task.labels) / 2) for share in shares]
    titles = {
        f"{count:,} labels ({share:.0%})": count
        for count, share in zip(counts, shares, strict=True)
    }

    def measure(seed: int) -> Figures:
        found: Figures = {}
        for title, count in titles.items():
            progress.step(title)
            rows = draw_labeled(task.labels, count, seed)
            plain, regularized = (
                accuracy(train(task, rows, settings, seed, regularize), task)
                for regularize in (False, True)
            )
            found[title] = (plain, regularized)
        return found

    def measure_with_all_labels(seed: int) -> Figures:
        steps = dataclasses.replace(settings, steps=settings.all_labels_steps)
        every = np.arange(len(task.labels))
        reached = accuracy(train(task, every, steps, seed, regularize=False), task)
        return {"all labels": (reached,)}

    folder = options.output_dir
    name = "imdb_validation" if options.validate else "imdb"
    figures = over_seeds(
        measure, options.seeds, folder / f"{name}.json", settings, progress
    )
    with_all = over_seeds(
        measure_with_all_labels,
        options.seeds[:ALL_LABELS_SEEDS],
        folder / f"{name}_all_labels.json",
        settings,
        progress,
    )
    all_labels = [found["all labels"][0] for found in with_all]
    embeddings = {
        title: [
            accuracy_of_embeddings(task, draw_labeled(task.labels, count, seed))
            for seed in options.seeds
        ]
        for title, count in titles.items()
    }
    part = "held-out" if options.validate else "test"
    table = format_table(
        figures,
        f"{part} accuracy in %",
        (
            "linear baseline",
            {title: mean_and_spread(found) for title, found in embeddings.items()},
        ),
    )
    equal = imdb_data.homophily(task.graph, task.labels)
    table += (
        f"\nplain with all {len(task.labels):,} labels: {mean_and_spread(all_labels)}"
        f" ({len(all_labels)} of the seeds)"
        f"\ngraph: {task.graph.num_edges // len(task.labels)} edges per review, "
        f"{equal:.0%} of them between equal labels"
    )
    (folder / f"{name}.txt").write_text(f"{table}\n")
    picture = folder / f"{name}.png"
    imdb_picture.draw(
        picture,
        f"IMDB reviews: {part} accuracy against labels",
        list(titles.values()),
        {
            "plain": [[found[title][0] for found in figures] for title in titles],
            "graph": [[found[title][1] for found in figures] for title in titles],
            "embeddings": list(embeddings.values()),
        },
        all_labels,
    )
    print(f"{table}\n\nplot: {picture}")


if __name__ == "__main__":
    main()
