"""Loads a large graph, and compares its time and memory per edge with their limits.

Usage: python benchmarks/load_graph.py [--edges 10000000] [--nodes 1000000]
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import nsl
import nsl.data

SECONDS = 60
BYTES_AN_EDGE = 20


def memory(field: str) -> int:
    """Returns a field of this process's status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {field}")


def report(name: str, load: Callable[[], nsl.data.Graph]) -> None:
    # A separate process, because memory freed by an earlier load would be reused.
    process = multiprocessing.get_context("fork").Process(
        target=load_and_print, args=(name, load)
    )
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def load_and_print(name: str, load: Callable[[], nsl.data.Graph]) -> None:
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    start, cpu_start = time.perf_counter(), time.process_time()
    graph = load()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    peak = (memory("VmHWM") - before) / graph.num_edges
    held = graph.nbytes / graph.num_edges
    print(
        f"{name}: {graph.num_edges} edges on {graph.num_nodes} nodes\n"
        f"  {seconds:.1f} s ({cpu:.1f} s CPU), {seconds / SECONDS:.2f} of {SECONDS} s\n"
        f"  {held:.1f} bytes per edge, {held / BYTES_AN_EDGE:.2f} of {BYTES_AN_EDGE}"
        f" (peak while loading {peak:.1f}, {peak / BYTES_AN_EDGE:.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edges", type=int, default=10_000_000)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--batches", type=int, default=200)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    sources, targets = (
        rng.integers(0, arguments.nodes, arguments.edges, np.int32) for _ in range(2)
    )
    weights = rng.random(arguments.edges, np.float32)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "graph.tsv"
        with path.open("w") as file:
            for start in range(0, arguments.edges, 1 << 20):
                part = slice(start, start + (1 << 20))
                columns = (a[part].tolist() for a in (sources, targets, weights))
                file.writelines(
                    f"n{source}\tn{target}\t{weight:.6f}\n"
                    for source, target, weight in zip(*columns, strict=True)
                )
        report("TSV file, strings", lambda: nsl.data.Graph(path))

    def from_arrays() -> nsl.data.Graph:
        return nsl.data.Graph(
            (sources, targets, weights), ids=np.arange(arguments.nodes)
        )

    report("Edge arrays", from_arrays)
    graph = from_arrays()
    features = np.zeros((arguments.nodes, 16), np.float32)
    for sampling in nsl.data.Sampling:
        dataset = nsl.data.neighbor_dataset(
            graph,
            features,
            neighbor_config=nsl.configs.GraphNeighborConfig(max_neighbors=5),
            batch_size=256,
            sampling=sampling,
            seed=0,
        )
        batches = iter(dataset)
        next(batches)
        start = time.perf_counter()
        for _ in range(arguments.batches):
            next(batches)
        each = (time.perf_counter() - start) / arguments.batches
        print(f"Batches of 256 with 5 neighbors, {sampling.value}: {each * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
