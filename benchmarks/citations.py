"""Splits of citation graphs, with which examples/cora.py is compared.

Papers that a network is to know nothing of are left out of the graph, and it answers
them afterwards: so Zhang et al. (2022, https://arxiv.org/abs/2110.08727) measure what a
network makes of new samples.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import cora
from cora import CitationGraph

Figures = dict[str, list[float]]


def random_split(graph: CitationGraph, seed: int) -> CitationGraph:
    """Draws 80% of the papers to learn from and leaves 20% to test on."""
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(graph.labels >= 0))
    train, test = np.split(rows, [round(0.8 * len(rows))])
    return replace(graph, train=train, validation=test[:0], test=test)


def few_labels(graph: CitationGraph, per_class: int, seed: int) -> CitationGraph:
    """Draws papers of each class that neither validate nor test.

    Of a class with fewer papers than asked for, all are taken.
    """
    rng = np.random.default_rng(seed)
    free = np.ones(len(graph.labels), bool)
    free[graph.validation] = free[graph.test] = False
    kinds = [np.flatnonzero(free & (graph.labels == i)) for i in range(graph.classes)]
    rows = [rng.permutation(kind)[:per_class] for kind in kinds]
    return replace(graph, train=np.concatenate(rows))


def choose_unseen(graph: CitationGraph, seed: int) -> np.ndarray:
    """Draws a fifth of the test papers."""
    test = np.random.default_rng(seed).permutation(graph.test)
    return np.sort(test[: len(test) // 5])


def leave_out(graph: CitationGraph, papers: np.ndarray) -> CitationGraph:
    """Takes papers out of a graph, with their words, labels and citations."""
    rows = np.setdiff1d(np.arange(len(graph.labels)), papers)
    places = np.full(len(graph.labels), -1)
    places[rows] = np.arange(len(rows))
    edges = places[graph.edges]
    parts = (
        places[part[~np.isin(part, papers)]]
        for part in (graph.train, graph.validation, graph.test)
    )
    words, edges = graph.words[rows], edges[(edges >= 0).all(axis=1)]
    return CitationGraph(graph.name, words, graph.labels[rows], edges, *parts)


def compare(graph: CitationGraph, seed: int) -> list[float]:
    """Returns the test accuracies of both networks."""
    models = (cora.train(graph, seed, citations) for citations in (False, True))
    return [cora.accuracy(model, graph, graph.test) for model in models]


def compare_unseen(graph: CitationGraph, seed: int) -> Figures:
    """Trains without a fifth of the test papers, and tests on both kinds."""
    unseen = choose_unseen(graph, seed)
    known = leave_out(graph, unseen)
    models = [cora.train(known, seed, citations) for citations in (False, True)]
    seen = np.setdiff1d(graph.test, unseen)
    return {
        f"{graph.name}, {kind} papers": [cora.accuracy(m, graph, rows) for m in models]
        for kind, rows in (("seen", seen), ("unseen", unseen))
    }


def compare_splits(graph: CitationGraph, seed: int) -> Figures:
    """Compares on the split of the file, on a random one, and on unseen papers."""
    splits = (graph, random_split(graph, seed))
    rows = {f"{graph.name}, {len(g.train)} labels": compare(g, seed) for g in splits}
    return rows | compare_unseen(graph, seed)


def compare_counts(graph: CitationGraph, seed: int) -> Figures:
    """Compares with these numbers of labels."""
    return {
        f"{count} labels a class": compare(few_labels(graph, count, seed), seed)
        for count in (5, 10, 20, 50, 100)
    }
