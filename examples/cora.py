"""Classifies papers by their words, with few labels and the citations between papers.

A network that reads the words of one paper learns from the labels alone, and with
`nsl.keras.few_labels` from labels and citations. Its predictions need no graph.

    python examples/cora.py --data=cora.npz
    python examples/cora.py --quick

--quick makes up a graph. An .npz file (NumPy) of one citation graph holds the arrays
  features_data, features_indices, features_indptr, features_shape
      words of each paper, compressed sparse rows of shape [papers, words]
  labels     [papers], integers from 0; -1 where unknown
  edges      [citations, 2], rows of papers; one direction is enough
  train_idx, val_idx, test_idx
      rows of the papers to learn from, to choose settings with and to test on
Cora, CiteSeer and PubMed (Yang et al., 2016) are at
https://github.com/kimiyoung/planetoid: `allx` and `tx` are words, `graph` has edges;
the first 20 papers a class train, the next 500 validate, those in `test.index` test.
"""

import argparse
import dataclasses
from pathlib import Path

import keras
import numpy as np
from keras import layers
from scipy import sparse

import nsl
from nsl.keras import few_labels

NAMES = ("labels alone", "labels and graph")


@dataclasses.dataclass(frozen=True, eq=False)
class CitationGraph:
    """Papers, what they say and whom they cite, and rows of papers to use."""

    name: str
    words: np.ndarray  # float32 `[papers, words]`, each row of length 1
    labels: np.ndarray  # `[papers]`, -1 where unknown
    edges: np.ndarray  # `[citations, 2]`
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.labels.max()) + 1


def load(path: Path) -> CitationGraph:
    """Reads a file in the format above."""
    file = np.load(path)
    parts = [f"features_{part}" for part in ("data", "indices", "indptr", "shape")]
    names = ["labels", "edges", "train_idx", "val_idx", "test_idx"]
    missing = [name for name in parts + names if name not in file]
    if missing:
        raise ValueError(f"{path} has no arrays {missing}; see --help.")
    *rows, shape = (file[part] for part in parts)
    words = sparse.csr_matrix(tuple(rows), shape).toarray().astype(np.float32)
    words /= np.maximum(np.linalg.norm(words, axis=1, keepdims=True), 1e-6)
    return CitationGraph(path.stem, words, *(file[name] for name in names))


def make_up(seed: int = 0, papers: int = 600) -> CitationGraph:
    """Makes up a graph of four subjects: a contextual stochastic block model."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, papers, p=np.arange(1, 5) / 10)
    sources, targets = rng.integers(papers, size=(2, 4 * papers))
    kept = np.flatnonzero((labels[sources] == labels[targets]) & (sources != targets))
    others = rng.integers(papers, size=(2, papers // 3))
    edges = np.concatenate([[sources[kept], targets[kept]], others], axis=1)
    words = np.zeros((papers, 300), np.float32)
    for row, label in enumerate(labels):
        words[row, rng.integers(300, size=11)] = 1
        words[row, 75 * label + rng.integers(75, size=5)] = 1
    order = rng.permutation(papers)
    train = np.concatenate([order[labels[order] == label][:5] for label in range(4)])
    parts = train, *np.split(np.setdiff1d(order, train), [150])
    return CitationGraph("made-up", words / 4, labels, edges.T, *parts)


def make_model(words: int, classes: int, dropout: float) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((words,), name="words"),
            layers.Dense(64, activation="relu", name="embedding"),
            layers.Dropout(dropout),
            layers.Dense(classes, activation="softmax"),
        ]
    )


def train(
    graph: CitationGraph, seed: int, with_citations: bool, steps: int | None = None
) -> keras.Model:
    """Trains on the labeled papers, and optionally on the citations."""
    keras.utils.set_random_seed(seed)
    # The dropout of the plain network is the best of three for the validation papers of
    # Cora. What the other needs follows from each graph, by the rules of the library.
    dropout = 0.5 if with_citations else 0.8
    model = make_model(graph.words.shape[1], graph.classes, dropout)
    if with_citations:
        papers = np.arange(len(graph.labels))
        return few_labels.fit(
            model,
            nsl.data.Graph(tuple(graph.edges.T), ids=papers, undirected=True),
            graph.words,
            graph.labels,
            sample_weight=np.isin(papers, graph.train),
            validation=np.isin(papers, graph.validation),
            settings=few_labels.Settings(steps=steps),
            seed=seed,
        )
    batches = -(-len(graph.train) // 1000)
    rate = keras.optimizers.schedules.CosineDecay(0.01, 100)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    words, labels = graph.words[graph.train], graph.labels[graph.train]
    model.fit(words, labels, batch_size=1000, epochs=-(-100 // batches), verbose=0)
    return model


def accuracy(model: keras.Model, graph: CitationGraph, rows: np.ndarray) -> float:
    """Returns the share of papers that the network classifies rightly, in percent."""
    answers = model.predict(graph.words[rows], batch_size=1000, verbose=0)
    return 100 * float(np.mean(answers.argmax(axis=1) == graph.labels[rows]))


def main(arguments: list[str] | None = None) -> None:
    lines = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(description=__doc__, **lines)
    parser.add_argument("--data", type=Path, help="an .npz file of a citation graph")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a made-up graph")
    options = parser.parse_args(arguments)
    if options.data is None and not options.quick:
        parser.error(f"--data is missing (or --quick).\n{__doc__}")
    graph = make_up() if options.quick else load(options.data)
    for name, citations in zip(NAMES, (False, True), strict=True):
        model = train(graph, options.seed, citations, 40 if options.quick else None)
        right = accuracy(model, graph, graph.test)
        print(f"{graph.name}, {len(graph.train)} labels, {name}: {right:.1f}% right")


if __name__ == "__main__":
    main()
