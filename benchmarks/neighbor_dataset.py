"""Iterates over batches with neighbors, against a bare NumPy gather of the same bytes.

Usage: python benchmarks/neighbor_dataset.py [--nodes 200000] [--rounds 7]

One process times whole epochs, round after round: a loop in NumPy that copies the
features of each sample and of its neighbors out of the same array, and each kind of
sampling, consumed by a compiled loop, as in `fit`, and by a loop in Python.
"""

import argparse
import os
import time
from collections.abc import Callable

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

import nsl
import nsl.data

LIMIT = 1.5


def gather(x: np.ndarray, rows: np.ndarray) -> None:
    """Copies features, batch by batch.

    Args:
      x: Features of shape [nodes, d].
      rows: The nodes of each batch, of shape [batches, 1 + neighbors, batch].
    """
    for batch in rows:
        _ = [x[part] for part in batch]


def compiled_loop(dataset: tf.data.Dataset, batches: int) -> Callable[[], None]:
    @tf.function
    def consume(iterator: tf.data.Iterator) -> None:
        for _ in tf.range(batches):  # type: ignore[attr-defined]
            next(iterator)

    return lambda: consume(iter(dataset))


def python_loop(dataset: tf.data.Dataset) -> Callable[[], None]:
    def consume() -> None:
        for _ in dataset:
            pass

    return consume


def seconds(job: Callable[[], None]) -> tuple[float, float]:
    """Returns seconds on the clock and of CPU time."""
    start, cpu_start = time.perf_counter(), time.process_time()
    job()
    return time.perf_counter() - start, time.process_time() - cpu_start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=200_000)
    parser.add_argument("--dimensions", type=int, default=128)
    parser.add_argument("--degree", type=int, default=10)
    parser.add_argument("--neighbors", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    flags = parser.parse_args()
    nodes, batches = flags.nodes, flags.nodes // flags.batch_size
    rng = np.random.default_rng(0)
    x = rng.random((nodes, flags.dimensions), np.float32)
    half = nodes * flags.degree // 2
    edges = (*rng.integers(0, nodes, (2, half)), rng.random(half))
    graph = nsl.data.Graph(edges, ids=range(nodes), undirected=True)
    rows = rng.integers(0, nodes, (batches, 1 + flags.neighbors, flags.batch_size))
    config = nsl.configs.GraphNeighborConfig(max_neighbors=flags.neighbors)
    jobs = {"bare": lambda: gather(x, rows)}
    for sampling in nsl.data.Sampling:
        dataset = nsl.data.neighbor_dataset(
            graph,
            x,
            np.arange(nodes) % 10,
            neighbor_config=config,
            batch_size=flags.batch_size,
            sampling=sampling,
            drop_remainder=True,
            seed=0,
        )
        jobs[f"{sampling.value}, compiled loop"] = compiled_loop(dataset, batches)
        jobs[f"{sampling.value}, Python loop"] = python_loop(dataset)
    for job in jobs.values():  # Traces, and fills caches.
        job()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    for _ in range(flags.rounds):
        for name, job in jobs.items():
            times[name].append(seconds(job))
    bare = np.array(times.pop("bare"))
    print(
        f"{graph}, {flags.dimensions} numbers a node, {flags.neighbors} neighbors, "
        f"batches of {flags.batch_size}; {flags.rounds} rounds of {batches} batches\n"
        f"Bare gather: {bare[:, 0].min() / batches * 1e3:.2f} ms a batch at best, "
        f"{np.median(bare[:, 0]) / batches * 1e3:.2f} at the median\n"
        f"Times the bare gather on the clock (limit {LIMIT}), and in CPU time:"
    )
    for name, pairs in times.items():
        found = np.array(pairs)
        best = found.min(axis=0) / bare.min(axis=0)
        median = np.median(found, axis=0) / np.median(bare, axis=0)
        print(
            f"  {name:24} best {best[0]:.2f}, median {median[0]:.2f}; "
            f"CPU best {best[1]:.2f}, median {median[1]:.2f}"
        )


if __name__ == "__main__":
    main()
