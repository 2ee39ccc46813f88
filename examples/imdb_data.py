"""Reviews for examples/imdb.py: where they come from, and which are alike."""

import dataclasses
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
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
    texts: Sequence[str], new_texts: Sequence[str], dimensions: int
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

    Returns:
      For both a float32 array `[texts, dimensions]` of rows of norm 1.
    """
    tfidf = TfidfVectorizer(min_df=20, max_df=0.5, sublinear_tf=True, dtype=np.float32)
    svd = TruncatedSVD(dimensions, n_iter=3, random_state=0)
    embeddings = svd.fit_transform(tfidf.fit_transform(texts))
    return normalize(embeddings), normalize(svd.transform(tfidf.transform(new_texts)))


def join_nearest(embeddings: np.ndarray, neighbors: int) -> nsl.data.Graph:
    """Joins each text with those whose embeddings point the most alike."""
    # Between vectors of norm 1 the nearest are the most alike, and found faster.
    nearest = kneighbors_graph(embeddings, neighbors, include_self=False)
    return nsl.data.Graph(nearest, undirected=True)


def homophily(graph: nsl.data.Graph, labels: np.ndarray) -> float:
    """Returns the share of edges that join equal labels."""
    sources = np.repeat(np.arange(graph.num_nodes), np.diff(graph.row_splits))
    return float(np.mean(labels[sources] == labels[graph.targets]))
