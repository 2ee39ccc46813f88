"""Reviews for examples/imdb.py: where they come from, and what is made of them."""

import dataclasses
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import kneighbors_graph
from sklearn.preprocessing import normalize

import nsl

WHERE = """\
The reviews of Maas et al. (2011) are at
  https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz (84 MB).
Unpack that file and give the folder aclImdb. A folder with imdb_train.jsonl.gz and
imdb_test.jsonl.gz will do too: a line holds {"text": the review, "label": 0 or 1}."""


@dataclasses.dataclass(frozen=True, eq=False)
class Reviews:
    """Some reviews.

    Attributes:
      texts: What they say.
      labels: `[reviews]`, 1 if they praise, 0 if they do not.
    """

    texts: Sequence[str]
    labels: np.ndarray

    def take(self, rows: np.ndarray) -> "Reviews":
        """Returns some of them."""
        return Reviews([self.texts[row] for row in rows], self.labels[rows])


def load(folder: Path) -> tuple[Reviews, Reviews]:
    """Reads the reviews for training and those for the test.

    Raises:
      FileNotFoundError: If they are not there; says where they can be had.
    """
    return _load(folder, "train"), _load(folder, "test")


def _load(folder: Path, part: str) -> Reviews:
    lines = folder / f"imdb_{part}.jsonl.gz"
    if lines.exists():
        with gzip.open(lines, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        found = [(row["text"], row["label"]) for row in rows]
    else:
        found = [
            (path.read_text(encoding="utf-8"), label)
            for label, name in enumerate(("neg", "pos"))
            for path in sorted((folder / part / name).glob("*.txt"))
        ]
    if not found:
        raise FileNotFoundError(f"No reviews for {part} in {folder}.\n\n{WHERE}")
    texts, labels = zip(*found, strict=True)
    return Reviews([text.replace("<br />", " ") for text in texts], np.array(labels))


def hold_out(reviews: Reviews) -> tuple[Reviews, Reviews]:
    """Takes a fifth of the reviews away, to choose settings with."""
    order = np.random.default_rng(0).permutation(len(reviews.labels))
    held_out = len(order) // 5
    return reviews.take(order[held_out:]), reviews.take(order[:held_out])


def make_up(seed: int = 0, reviews: int = 600) -> tuple[Reviews, Reviews]:
    """Makes up reviews: common words, and some of many that only one class has."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(2 * reviews) % 2)
    common = [f"word{i}" for i in range(200)]
    telling = [[f"{name}{i}" for i in range(60)] for name in ("bad", "good")]
    texts = [
        " ".join(
            rng.permutation([*rng.choice(common, 20), *rng.choice(telling[label], 6)])
        )
        for label in labels
    ]
    every = Reviews(texts, labels)
    rows = np.arange(2 * reviews)
    return every.take(rows[:reviews]), every.take(rows[reviews:])


def embed(
    texts: Sequence[str],
    new_texts: Sequence[str],
    dimensions: int,
    pairs: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Embeds texts by the words they hold, without any label.

    Latent semantic analysis (Deerwester et al., 1990,
    https://doi.org/10.1002/(SICI)1097-4571(199009)41:6<391::AID-ASI1>3.0.CO;2-9): words
    count the more the rarer they are, and of the matrix of texts and words the largest
    singular values stay.

    Args:
      texts: What words and singular vectors are found with.
      new_texts: What is embedded with them too.
      dimensions: How many singular values.
      pairs: Whether pairs of words count like words.

    Returns:
      For both a float32 array `[texts, dimensions]` of rows of norm 1.
    """
    tfidf = TfidfVectorizer(
        min_df=20,
        max_df=0.5,
        sublinear_tf=True,
        ngram_range=(1, 2 if pairs else 1),
        dtype=np.float32,
    )
    svd = TruncatedSVD(dimensions, n_iter=3, random_state=0)
    embeddings = svd.fit_transform(tfidf.fit_transform(texts))
    return normalize(embeddings), normalize(svd.transform(tfidf.transform(new_texts)))


def join_nearest(embeddings: np.ndarray, neighbors: int) -> nsl.data.Graph:
    """Joins each text with those whose embeddings point the most alike."""
    # Between vectors of norm 1 the nearest are the most alike, and found faster.
    nearest = kneighbors_graph(embeddings, neighbors, include_self=False)
    return nsl.data.Graph(nearest, undirected=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """Reviews to learn from and new ones to judge.

    Attributes:
      tokens: int32 `[reviews, tokens]`.
      labels: `[reviews]`.
      embeddings: `[reviews, dimensions]`.
      graph: Which reviews are alike.
      new_tokens: Of the new reviews, as all that follows.
      new_labels: Theirs.
      new_embeddings: Theirs.
    """

    tokens: np.ndarray
    labels: np.ndarray
    embeddings: np.ndarray
    graph: nsl.data.Graph
    new_tokens: np.ndarray
    new_labels: np.ndarray
    new_embeddings: np.ndarray


def make_task(
    train: Reviews,
    new: Reviews,
    *,
    vocabulary: int,
    tokens: int,
    dimensions: int,
    candidates: int,
) -> Task:
    """Makes of reviews what a network and a graph need.

    Args:
      train: To learn from.
      new: To judge.
      vocabulary: How many words are known.
      tokens: How many of a review are read, the first ones.
      dimensions: Of the embeddings.
      candidates: How many reviews, the most similar, a review is joined with.
    """
    vectorization = keras.layers.TextVectorization(
        vocabulary, output_sequence_length=tokens
    )
    vectorization.adapt(train.texts)
    words, new_words = (
        vectorization(reviews.texts).numpy().astype("int32") for reviews in (train, new)
    )
    vectors, new_vectors = embed(train.texts, new.texts, dimensions)
    graph = join_nearest(vectors, candidates)
    return Task(words, train.labels, vectors, graph, new_words, new.labels, new_vectors)


def draw_labeled(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draws the rows of the reviews that have labels, equally many of both classes."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(labels == label) for label in (0, 1)]
    return np.concatenate([rng.permutation(some)[: count // 2] for some in rows])


def accuracy_of_embeddings(task: Task, rows: np.ndarray) -> float:
    """Returns what a logistic regression on the embeddings gets, without a network."""
    regression = LogisticRegression(C=10.0, max_iter=1000)
    regression.fit(task.embeddings[rows], task.labels[rows])
    return 100 * float(regression.score(task.new_embeddings, task.new_labels))


def homophily(graph: nsl.data.Graph, labels: np.ndarray) -> float:
    """Returns the share of edges that join equal labels."""
    sources = np.repeat(np.arange(graph.num_nodes), np.diff(graph.row_splits))
    return float(np.mean(labels[sources] == labels[graph.targets]))
