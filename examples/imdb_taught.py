"""Judging film reviews with few labels: a network that a model of embeddings teaches.

Where embeddings tell the classes apart by themselves, a plain model on them beats a
network that only learns from the labels (examples/imdb.py). Here it teaches one, in
three steps that use the training reviews and nothing else:

1. Latent semantic analysis of words and pairs of words embeds all reviews, without any
   label.
2. A logistic regression on the first coordinates learns from the labels. Where these
   are few, a second one, on all coordinates, learns from the half of the reviews of
   which the first is the surest.
3. A network that reads words, the mean of their vectors, learns what the teacher says
   of every review, and the labels there are. It alone answers.

    python examples/imdb_taught.py --data=aclImdb
    python examples/imdb_taught.py --data=aclImdb --validate --seeds=1
    python examples/imdb_taught.py --quick

With --adversarial, the network is trained on adversarial neighbors at its embedding
layer, too. An interrupted program goes on where it was.
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
    """What may be chosen; it was, on training reviews held out (--validate).

    Attributes:
      vocabulary: How many words the network knows.
      tokens: How many words of a review it reads, the first ones.
      width: Numbers a word.
      dropout: Share of the mean of word vectors that is left out in a step.
      learning_rate: Of Adam at the start; it falls to 0 along a cosine.
      epochs: Over all reviews, those without a label too.
      batch_size: Reviews in a step.
      dimensions: Of the embeddings.
      first_dimensions: Those that a first teacher looks at, of few labels.
      few: Up to how many labels there is a first teacher.
      weight: How much the label of a review counts beside what the teacher says of it.
      multiplier: Factor of the adversarial loss.
      step_size: Of the adversarial neighbor of a review, in standard deviations of the
        word vectors; with --adversarial.
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
    """What a network and a teacher know of reviews.

    Attributes:
      tokens: int32 `[reviews, tokens]`.
      embeddings: `[reviews, dimensions]`, rows of norm 1.
      labels: `[reviews]`.
    """

    tokens: np.ndarray
    embeddings: np.ndarray
    labels: np.ndarray


def read(train: Reviews, new: Reviews, settings: Settings) -> tuple[Words, Words]:
    """Makes words and embeddings of reviews, found with those for training alone."""
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
    """Fits a model of the embeddings to the labels of the reviews in `rows`."""
    labels = words.labels[rows]
    teacher = LogisticRegression(C=10.0, max_iter=1000)
    if len(rows) > settings.few:
        return teacher.fit(words.embeddings[rows], labels)
    first = normalize(words.embeddings[:, : settings.first_dimensions])
    praise = teacher.fit(first[rows], labels).predict_proba(first)[:, 1]
    # Half of the reviews praise.
    praise -= np.median(praise)
    surest = np.argsort(-np.abs(praise))[: len(praise) // 2]
    second = LogisticRegression(C=1.0, max_iter=1000)
    return second.fit(
        words.embeddings[np.concatenate([surest, rows])],
        np.concatenate([praise[surest] > 0, labels]).astype(int),
        np.concatenate([np.ones(len(surest)), np.full(len(rows), 5.0)]),
    )


def train(
    words: Words, rows: np.ndarray, answers: np.ndarray, settings: Settings, seed: int
) -> keras.Model:
    """Trains a network to give these answers to the reviews in `rows`."""
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
    # As many steps, however many reviews there are.
    steps = settings.epochs * -(-len(words.labels) // settings.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    epochs = -(-steps // -(-len(rows) // settings.batch_size))
    model.fit(
        words.tokens[rows],
        answers[:, None].astype("float32"),
        batch_size=settings.batch_size,
        epochs=epochs,
        verbose=0,
    )
    return base_model


def accuracy(model: keras.Model, words: Words) -> float:
    logits = model.predict(words.tokens, batch_size=1000, verbose=0)[:, 0]
    return 100 * float(np.mean((logits > 0) == words.labels))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "imdb_taught", "one seed on made-up reviews")
    add = parser.add_argument
    add("--data", type=Path, help="folder of the reviews, such as aclImdb")
    add("--validate", action="store_true", help="hold out training reviews to test on")
    add("--adversarial", action="store_true", help="with adversarial neighbors")
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
            answers = teacher.predict_proba(words.embeddings)[:, 1]
            told = settings.weight * words.labels[rows]
            answers[rows] = (1 - settings.weight) * answers[rows] + told
            alone = train(words, rows, words.labels[rows], settings, seed)
            taught = train(words, every, answers, settings, seed)
            found[title] = (
                accuracy(alone, new_words),
                100 * teacher.score(new_words.embeddings, new_words.labels),
                accuracy(taught, new_words),
            )
        return found

    name = "imdb_taught_validation" if options.validate else "imdb_taught"
    path = options.output_dir / f"{name}.json"
    figures = over_seeds(measure, options.seeds, path, settings, progress)
    part = "held-out" if options.validate else "test"
    columns = ("labels alone", "teacher", "taught")
    table = format_table(figures, f"{part} accuracy in %", columns=columns)
    (options.output_dir / f"{name}.txt").write_text(f"{table}\n")
    print(table)


if __name__ == "__main__":
    main()
