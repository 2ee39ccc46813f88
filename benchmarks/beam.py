"""Compares the tools on Apache Beam's direct runner with the tools without Beam.

Prints the run times, and whether the outputs are equal. This measures Beam's cost per
record on one machine, not on a cluster.

Examples:
  python benchmarks/beam.py
  python benchmarks/beam.py --scale=0.1 --runner=FnApiRunner
  python benchmarks/beam.py --job=build_graph --nodes=20000
"""

import argparse
import hashlib
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import build_graph as graph_job
import numpy as np
import pack_nbrs as pack_job

import nsl.beam
from nsl.files.edge_files import EdgeFile
from nsl.tools import tfrecord

_NEIGHBORS = 5
_SHARDS = 4


def timed(job: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], float, float]:
    """Runs a job; returns its result, wall time and CPU time in seconds."""

    def cpu() -> float:
        usages = map(
            resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    start, cpu_start = time.perf_counter(), cpu()
    report = job()
    return report, time.perf_counter() - start, cpu() - cpu_start


def records(paths: Sequence[Path]) -> list[bytes]:
    """Returns a digest of each record of some files, sorted."""
    return sorted(
        hashlib.blake2b(data, digest_size=16).digest()
        for path in paths
        for _, data in tfrecord.RecordFile(str(path)).records()
    )


def lines(paths: Sequence[Path]) -> list[tuple[bytes, bytes, float]]:
    """Returns the edges of some files, sorted."""
    return sorted(
        edge
        for path in paths
        for sources, targets, weights in EdgeFile(str(path))
        for edge in zip(sources, targets, weights.tolist(), strict=True)
    )


def split(path: Path, shards: int) -> str:
    """Splits a text file into shards by lines, and returns their pattern."""
    text = path.read_bytes().splitlines(keepends=True)
    for shard in range(shards):
        path.with_name(f"{path.name}-{shard}").write_bytes(
            b"".join(text[shard::shards])
        )
    return f"{path}-*"


def compare(
    name: str,
    elements: int,
    local: Callable[[Path], dict[str, Any]],
    on_beam: Callable[[Path], dict[str, Any]],
    read: Callable[[Sequence[Path]], list[Any]],
    folder: Path,
) -> None:
    _, seconds, cpu = timed(lambda: local(folder / "local"))
    print(f"{name}, without Beam: {seconds:.1f} s ({cpu:.1f} s of CPU)", flush=True)
    report, beam_seconds, beam_cpu = timed(lambda: on_beam(folder / "beam"))
    equal = read([folder / "local"]) == read(sorted(folder.glob("beam-*-of-*")))
    print(
        f"{name}, Beam: {beam_seconds:.1f} s ({beam_cpu:.1f} s of CPU), "
        f"{beam_seconds / seconds:.0f} times as long ({beam_cpu / cpu:.0f} times the "
        f"CPU time), {beam_cpu / elements * 1e6:.0f} us of CPU per element; outputs "
        f"{'are equal' if equal else 'DIFFER'}\n  {report}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--job", default="pack_nbrs", choices=["pack_nbrs", "build_graph"]
    )
    parser.add_argument(
        "--scale", type=float, default=1, help="in units of 1,000,000 edges"
    )
    parser.add_argument("--nodes", type=int, default=50_000)
    flags, options = parser.parse_known_args()
    options = options or [
        "--direct_running_mode=multi_processing",
        f"--direct_num_workers={os.cpu_count()}",
    ]
    print(" ".join(options))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if flags.job == "pack_nbrs":
            for constant in ("_EXAMPLES", "_LABELED", "_EDGES"):
                size = int(getattr(pack_job, constant) * flags.scale)
                setattr(pack_job, constant, size)
            pack_job.write_inputs(folder, 1)
            arguments: dict[str, Any] = {
                "labeled_examples_path": folder / "labeled.tfr",
                "unlabeled_examples_path": folder / "unlabeled.tfr",
                "add_undirected_edges": True,
                "max_nbrs": _NEIGHBORS,
            }
            shards = split(folder / "graph.tsv", _SHARDS)
            compare(
                f"pack_nbrs, {pack_job._EDGES:,} edges",
                pack_job._EDGES,
                lambda path: nsl.tools.pack_nbrs(
                    graph_path=folder / "graph.tsv",
                    output_training_data_path=path,
                    **arguments,
                ),
                lambda path: nsl.beam.pack_nbrs(
                    graph_path=shards,
                    output_training_data_path=path,
                    num_shards=_SHARDS,
                    pipeline_options=options,
                    **arguments,
                ),
                records,
                folder,
            )
            return
        vectors = graph_job.make_vectors(flags.nodes, 100, "groups")
        graph_job.write_embeddings(folder / "embeddings.tfr", vectors)
        splits = max(int(np.log2(flags.nodes / 500)), 1)
        for title, search in (
            ("all pairs", {}),
            (
                f"{splits} splits, 4 rounds",
                {"lsh_splits": splits, "lsh_rounds": 4, "random_seed": 0},
            ),
        ):
            for old in folder.glob("beam-*"):
                old.unlink()
            compare(
                f"build_graph, {flags.nodes:,} x 100, {title}",
                flags.nodes,
                lambda path, search=search: nsl.tools.build_graph(
                    folder / "embeddings.tfr", path, 0.9, **search
                ),
                lambda path, search=search: nsl.beam.build_graph(
                    folder / "embeddings.tfr",
                    path,
                    0.9,
                    num_shards=_SHARDS,
                    pipeline_options=options,
                    **search,
                ),
                lines,
                folder,
            )


if __name__ == "__main__":
    main()
