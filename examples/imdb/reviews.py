"""The film reviews of Maas et al. (2011), and what the programs beside make of them."""

import argparse
import gzip
import json
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_files
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

SOURCE = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz (84 MB)"
Reviews = tuple[list[str], np.ndarray]  # Texts, and labels: 1 for positive reviews


def load(folder: Path, part: str) -> Reviews:
    """Reads reviews from aclImdb, or lines {"text": ..., "label": ...} if there are."""
    lines = folder / f"imdb_{part}.jsonl.gz"
    if lines.exists():
        with gzip.open(lines, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        texts, labels = [r["text"] for r in rows], np.array([r["label"] for r in rows])
    elif (folder / part).exists():
        kinds = {"categories": ["neg", "pos"], "encoding": "utf-8", "shuffle": False}
        found = load_files(folder / part, **kinds)
        texts, labels = found.data, found.target
    else:
        raise FileNotFoundError(f"No reviews for {part} in {folder}. Unpack {SOURCE}.")
    return [text.replace("<br />", " ") for text in texts], labels


def make_up(seed: int, count: int = 600) -> Reviews:
    """Makes synthetic reviews of common words and a few class-specific words."""
    rng = np.random.default_rng(seed)
    texts, labels = [], rng.permutation(np.arange(count) % 2)
    for label in labels:
        common = [f"word{i}" for i in rng.integers(200, size=20)]
        telling = [f"{('bad', 'good')[label]}{i}" for i in rng.integers(60, size=6)]
        texts.append(" ".join(rng.permutation(common + telling)))
    return texts, labels


def draw_labeled(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draws the rows of labeled reviews, the same number for each class."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(labels == label) for label in (0, 1)]
    return np.concatenate([rng.permutation(some)[: count // 2] for some in rows])


def tokenize(
    train: Reviews, new: Reviews, words: int, length: int, pairs: bool = False
) -> list[np.ndarray]:
    """Returns the words, and then their pairs, as int32 `[reviews, length]`."""
    split = keras.layers.TextVectorization(
        words, ngrams=2 if pairs else None, output_sequence_length=length
    )
    split.adapt(train[0])
    return [split(texts).numpy().astype("int32") for texts, _ in (train, new)]


def embed(
    train: Reviews, new: Reviews, dimensions: int, pairs: bool = False
) -> list[np.ndarray]:
    """Embeds both by their words (and pairs of them), as rows of norm 1.

    Latent semantic analysis (Deerwester et al., 1990,
    https://doi.org/10.1002/(SICI)1097-4571(199009)41:6<391::AID-ASI1>3.0.CO;2-9): a
    truncated SVD of the TF-IDF matrix. It needs no labels.
    """
    tfidf = TfidfVectorizer(
        min_df=20,
        max_df=0.5,
        sublinear_tf=True,
        ngram_range=(1, 2 if pairs else 1),
        dtype=np.float32,
    )
    svd = TruncatedSVD(dimensions, n_iter=3, random_state=0)
    vectors = svd.fit_transform(tfidf.fit_transform(train[0]))
    return [normalize(vectors), normalize(svd.transform(tfidf.transform(new[0])))]


def read_options(
    description: str, arguments: list[str] | None, *flags: str
) -> tuple[argparse.Namespace, Reviews, Reviews]:
    """Returns the options of a program, and the reviews to train and to test with."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--data", type=Path, help=f"folder of {SOURCE}, unpacked")
    parser.add_argument("--seeds", type=int, default=5, choices=range(1, 21))
    parser.add_argument("--quick", action="store_true", help="synthetic reviews")
    for flag in flags:
        parser.add_argument(flag, action="store_true")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seeds = 1
        return options, make_up(0), make_up(1)
    if options.data is None:
        parser.error(f"--data is missing (or --quick). Unpack {SOURCE}.")
    return options, load(options.data, "train"), load(options.data, "test")


def print_table(runs: list[dict[str, list[float]]], columns: list[str]) -> None:
    """Prints mean and standard deviation over seeds."""
    print(f"{'test accuracy in %':20}", *(f"{name:>15}" for name in columns))
    for row in runs[0]:
        sides = zip(*(run[row] for run in runs if row in run), strict=True)
        print(f"{row:20}", *(f"{np.mean(s):9.1f} ± {np.std(s):3.1f}" for s in sides))
