"""Measures build_graph against the bare half of the similarity matrix's product.

Examples:
  python benchmarks/build_graph.py                   # 50,000 x 100, exact
  python benchmarks/build_graph.py --job=large_lsh   # 800,000 x 200, by hashing
  python benchmarks/build_graph.py --job=large       # the same, exact: half an hour
  python benchmarks/build_graph.py --job=million --data=mild   # by inverted lists
"""

import argparse
import tempfile
import time
from pathlib import Path

import measured_job
import numpy as np

from nsl.tools import example_wire, tfrecord

_JOBS = {
    "small": {"nodes": 50_000, "dimensions": 100, "similarity_threshold": 0.9},
    "medium": {"nodes": 200_000, "dimensions": 200, "similarity_threshold": 0.95},
    "large": {"nodes": 800_000, "dimensions": 200, "similarity_threshold": 0.95},
    "large_lsh": {
        "nodes": 800_000,
        "dimensions": 200,
        "similarity_threshold": 0.95,
        "lsh_splits": 10,
        "lsh_rounds": 12,
        "random_seed": 0,
    },
    "million": {
        "nodes": 1_000_000,
        "dimensions": 128,
        "similarity_threshold": -1.0,
        "num_neighbors": 15,
        "index": "auto",
        "random_seed": 0,
    },
    "small_nearest": {
        "nodes": 50_000,
        "dimensions": 100,
        "similarity_threshold": 0.0,
        "num_neighbors": 10,
    },
}
_KINDS = {
    "groups": "groups of four, at similarities from about 0.85 to 1",
    "mild": "clusters of a hundred",
    "clusters": "20 large clusters",
    "duplicates": "each vector ten times",
    "noise": "no structure",
}
_GROUP = 4
_ROWS, _COLUMNS = 512, 2048
_MEGABYTE = 1e6


def make_vectors(nodes: int, dimensions: int, kind: str) -> np.ndarray:
    """Makes vectors of one of `_KINDS`."""
    random = np.random.default_rng(0)
    if kind in ("mild", "clusters"):
        count, noise = (nodes // 100, 0.8) if kind == "mild" else (20, 0.5)
        centers = random.standard_normal((count, dimensions), np.float32)
        vectors = np.float32(noise) * random.standard_normal(
            (nodes, dimensions), np.float32
        )
        vectors += centers[random.integers(count, size=nodes)]
        return vectors
    if kind == "duplicates":
        vectors = make_vectors(nodes // 10, dimensions, "groups")
        return vectors[random.integers(len(vectors), size=nodes)]
    vectors = random.standard_normal((nodes, dimensions), np.float32)
    if kind == "noise":
        return vectors
    centers = vectors[::_GROUP]
    for member in range(1, _GROUP):
        rows = vectors[member::_GROUP]
        noise = random.uniform(0, 0.5, (len(rows), 1)).astype(np.float32)
        rows *= noise
        rows += centers[: len(rows)]
    return vectors


def write_embeddings(path: Path, vectors: np.ndarray) -> None:
    """Writes a TFRecord file of examples with an id and an embedding."""
    length = 4 * vectors.shape[1]
    head = b"\x0a" + example_wire.varint(length)
    head = b"\x12" + example_wire.varint(len(head) + length) + head
    head = b"\x12" + example_wire.varint(len(head) + length) + head
    with path.open("wb") as file:
        for number, vector in enumerate(vectors):
            node = b"node%06d" % number
            id_list = b"\x0a" + example_wire.varint(len(node)) + node
            feature = b"\x0a" + example_wire.varint(len(id_list)) + id_list
            rest = b"\x12" + example_wire.varint(len(feature)) + feature
            entries = (
                example_wire.entry(b"id", rest),
                example_wire.entry(b"embedding", head + vector.tobytes()),
            )
            file.write(tfrecord.frame(example_wire.add_entries(b"", entries)))


def bare_product(vectors: np.ndarray, share: float) -> float:
    """Returns the seconds of the half matrix product, measured on a share of it."""
    out = np.empty((_ROWS, _COLUMNS), np.float32)
    random = np.random.default_rng(0)
    measured = total = 0
    start = time.perf_counter()
    for column in range(0, len(vectors), _COLUMNS):
        columns = vectors[column : column + _COLUMNS].T
        for row in range(column, len(vectors), _ROWS):
            rows = vectors[row : row + _ROWS]
            size = len(rows) * columns.shape[1]
            total += size
            if share < 1 and random.random() >= share:
                continue
            measured += size
            np.matmul(rows, columns, out=out[: len(rows), : columns.shape[1]])
    return (time.perf_counter() - start) * total / measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", default="small", choices=sorted(_JOBS))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--nodes", type=int, help="another number of nodes")
    kinds = "; ".join(f"{name}: {text}" for name, text in _KINDS.items())
    parser.add_argument("--data", default="groups", choices=_KINDS, help=kinds)
    flags = parser.parse_args()
    arguments = dict(_JOBS[flags.job])
    nodes = flags.nodes or arguments["nodes"]
    del arguments["nodes"]
    dimensions = arguments.pop("dimensions")
    vectors = make_vectors(nodes, dimensions, flags.data)
    print(f"{nodes:,} x {dimensions}, {flags.data}, {arguments}")
    with tempfile.TemporaryDirectory() as name:
        embeddings, graph = Path(name, "embeddings.tfr"), Path(name, "graph.tsv")
        write_embeddings(embeddings, vectors)
        for _ in range(flags.runs):
            job = measured_job.run(
                "build_graph",
                embedding_files=str(embeddings),
                output_graph_path=str(graph),
                **arguments,
            )
            read, written = embeddings.stat().st_size, graph.stat().st_size
            beyond = job["bytes_above_import"] - vectors.nbytes
            line = (
                f"{job['seconds']:.2f} s ({job['cpu_seconds']:.2f} s of CPU), "
                f"{job['report']['edges']:,} edges; "
                f"reads {read / job['seconds'] / _MEGABYTE:.0f} MB/s, "
                f"writes {written / job['seconds'] / _MEGABYTE:.1f} MB/s; "
                f"peak {beyond / _MEGABYTE:.0f} MB above import and the embeddings' "
                f"own {vectors.nbytes / _MEGABYTE:.0f} MB"
            )
            recall = job["report"].get("estimated_recall")
            if recall is None:
                share = min(1.0, (100_000 / nodes) ** 2)
                bare = bare_product(vectors, share)
                line += f"; {job['seconds'] / bare:.2f} times the product ({bare:.2f} s"
                line += f", from {share:.0%} of it)" if share < 1 else ")"
            else:
                line += f"; estimated recall {recall:.4f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
