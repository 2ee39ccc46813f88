"""Film reviews with few labels: distillation from a model of embeddings.

If embeddings separate the classes, a linear model on them beats a network that is
trained only on the labels (graph.py). Here it becomes the teacher of a network:

1. Latent semantic analysis of words and word pairs embeds all reviews, without labels.
2. A logistic regression on the first coordinates is trained on the labels. If labels
   are few, a second one, on all coordinates, is trained on the predictions of the first
   for the half of the reviews where it is most confident.
3. A network on the mean of the embeddings of words and word pairs is trained on the
   teacher's predictions for all reviews, and on the available labels. Only the network
   makes predictions.

    python examples/imdb/distill.py --data=aclImdb
    python examples/imdb/distill.py --quick

With --adversarial, the network is also trained on adversarial neighbors at its
embedding layer. Settings were chosen on held-out training reviews.
"""

from typing import NamedTuple

import keras
import numpy as np
from keras import layers
from reviews import Reviews, draw_labeled, embed, print_table, read_options, tokenize
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

import nsl

WORDS, BATCH_SIZE = 60_000, 64


class Task(NamedTuple):
    """Tokens and embeddings of training and of new reviews, and their labels."""

    tokens: np.ndarray
    new_tokens: np.ndarray
    embeddings: np.ndarray
    new_embeddings: np.ndarray
    labels: np.ndarray
    new_labels: np.ndarray


def make_task(train: Reviews, new: Reviews, quick: bool) -> Task:
    tokens = tokenize(train, new, WORDS, 52 if quick else 800, pairs=True)
    embeddings = embed(train, new, 32 if quick else 128, pairs=True)
    return Task(*tokens, *embeddings, train[1], new[1])  # type: ignore[call-arg]


def teach(
    embeddings: np.ndarray, labels: np.ndarray, rows: np.ndarray
) -> LogisticRegression:
    """Trains the teacher on the labels of the reviews in `rows`."""
    teacher = LogisticRegression(C=10.0, max_iter=1000)
    if len(rows) > 1000:
        return teacher.fit(embeddings[rows], labels[rows])
    first = normalize(embeddings[:, :16])
    praise = teacher.fit(first[rows], labels[rows]).predict_proba(first)[:, 1]
    praise -= np.median(praise)  # Half of the reviews are positive.
    surest = np.argsort(-np.abs(praise))[: len(praise) // 2]
    second = LogisticRegression(C=1.0, max_iter=1000)
    return second.fit(
        embeddings[np.concatenate([surest, rows])],
        np.concatenate([praise[surest] > 0, labels[rows]]).astype(int),
        np.concatenate([np.ones(len(surest)), np.full(len(rows), 5.0)]),
    )


def train(
    task: Task,
    rows: np.ndarray,
    targets: np.ndarray,
    *,
    epochs: int,
    rate: float,
    seed: int,
    adversarial: bool,
) -> keras.Model:
    """Trains a network on targets for some rows, in steps for `epochs` over all."""
    keras.utils.set_random_seed(seed)
    model = trained = keras.Sequential(
        [
            keras.Input(task.tokens.shape[1:], dtype="int32", name="tokens"),
            layers.Embedding(WORDS, 64, mask_zero=True, name="embedding"),
            layers.GlobalAveragePooling1D(),
            layers.Dropout(0.3),
            layers.Dense(1),
        ]
    )
    if adversarial:
        config = nsl.configs.make_adv_reg_config(
            multiplier=1.0,
            adv_step_size=5.0,
            embedding_layer="embedding",
            standardize_layers=True,
        )
        trained = nsl.keras.AdversarialRegularization(model, config)
    # The number of steps does not depend on the number of rows.
    steps = epochs * -(-len(task.labels) // BATCH_SIZE)
    epochs = -(-steps // -(-len(rows) // BATCH_SIZE))
    rate = keras.optimizers.schedules.CosineDecay(rate, steps)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    trained.compile(keras.optimizers.Adam(rate), loss)
    x, y = task.tokens[rows], targets[rows, None].astype("float32")
    trained.fit(x, y, batch_size=BATCH_SIZE, epochs=epochs, verbose=0)
    return model


def accuracy(model: keras.Model, task: Task) -> float:
    logits = model.predict(task.new_tokens, batch_size=1000, verbose=0)[:, 0]
    return 100 * float(np.mean((logits > 0) == task.new_labels))


def compare(
    task: Task, seed: int, adversarial: bool = False, quick: bool = False
) -> dict[str, list[float]]:
    """Returns the accuracies of a network, the teacher and its student, by row."""
    every, rows = np.arange(len(task.labels)), {}
    epochs, rate = (12, 0.02) if quick else (5, 0.002)
    options = {"epochs": epochs, "rate": rate, "seed": seed, "adversarial": adversarial}
    for share in (0.04,) if quick else (0.01, 0.1, 1.0):
        count = 2 * round(share * len(every) / 2)
        known = draw_labeled(task.labels, count, seed) if share < 1 else every
        teacher = teach(task.embeddings, task.labels, known)
        targets = teacher.predict_proba(task.embeddings)[:, 1]
        targets[known] = 0.2 * targets[known] + 0.8 * task.labels[known]
        alone = train(task, known, task.labels, **options)
        distilled = train(task, every, targets, **options)
        rows[f"{count:,} labels"] = [
            accuracy(alone, task),
            100 * teacher.score(task.new_embeddings, task.new_labels),
            accuracy(distilled, task),
        ]
    return rows


def main(arguments: list[str] | None = None) -> None:
    options, reviews, new = read_options(__doc__, arguments, "--adversarial")
    task = make_task(reviews, new, options.quick)
    modes = options.adversarial, options.quick
    runs = [compare(task, seed, *modes) for seed in range(options.seeds)]
    print_table(runs, ["labels alone", "teacher", "distilled"])


if __name__ == "__main__":
    main()
