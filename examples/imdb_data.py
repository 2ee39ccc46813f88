"""The reviews of examples/imdb.py, their embeddings and their graph."""

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
Unpack that file and pass the folder aclImdb. A folder with imdb_train.jsonl.gz and
imdb_test.jsonl.gz works too; each line is {"text": the review, "label": 0 or 1}."""


@dataclasses.dataclass(frozen=True, eq=False)
class Reviews:
    """Reviews with their labels.

    Attributes:
      texts: The texts.
      labels: `[reviews]`, 1 for positive and 0 for negative reviews.
    """

    texts: Sequence[str]
    labels: np.ndarray

    def take(self, rows: np.ndarray) -> "Reviews":
        """Returns the reviews in these rows."""
        return Reviews([self.texts[row] for row in rows], self.labels[rows])


def load(folder: Path) -> tuple[Reviews, Reviews]:
    """Reads the training and the test reviews.

    Raises:
      FileNotFoundError: If there are no reviews; the message says where to get them.
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
    """Splits off a fifth of the reviews for validation."""
    order = np.random.default_rng(0).permutation(len(reviews.labels))
    held_out = len(order) // 5
    return reviews.take(order[held_out:]), reviews.take(order[:held_out])


def make_up(seed: int = 0, reviews: int = 600) -> tuple[Reviews, Reviews]:
    """Makes synthetic reviews of common words and a few class-specific words."""
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
    """Embeds texts by their words, without labels.

    Latent semantic analysis (Deerwester et al., 1990,
    https://doi.org/10.1002/(SICI)1097-4571(199009)41:6<391::AID-ASI1>3.0.CO;2-9): a
    truncated SVD of the TF-IDF matrix.

    Args:
      texts: The texts that define the vocabulary and the singular vectors.
      new_texts: Other texts to embed in the same space.
      dimensions: The number of singular values.
      pairs: Whether to use word pairs in addition to words.

    Returns:
      The embeddings of both, float32 arrays `[texts, dimensions]` with rows of norm 1.
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
    """Connects each text to those with the most similar embeddings."""
    # For vectors of norm 1, Euclidean and cosine neighbors agree, and the former are
    # faster to find.
    nearest = kneighbors_graph(embeddings, neighbors, include_self=False)
    return nsl.data.Graph(nearest, undirected=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """Training reviews with their graph, and new reviews to classify.

    Attributes:
      tokens: int32 `[reviews, tokens]`.
      labels: `[reviews]`.
      embeddings: `[reviews, dimensions]`.
      graph: The graph of similar reviews.
      new_tokens: The tokens of the new reviews.
      new_labels: The labels of the new reviews.
      new_embeddings: The embeddings of the new reviews.
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
    """Tokenizes and embeds reviews, and builds the graph.

    Args:
      train: The training reviews.
      new: The reviews to classify.
      vocabulary: The size of the vocabulary.
      tokens: The number of words to keep, from the start of a review.
      dimensions: The dimension of the embeddings.
      candidates: The number of most similar reviews that become a review's neighbors.
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
    """Draws the rows of labeled reviews, the same number for each class."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(labels == label) for label in (0, 1)]
    return np.concatenate([rng.permutation(some)[: count // 2] for some in rows])


def accuracy_of_embeddings(task: Task, rows: np.ndarray) -> float:
    """Returns the accuracy of a logistic regression on the embeddings, in percent."""
    regression = LogisticRegression(C=10.0, max_iter=1000)
    regression.fit(task.embeddings[rows], task.labels[rows])
    return 100 * float(regression.score(task.new_embeddings, task.new_labels))


def homophily(graph: nsl.data.Graph, labels: np.ndarray) -> float:
    """Returns the share of edges that connect equal labels."""
    return float(np.mean(labels[graph.sources] == labels[graph.targets]))
