"""Citation graphs for examples/cora.py: a file format, splits, a made-up graph."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

FORMAT = """\
An .npz file (NumPy) of one citation graph holds these arrays:
  features_data, features_indices, features_indptr, features_shape
      words of each paper, compressed sparse rows of shape [papers, words]
  labels     [papers], integers from 0; -1 where unknown
  edges      [citations, 2], rows of papers; one direction is enough
  train_idx, val_idx, test_idx
      rows of the papers to learn from, to choose settings with and to test on
Cora, CiteSeer and PubMed with these splits (Yang et al., 2016, "Planetoid") are at
https://github.com/kimiyoung/planetoid, folder data: the rows of `allx` and `tx` are
the words, `graph` the edges; the first 20 papers a class train, the next 500 validate,
those in `test.index` test."""

_ARRAYS = (
    "features_data",
    "features_indices",
    "features_indptr",
    "features_shape",
    "labels",
    "edges",
    "train_idx",
    "val_idx",
    "test_idx",
)


@dataclasses.dataclass(frozen=True)
class Split:
    """Rows of papers to learn from, to choose settings with, and to test on."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class CitationGraph:
    """Papers, what they say and whom they cite.

    Attributes:
      name: What the file is called.
      words: float32 `[papers, words]`, each row of length 1.
      labels: `[papers]`, -1 where unknown.
      edges: `[citations, 2]`.
      public: The split of the file.
    """

    name: str
    words: np.ndarray
    labels: np.ndarray
    edges: np.ndarray
    public: Split

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.labels.max()) + 1


def load(path: Path) -> CitationGraph:
    """Reads a file in the format above."""
    with np.load(path) as file:
        missing = [name for name in _ARRAYS if name not in file]
        if missing:
            raise ValueError(f"{path} has no arrays {missing}.\n{FORMAT}")
        arrays = {name: file[name] for name in _ARRAYS}
    words = np.zeros(arrays["features_shape"], np.float32)
    rows = np.repeat(np.arange(len(words)), np.diff(arrays["features_indptr"]))
    words[rows, arrays["features_indices"]] = arrays["features_data"]
    words /= np.maximum(np.linalg.norm(words, axis=1, keepdims=True), 1e-6)
    return CitationGraph(
        path.stem,
        words,
        arrays["labels"].astype(np.int64),
        arrays["edges"],
        Split(arrays["train_idx"], arrays["val_idx"], arrays["test_idx"]),
    )


def random_split(graph: CitationGraph, seed: int) -> Split:
    """Draws 80% of the papers to learn from and leaves 20% to test on."""
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(graph.labels >= 0))
    train, test = np.split(rows, [round(0.8 * len(rows))])
    return Split(train, test[:0], test)


def few_labels(graph: CitationGraph, per_class: int, seed: int) -> Split:
    """Draws papers of each class that neither validate nor test in the file's split.

    Of a class with fewer papers than asked for, all are taken.
    """
    rng = np.random.default_rng(seed)
    free = np.ones(len(graph.labels), bool)
    free[graph.public.validation] = free[graph.public.test] = False
    chosen = []
    for label in range(graph.classes):
        rows = np.flatnonzero(free & (graph.labels == label))
        chosen.append(rng.permutation(rows)[:per_class])
    return dataclasses.replace(graph.public, train=np.concatenate(chosen))


def usual_splits(graph: CitationGraph, seed: int) -> dict[str, Split]:
    """Returns the split of the file and a random one of 80/20, by what they are."""
    return {
        f"{graph.name}, {len(split.train)} labels": split
        for split in (graph.public, random_split(graph, seed))
    }


def few_labels_splits(
    graph: CitationGraph, counts: Sequence[int], seed: int
) -> dict[str, Split]:
    """Draws a split for each number of labels a class, by what they are."""
    return {
        f"{count} labels a class": few_labels(graph, count, seed) for count in counts
    }


