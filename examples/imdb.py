"""Judging film reviews with few labels: an LSTM that learns from similar reviews too.

As in NSL's tutorial, a graph joins reviews whose embeddings are similar, and an LSTM
that reads the words of one review is trained without and with
`nsl.keras.GraphRegularization`. Here the embeddings need no download: they come from
the texts alone (TF-IDF and a truncated SVD). All training reviews are in the graph,
those without a label count in the graph loss alone, and the reviews of the test are in
no graph: when it answers, the network reads words and nothing else. Beside it stands
what a logistic regression makes of the embeddings and the same labels.

    python examples/imdb.py --data=aclImdb
    python examples/imdb.py --data=aclImdb --validate --seeds=1
    python examples/imdb.py --quick

A seed takes two minutes on one core, and one with all labels a minute and a half; an
interrupted program goes on where it was. --quick makes up some reviews.
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
    """What may be chosen; it was, on training reviews held out (--validate).

    Attributes:
      vocabulary: How many words the network knows.
      tokens: How many words of a review it reads, the first ones.
      embedding: Numbers a word.
      units: Of the LSTM.
      word_dropout: Share of the numbers of all words that are left out in a step.
      dropout: The same of the LSTM's outputs.
      learning_rate: Of Adam at the start; it falls to 0 along a cosine.
      steps: The number of weight updates.
      all_labels_steps: The same where all reviews have labels.
      batch_size: Labeled reviews in a step; with a graph as many without labels.
      dimensions: Of the embeddings that the graph is built from.
      candidates: How many reviews, the most similar, a review is joined with.
      neighbors: How many of these it meets in a step.
      multiplier: Factor of the graph term.
      objective: Of the graph term.
      sharpening_temperature: The smaller, the surer is what a review is to learn from
        neighbors.
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
    """Makes batches that are half labeled, with neighbors drawn anew each time."""
    rest = np.setdiff1d(np.arange(len(task.labels)), rows)
    # Labeled reviews are few, and come again until they are half of all.
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
    """Trains on the labels of the reviews in `rows` and, if wanted, on the graph."""
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
    # A mean over the labeled reviews of a batch, not over all.
    loss = keras.losses.BinaryCrossentropy(reduction="mean_with_sample_weight")
    trained.compile(keras.optimizers.Adam(rate), loss)
    trained.fit(data, steps_per_epoch=settings.steps, shuffle=False, verbose=0)
    return model


def accuracy(model: keras.Model, task: Task) -> float:
    praised = model.predict(task.new_tokens, batch_size=1000, verbose=0)[:, 0] > 0.5
    return 100 * float(np.mean(praised == task.new_labels))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "imdb", "one seed on made-up reviews, in seconds")
    add = parser.add_argument
    add("--data", type=Path, help="folder of the reviews, such as aclImdb")
    add(
        "--validate",
        action="store_true",
        help="hold out a fifth of the training reviews instead of reading the test's",
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
            "no network",
            {title: mean_and_spread(found) for title, found in embeddings.items()},
        ),
    )
    equal = imdb_data.homophily(task.graph, task.labels)
    table += (
        f"\nplain with all {len(task.labels):,} labels: {mean_and_spread(all_labels)}"
        f" ({len(all_labels)} of the seeds)"
        f"\ngraph: {task.graph.num_edges // len(task.labels)} edges a review, "
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
    print(f"{table}\n\npicture: {picture}")


if __name__ == "__main__":
    main()
