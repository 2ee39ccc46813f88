"""Classifies film reviews with few labels: distillation from a model of embeddings.

If embeddings separate the classes, a linear model on them beats a network that is
trained only on the labels (examples/imdb.py). Here the linear model becomes the teacher
of a network, in three steps that use only the training reviews:

1. Latent semantic analysis of words and word pairs embeds all reviews, without labels.
2. A logistic regression on the first coordinates is trained on the labels. If labels
   are few, a second one, on all coordinates, is trained on the predictions of the first
   for the half of the reviews where it is most confident.
3. A network on the mean of the word embeddings is trained on the teacher's predictions
   for all reviews, and on the available labels. Only the network makes predictions.

    python examples/imdb_taught.py --data=aclImdb
    python examples/imdb_taught.py --data=aclImdb --validate --seeds=1
    python examples/imdb_taught.py --quick

With --adversarial, the network is also trained on adversarial neighbors at its
embedding layer. An interrupted program resumes.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import imdb_data
import keras
import numpy as np
from imdb_data import Reviews, draw_labeled
from progress import Progress
from seeds import Figures, format_table, make_parser, over_seeds
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

import nsl


@dataclasses.dataclass(frozen=True)
class Settings:
    """The hyperparameters, chosen on held-out training reviews (--validate).

    Attributes:
      vocabulary: The size of the vocabulary.
      tokens: The number of words that the network reads, from the start of a review.
      width: The dimension of word embeddings.
      dropout: The dropout rate of the mean word embedding.
      learning_rate: The initial learning rate of Adam, with cosine decay to 0.
      epochs: The number of epochs over all reviews, labeled or not.
      batch_size: The number of reviews per step.
      dimensions: The dimension of the review embeddings.
      first_dimensions: The number of coordinates that the first teacher uses.
      few: The largest number of labels for which there is a first teacher.
      weight: The weight of a label relative to the teacher's prediction, up to 1.
      multiplier: The factor of the adversarial loss.
      step_size: The step size of adversarial neighbors with --adversarial, in standard
        deviations of the word embeddings.
    """

    vocabulary: int = 20_000
    tokens: int = 400
    width: int = 64
    dropout: float = 0.3
    learning_rate: float = 0.002
    epochs: int = 5
    batch_size: int = 64
    dimensions: int = 128
    first_dimensions: int = 16
    few: int = 1000
    weight: float = 0.5
    multiplier: float = 0.0
    step_size: float = 5.0


QUICK = Settings(
    vocabulary=400, tokens=26, learning_rate=0.02, epochs=12, dimensions=32
)
SHARES, QUICK_SHARES = (0.01, 0.1, 1.0), (0.04,)


@dataclasses.dataclass(frozen=True, eq=False)
class Words:
    """Reviews as inputs of the network and of the teacher.

    Attributes:
      tokens: int32 `[reviews, tokens]`.
      embeddings: `[reviews, dimensions]`, rows of norm 1.
      labels: `[reviews]`.
    """

    tokens: np.ndarray
    embeddings: np.ndarray
    labels: np.ndarray


def read(train: Reviews, new: Reviews, settings: Settings) -> tuple[Words, Words]:
    """Tokenizes and embeds reviews, fitted on the training reviews only."""
    vectorization = keras.layers.TextVectorization(
        settings.vocabulary, output_sequence_length=settings.tokens
    )
    vectorization.adapt(train.texts)
    embeddings = imdb_data.embed(
        train.texts, new.texts, settings.dimensions, pairs=True
    )
    both = zip((train, new), embeddings, strict=True)
    ours, theirs = (
        Words(vectorization(part.texts).numpy().astype("int32"), vectors, part.labels)
        for part, vectors in both
    )
    return ours, theirs


def teach(words: Words, rows: np.ndarray, settings: Settings) -> LogisticRegression:
    """Trains the teacher on the labels of the reviews in `rows`."""
    labels = words.labels[rows]
    teacher = LogisticRegression(C=10.0, max_iter=1000)
    if len(rows) > settings.few:
        return teacher.fit(words.embeddings[rows], labels)
    first = normalize(words.embeddings[:, : settings.first_dimensions])
    praise = teacher.fit(first[rows], labels).predict_proba(first)[:, 1]
    # Half of the reviews are positive.
    praise -= np.median(praise)
    surest = np.argsort(-np.abs(praise))[: len(praise) // 2]
    second = LogisticRegression(C=1.0, max_iter=1000)
    return second.fit(
        words.embeddings[np.concatenate([surest, rows])],
        np.concatenate([praise[surest] > 0, labels]).astype(int),
        np.concatenate([np.ones(len(surest)), np.full(len(rows), 5.0)]),
    )


def train(
    words: Words, rows: np.ndarray, targets: np.ndarray, settings: Settings, seed: int
) -> keras.Model:
    """Trains a network on these targets for the reviews in `rows`."""
    keras.utils.set_random_seed(seed)
    base_model = model = keras.Sequential(
        [
            keras.Input((settings.tokens,), dtype="int32", name="tokens"),
            keras.layers.Embedding(
                settings.vocabulary, settings.width, mask_zero=True, name="embedding"
            ),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dropout(settings.dropout),
            keras.layers.Dense(1),
        ]
    )
    if settings.multiplier:
        adv_config = nsl.configs.make_adv_reg_config(
            multiplier=settings.multiplier,
            adv_step_size=settings.step_size,
            embedding_layer="embedding",
            standardize_layers=True,
        )
        model = nsl.keras.AdversarialRegularization(base_model, adv_config)
    # The number of steps does not depend on the number of rows.
    steps = settings.epochs * -(-len(words.labels) // settings.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    epochs = -(-steps // -(-len(rows) // settings.batch_size))
    model.fit(
        words.tokens[rows],
        targets[:, None].astype("float32"),
        batch_size=settings.batch_size,
        epochs=epochs,
        verbose=0,
    )
    return base_model


def accuracy(model: keras.Model, words: Words) -> float:
    logits = model.predict(words.tokens, batch_size=1000, verbose=0)[:, 0]
    return 100 * float(np.mean((logits > 0) == words.labels))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "imdb_taught", "one seed on synthetic reviews")
    add = parser.add_argument
    add("--data", type=Path, help="folder with the reviews, such as aclImdb")
    add("--validate", action="store_true", help="evaluate on held-out training reviews")
    add("--adversarial", action="store_true", help="use adversarial neighbors")
    options = parser.parse_args(arguments)
    if options.data is None and not options.quick:
        parser.error(f"--data is missing (or --quick).\n\n{imdb_data.WHERE}")
    progress = Progress()
    progress.part("words")
    settings, shares = (QUICK, QUICK_SHARES) if options.quick else (Settings(), SHARES)
    if options.adversarial:
        settings = dataclasses.replace(settings, multiplier=1.0)
    reviews, new = (
        imdb_data.make_up() if options.quick else imdb_data.load(options.data)
    )
    if options.validate:
        reviews, new = imdb_data.hold_out(reviews)
    words, new_words = read(reviews, new, settings)
    every = np.arange(len(words.labels))

    def measure(seed: int) -> Figures:
        found: Figures = {}
        for share in shares:
            count = 2 * round(share * len(every) / 2)
            title = f"{count:,} labels"
            progress.step(title)
            rows = draw_labeled(words.labels, count, seed) if share < 1 else every
            teacher = teach(words, rows, settings)
            targets = teacher.predict_proba(words.embeddings)[:, 1]
            given = settings.weight * words.labels[rows]
            targets[rows] = (1 - settings.weight) * targets[rows] + given
            alone = train(words, rows, words.labels[rows], settings, seed)
            distilled = train(words, every, targets, settings, seed)
            found[title] = (
                accuracy(alone, new_words),
                100 * teacher.score(new_words.embeddings, new_words.labels),
                accuracy(distilled, new_words),
            )
        return found

    name = "imdb_taught_validation" if options.validate else "imdb_taught"
    path = options.output_dir / f"{name}.json"
    figures = over_seeds(measure, options.seeds, path, settings, progress)
    part = "held-out" if options.validate else "test"
    columns = ("labels alone", "teacher", "distilled")
    table = format_table(figures, f"{part} accuracy in %", columns=columns)
    (options.output_dir / f"{name}.txt").write_text(f"{table}\n")
    print(table)


if __name__ == "__main__":
    main()