def choose_unseen(graph: CitationGraph, seed: int) -> np.ndarray:
    """Draws a fifth of the test papers, which training is to know nothing of.

    Zhang et al. (2022, https://arxiv.org/abs/2110.08727) measure so what a network
    makes of new samples.
    """
    test = np.random.default_rng(seed).permutation(graph.public.test)
    return np.sort(test[: len(test) // 5])


def leave_out(graph: CitationGraph, papers: np.ndarray) -> tuple[CitationGraph, Split]:
    """Takes papers out of a graph, with their words, labels and citations.

    Returns:
      The graph of the others, and its split: that of the file in the new rows.
    """
    rows = np.setdiff1d(np.arange(len(graph.labels)), papers)
    places = np.full(len(graph.labels), -1)
    places[rows] = np.arange(len(rows))
    edges = places[graph.edges]
    parts = (
        places[part[~np.isin(part, papers)]]
        for part in (graph.public.train, graph.public.validation, graph.public.test)
    )
    split = Split(*parts)
    rest = CitationGraph(
        graph.name,
        graph.words[rows],
        graph.labels[rows],
        edges[(edges >= 0).all(axis=1)],
        split,
    )
    return rest, split


def synthesize(
    path: Path,
    papers: int = 600,
    words: int = 300,
    classes: int = 4,
    citations: float = 4.0,
    homophily: float = 0.8,
    topical: float = 0.35,
    words_per_paper: int = 16,
    labels_per_class: int = 5,
    seed: int = 0,
) -> None:
    """Writes a made-up citation graph, a contextual stochastic block model.

    Args:
      path: The file.
      papers: How many papers there are. One in fifty cites none and is cited by none.
      words: Size of the vocabulary.
      classes: How many subjects there are. The most frequent one has three times as
        many papers as the rarest.
      citations: The mean number of neighbors of a paper.
      homophily: The share of citations within a class; 1 / classes is no help.
      topical: The share of a paper's words that come from its subject's own part of
        the vocabulary, the others come from all of it.
      words_per_paper: How many words are drawn for a paper, some of them repeatedly.
      labels_per_class: How many labels the training split has in each class.
      seed: Of all chance.
    """
    rng = np.random.default_rng(seed)
    shares = np.linspace(1, 3, classes)
    labels = rng.choice(classes, papers, p=shares / shares.sum())
    by_class = [np.flatnonzero(labels == label) for label in range(classes)]
    linked = rng.random(papers) > 0.02
    source = rng.choice(np.flatnonzero(linked), round(papers * citations / 2))
    within = rng.random(len(source)) < homophily
    other = (labels[source] + rng.integers(1, classes, len(source))) % classes
    target_class = np.where(within, labels[source], other)
    target = np.array([rng.choice(by_class[label]) for label in target_class])
    kept = linked[target] & (source != target)

    own = words // classes
    indices, indptr = [], [0]
    for label in labels:
        topic = label * own + rng.integers(own, size=words_per_paper)
        drawn = rng.integers(words, size=words_per_paper)
        drawn = np.where(rng.random(words_per_paper) < topical, topic, drawn)
        indices.append(np.unique(drawn))
        indptr.append(indptr[-1] + len(indices[-1]))
    order = rng.permutation(papers)
    train = np.concatenate(
        [order[labels[order] == c][:labels_per_class] for c in range(classes)]
    )
    rest = np.setdiff1d(order, train, assume_unique=True)
    test, validation = np.split(rest, [len(rest) // 2])
    np.savez_compressed(
        path,
        features_data=np.ones(indptr[-1], np.float32),
        features_indices=np.concatenate(indices),
        features_indptr=np.array(indptr),
        features_shape=np.array([papers, words]),
        labels=labels,
        edges=np.stack([source[kept], target[kept]], axis=1),
        train_idx=train,
        val_idx=validation[: min(500, papers // 4)],
        test_idx=test,
    )
