"""Trains from few labels on a large made-up graph: time and memory against limits.

Usage: python benchmarks/few_labels.py [--nodes 200000] [--edges 2000000] [--words 1000]

The graph has ten classes, 20 labels each. Four of five edges join nodes of one class,
and 3 of the 15 words that a node has come from those of its class.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from scipy import sparse

import nsl
from nsl.keras import few_labels

SECONDS, BYTES = 15 * 60, 2 << 30
CLASSES, LABELS, WORDS_A_NODE, OF_CLASS = 10, 20, 15, 3


def peak() -> int:
    """Returns the largest memory of this process so far, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError("/proc/self/status has no VmHWM")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=200_000)
    parser.add_argument("--edges", type=int, default=2_000_000)
    parser.add_argument("--words", type=int, default=1_000)
    options = parser.parse_args()
    nodes, words = options.nodes, options.words
    rng = np.random.default_rng(0)
    labels = np.arange(nodes) % CLASSES  # Node i + CLASSES has the class of node i.
    sources = rng.integers(0, nodes, options.edges, np.int32)
    within = rng.random(options.edges) < 0.8
    same = sources % CLASSES + CLASSES * rng.integers(0, nodes // CLASSES, len(sources))
    targets = np.where(within, same, rng.integers(0, nodes, len(sources)))
    columns = rng.integers(0, words, (nodes, WORDS_A_NODE))
    own = rng.integers(0, words // CLASSES, (nodes, OF_CLASS))
    columns[:, :OF_CLASS] = own * CLASSES + labels[:, np.newaxis]
    ones = np.ones(columns.size, np.float32)
    rows = np.repeat(np.arange(nodes), WORDS_A_NODE)
    x = sparse.csr_matrix((ones, (rows, columns.ravel())), (nodes, words))
    x.data[:] = 1

    start, cpu_start = time.perf_counter(), time.process_time()
    graph = nsl.data.Graph((sources, targets), ids=range(nodes), undirected=True)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((words,)),
            keras.layers.Dense(128, "relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(CLASSES, "softmax"),
        ]
    )
    validation = np.arange(nodes) >= nodes - 500
    few_labels.fit(
        model,
        graph,
        x,
        labels,
        sample_weight=np.arange(nodes) < LABELS * CLASSES,
        validation=validation,
        seed=0,
    )
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    test = slice(nodes // 2, nodes // 2 + 10_000)
    answers = model.predict(x[test].toarray(), verbose=0).argmax(axis=1)
    print(
        f"{nodes} nodes, {graph.num_edges} edges, {x.nnz} words\n"
        f"  {seconds:.0f} s ({cpu:.0f} s CPU), {seconds / SECONDS:.2f} of {SECONDS} s\n"
        f"  {peak() / 2**20:.0f} MB at most, {peak() / BYTES:.2f} of {BYTES >> 20} MB\n"
        f"  {np.mean(answers == labels[test]):.1%} right without the graph"
    )


if __name__ == "__main__":
    main()
