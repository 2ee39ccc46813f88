"""Measures pack_nbrs against reading its inputs and writing its output as bytes.

Example:
  python benchmarks/pack_nbrs.py --scale=1
  python benchmarks/pack_nbrs.py --scale=10
"""

import argparse
import tempfile
import time
from pathlib import Path

import measured_job
import numpy as np

from nsl.tools import example_wire, tfrecord

_EXAMPLES, _LABELED, _EDGES, _FLOATS, _NEIGHBORS = 100_000, 10_000, 1_000_000, 128, 5
_MEGABYTE = 1e6


def write_inputs(folder: Path, scale: int) -> None:
    """Writes labeled.tfr, unlabeled.tfr and graph.tsv; equal for equal scale."""
    random = np.random.default_rng(0)
    ids = [b"node%07d" % i for i in range(_EXAMPLES * scale)]
    header = example_wire.varint(4 * _FLOATS)
    packed_length = example_wire.varint(len(header) + 1 + 4 * _FLOATS)
    float_list = b"\x12" + packed_length + b"\x0a" + header
    feature = b"\x12" + example_wire.varint(len(float_list) + 4 * _FLOATS) + float_list
    for name, some in (
        ("labeled.tfr", range(_LABELED * scale)),
        ("unlabeled.tfr", range(_LABELED * scale, _EXAMPLES * scale)),
    ):
        with (folder / name).open("wb") as file:
            for i in some:
                floats = random.random(_FLOATS, np.float32).tobytes()
                id_list = b"\x0a" + example_wire.varint(len(ids[i])) + ids[i]
                id_feature = b"\x0a" + example_wire.varint(len(id_list)) + id_list
                entries = (
                    example_wire.entry(
                        b"id",
                        b"\x12" + example_wire.varint(len(id_feature)) + id_feature,
                    ),
                    example_wire.entry(b"words", feature + floats),
                    example_wire.entry(b"label", example_wire.int64_value(i % 10)),
                )
                file.write(tfrecord.frame(example_wire.add_entries(b"", entries)))
    with (folder / "graph.tsv").open("wb") as file:
        for _ in range(scale):
            ends = random.integers(0, len(ids), (_EDGES, 2)).tolist()
            weights = random.random(_EDGES).tolist()
            file.write(
                b"".join(
                    b"%b\t%b\t%.6f\n" % (ids[source], ids[target], weight)
                    for (source, target), weight in zip(ends, weights, strict=True)
                )
            )


def copy_bytes(inputs: list[Path], output: Path, output_bytes: int) -> float:
    """Returns the seconds that reading and writing the same bytes takes."""
    start = time.perf_counter()
    for path in inputs:
        with path.open("rb") as file:
            while file.read(1 << 20):
                pass
    with output.open("wb") as file:
        chunk = bytes(1 << 20)
        for _ in range(output_bytes >> 20):
            file.write(chunk)
        file.write(chunk[: output_bytes & (1 << 20) - 1])
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=int, default=1, help="times the basic job")
    parser.add_argument("--seeds", default="labeled", choices=["labeled", "all"])
    parser.add_argument("--runs", type=int, default=3)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, flags.scale)
        inputs = [folder / n for n in ("labeled.tfr", "unlabeled.tfr", "graph.tsv")]
        read_bytes = sum(path.stat().st_size for path in inputs)
        print(
            f"{_EXAMPLES * flags.scale:,} examples of {_FLOATS} floats "
            f"({_LABELED * flags.scale:,} labeled), {_EDGES * flags.scale:,} edges, "
            f"undirected, {_NEIGHBORS} neighbors, seeds={flags.seeds}"
        )
        for _ in range(flags.runs):
            job = measured_job.run(
                "pack_nbrs",
                labeled_examples_path=str(inputs[0]),
                unlabeled_examples_path=str(inputs[1]),
                graph_path=str(inputs[2]),
                output_training_data_path=str(folder / "packed.tfr"),
                add_undirected_edges=True,
                max_nbrs=_NEIGHBORS,
                seeds=flags.seeds,
            )
            written = job["report"]["output_bytes"]
            plain = copy_bytes(inputs, folder / "plain", written)
            memory = job["bytes_above_import"]
            allowed = scale_limit(flags.scale)
            print(
                f"{job['seconds']:.2f} s ({job['cpu_seconds']:.2f} s of CPU); "
                f"reads {read_bytes / job['seconds'] / _MEGABYTE:.0f} MB/s, "
                f"writes {written / job['seconds'] / _MEGABYTE:.0f} MB/s; "
                f"peak {memory / _MEGABYTE:.0f} MB above import "
                f"({memory / allowed:.2f} of 40 bytes an edge and 200 an example); "
                f"{job['seconds'] / plain:.1f} times the plain bytes ({plain:.2f} s)"
            )


def scale_limit(scale: int) -> int:
    return scale * (40 * _EDGES + 200 * _EXAMPLES)


if __name__ == "__main__":
    main()
