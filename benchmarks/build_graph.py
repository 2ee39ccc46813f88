"""Measures build_graph against the bare half of the similarity matrix's product.

Examples:
  python benchmarks/build_graph.py                   # 50,000 x 100, exact
  python benchmarks/build_graph.py --job=large_lsh   # 800,000 x 200, by hashing
  python benchmarks/build_graph.py --job=large       # the same, exact: half an hour
  python benchmarks/build_graph.py --job=million --data=mild   # by inverted lists
  python benchmarks/build_graph.py --job=nearest_ivf --reviews imdb_train.jsonl.gz
"""

import argparse
import gzip
import json
import re
import tempfile
import threading
import time
from pathlib import Path

import measured_job
import numpy as np

from nsl.tools import example_wire, tfrecord, workers

_NEAREST = {
    "nodes": 50_000,
    "dimensions": 100,
    "similarity_threshold": 0.0,
    "num_neighbors": 10,
}
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
    "nearest_exact": {**_NEAREST},
    "nearest_lsh": {**_NEAREST, "lsh_splits": 7, "lsh_rounds": 12, "random_seed": 0},
    "nearest_ivf": {**_NEAREST, "index": "ivf", "random_seed": 0},
}
KINDS = {
    "groups": "groups of four, at similarities from about 0.85 to 1",
    "mild": "clusters of a hundred",
    "clusters": "20 large clusters",
    "duplicates": "each vector ten times",
    "noise": "no structure",
    "reviews": "sentences of the film reviews of --reviews: words, weighted by their "
    "rarity, in the largest singular directions",
}
_GROUP = 4
_ROWS, _COLUMNS = 512, 2048
_MEGABYTE = 1e6


def make_vectors(
    nodes: int, dimensions: int, kind: str, reviews: list[str] | None = None
) -> np.ndarray:
    """Makes vectors of one of `KINDS`."""
    random = np.random.default_rng(0)
    if kind == "reviews":
        return _sentence_vectors(reviews or [], nodes, dimensions)
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


def _sentence_vectors(paths: list[str], nodes: int, dimensions: int) -> np.ndarray:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    sentences: list[str] = []
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                sentences += re.split(r"[.!?]+ |<br />", json.loads(line)["text"])
    sentences = [text for text in sentences if len(text.split()) > 4][:nodes]
    words = TfidfVectorizer(min_df=5, sublinear_tf=True, dtype=np.float32)
    matrix = words.fit_transform(sentences)
    svd = TruncatedSVD(dimensions, n_iter=2, random_state=0)
    return np.ascontiguousarray(svd.fit_transform(matrix), np.float32)


def add_reviews(parser: argparse.ArgumentParser) -> None:
    """Adds the flag that says where the film reviews are."""
    parser.add_argument(
        "--reviews",
        nargs="+",
        help="gzipped lines of JSON with a text each, for --data=reviews: those of "
        "https://ai.stanford.edu/~amaas/data/sentiment/",
    )


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


def bare_product(vectors: np.ndarray, share: float) -> tuple[float, float]:
    """Returns the seconds of the half matrix product, measured on a share of it.

    Blocks are multiplied in as many threads as build_graph has.

    Returns:
      Seconds, and seconds of CPU time.
    """
    random = np.random.default_rng(0)
    buffers = threading.local()
    blocks = [
        (column, row)
        for column in range(0, len(vectors), _COLUMNS)
        for row in range(column, len(vectors), _ROWS)
    ]
    chosen = [block for block in blocks if share == 1 or random.random() < share]

    def size(block: tuple[int, int]) -> int:
        column, row = block
        height = min(_ROWS, len(vectors) - row)
        return height * min(_COLUMNS, len(vectors) - column)

    def multiply(block: tuple[int, int]) -> None:
        if not hasattr(buffers, "out"):
            buffers.out = np.empty((_ROWS, _COLUMNS), np.float32)
        columns = vectors[block[0] : block[0] + _COLUMNS].T
        rows = vectors[block[1] : block[1] + _ROWS]
        np.matmul(rows, columns, out=buffers.out[: len(rows), : columns.shape[1]])

    with workers.one_per_core() as cores:
        start, cpu_start = time.perf_counter(), time.process_time()
        for _ in workers.in_order(multiply, chosen, cores):
            pass
        seconds = time.perf_counter() - start
        cpu_seconds = time.process_time() - cpu_start
    scale = sum(map(size, blocks)) / sum(map(size, chosen))
    return seconds * scale, cpu_seconds * scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", default="small", choices=sorted(_JOBS))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--nodes", type=int, help="another number of nodes")
    kinds = "; ".join(f"{name}: {text}" for name, text in KINDS.items())
    parser.add_argument("--data", default="groups", choices=KINDS, help=kinds)
    add_reviews(parser)
    flags = parser.parse_args()
    arguments = dict(_JOBS[flags.job])
    nodes = flags.nodes or arguments["nodes"]
    del arguments["nodes"]
    dimensions = arguments.pop("dimensions")
    vectors = make_vectors(nodes, dimensions, flags.data, flags.reviews)
    nodes = len(vectors)
    print(f"{nodes:,} x {dimensions}, {flags.data}, {arguments}")
    with tempfile.TemporaryDirectory() as name:
        embeddings, graph = Path(name, "embeddings.tfr"), Path(name, "graph.tsv")
        write_embeddings(embeddings, vectors)
        ratios = []
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
                bare, bare_cpu = bare_product(vectors, share)
                ratios.append(job["cpu_seconds"] / bare_cpu)
                line += (
                    f"; {job['seconds'] / bare:.2f} times the product ({bare:.2f} s), "
                    f"{ratios[-1]:.2f} times its CPU time ({bare_cpu:.2f} s)"
                )
                line += f", from {share:.0%} of it" if share < 1 else ""
            else:
                line += f"; estimated recall {recall:.4f}"
            print(line, flush=True)
        if ratios:
            print(
                f"CPU time: best {min(ratios):.2f}, median {np.median(ratios):.2f} "
                "times the product's"
            )


if __name__ == "__main__":
    main()
