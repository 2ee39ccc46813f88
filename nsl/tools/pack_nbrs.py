"""Packs labeled examples with the features of their neighbors in a graph.

From the shell:
  python -m nsl.tools.pack_nbrs --max_nbrs=5 labeled.tfr unlabeled.tfr graph.tsv out.tfr
"""

import collections
import contextlib
import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags

from nsl.files.edge_files import COUNTED, EdgeFile
from nsl.files.input_files import PathLike, Paths, expand_paths
from nsl.progress import Progress
from nsl.tools import command_line, tfrecord
from nsl.tools.example_index import ExampleIndex
from nsl.tools.job_output import JobOutput
from nsl.tools.neighbor_table import NeighborTable
from nsl.tools.packing import Packer

ARGUMENTS = "labeled.tfr unlabeled.tfr graph.tsv output.tfr"
USAGE = f"""\
Packs labeled examples with the features of their neighbors in a graph.

Usage: pack_nbrs [flags] {ARGUMENTS}

Each input is a file, a glob pattern, or a comma-separated list of these. Files may be
compressed, and local or at any URL that tf.io.gfile opens. unlabeled.tfr may be ''.
Each line of graph.tsv is source<TAB>target[<TAB>weight]; edges may also be in CSV,
Parquet, Arrow or NumPy files."""

_SEEDS = ("labeled", "all")
_RECORDS_PER_REPORT = 64


def pack_nbrs(
    labeled_examples_path: Paths,
    unlabeled_examples_path: Paths,
    graph_path: Paths,
    output_training_data_path: PathLike,
    add_undirected_edges: bool = False,
    max_nbrs: int | None = None,
    id_feature_name: str = "id",
    *,
    seeds: str = "labeled",
    neighbor_features: Sequence[str] | None = None,
    num_shards: int | None = None,
    compression: str | None = None,
    dry_run: bool = False,
    report_path: PathLike | None = None,
) -> dict[str, Any]:
    """Packs labeled examples with the features of their neighbors in a graph.

    Each output record has the features of a labeled example, the number of its
    neighbors as `NL_num_nbrs`, and for the i-th neighbor the edge weight as
    `NL_nbr_<i>_weight` and each feature as `NL_nbr_<i>_<name>`. Neighbors are sorted by
    weight, heaviest first; ties by id, largest first. Duplicate edges are merged and
    keep the largest weight. Self-loops and edges with unknown ids are dropped and
    counted. If an id occurs in both sets of examples, the labeled example is used.

    Args:
      labeled_examples_path: TFRecord files of `tf.train.Example`s: a path, a glob
        pattern or a list of these. Files may be compressed.
      unlabeled_examples_path: TFRecord files of the examples that occur only as
        neighbors. May be empty.
      graph_path: Files of edges: text with lines `source<TAB>target[<TAB>weight]`, or
        with other separators; or Parquet, Arrow or NumPy.
      output_training_data_path: The TFRecord file to write.
      add_undirected_edges: Whether to add the reverse of each edge.
      max_nbrs: The maximum number of neighbors of an example, or None for no limit.
      id_feature_name: The feature that holds an example's id.
      seeds: 'labeled' to write one record for each labeled example; 'all' to write
        records for the unlabeled examples as well, after these.
      neighbor_features: The features of neighbors to copy, or None for all.
      num_shards: The number of shards `<output>-00000-of-0000N` to write instead of a
        single file.
      compression: None or 'gzip'.
      dry_run: Whether to do everything except write, to find out the output's size.
      report_path: A JSON file to write the report to.

    Returns:
      The report: the numbers of examples, records, edges and neighbors, and the size
      of the output in bytes, before compression.

    Raises:
      ImportError: If a file needs pyarrow, which is not installed.
      OSError: If a file cannot be read or written.
      ValueError: If an argument or the content of a file is invalid. No output file is
        left behind.
    """
    check_arguments(max_nbrs, seeds)
    labeled, unlabeled, graphs = map(
        expand_paths,
        (labeled_examples_path, unlabeled_examples_path or (), graph_path),
    )
    output = JobOutput(
        output_training_data_path,
        [*labeled, *unlabeled, *graphs],
        num_shards,
        compression,
        report_path,
    )
    with contextlib.closing(ExampleIndex(id_feature_name)) as index:
        index.add(labeled)
        num_labeled = len(index)
        index.add(unlabeled)
        num_seeds = len(index) if seeds == "all" else num_labeled
        table = NeighborTable(index.ids, num_seeds, max_nbrs, add_undirected_edges)
        lines = collections.Counter(dict.fromkeys(COUNTED, 0))
        for path in graphs:
            file = EdgeFile(path)
            for edges in file:
                table.add(edges)
            lines.update(file.counts)

        records = _Records(index, table, num_seeds, Packer(neighbor_features))
        if dry_run:
            for _ in records:
                pass
        else:
            with output.open() as files:
                numbered = enumerate(records)
                for shard, part in itertools.groupby(
                    numbered, lambda record: record[0] * len(files) // num_seeds
                ):
                    with files[shard] as file:
                        for _, record in part:
                            file.write(record)

        report = {
            "labeled_examples": num_labeled,
            "unlabeled_examples": len(index) - num_labeled,
            "ids_in_both_sets": index.duplicates,
            "edges": table.edges,
            **lines,
            "self_edges": table.self_edges,
            "edges_to_unknown_ids": table.unknown_edges,
            "first_unknown_ids": [node.decode() for node in table.unknown_ids],
            "records": num_seeds,
            "records_by_number_of_neighbors": dict(sorted(records.degrees.items())),
            "output_bytes": records.bytes,
        }
    output.report(report, dry_run)
    return report


def check_arguments(max_nbrs: int | None, seeds: str) -> None:
    """Raises ValueError if an argument of `pack_nbrs` is invalid."""
    if max_nbrs is not None and max_nbrs < 0:
        raise ValueError(f"max_nbrs must be at least 0, but is {max_nbrs}.")
    if seeds not in _SEEDS:
        raise ValueError(f"seeds must be one of {_SEEDS}, but is {seeds!r}.")


class _Records:
    """The framed records of the output, in order.

    Attributes:
      degrees: The number of records by number of neighbors, after iteration.
      bytes: The total size of the records in bytes, after iteration.
    """

    def __init__(
        self, index: ExampleIndex, table: NeighborTable, num_seeds: int, packer: Packer
    ) -> None:
        self.degrees: collections.Counter[int] = collections.Counter()
        self.bytes = 0
        self._index = index
        self._table = table
        self._num_seeds = num_seeds
        self._packer = packer

    def __iter__(self) -> Iterator[bytes]:
        starts, targets, weights = self._table.rows()
        read = self._index.read
        with Progress("Packing", self._num_seeds, "records") as progress:
            for seed in range(self._num_seeds):
                row = slice(starts[seed], starts[seed + 1])
                neighbors = [read(target) for target in targets[row].tolist()]
                packed = self._packer.pack(read(seed), neighbors, weights[row].tolist())
                record = tfrecord.frame(packed)
                self.degrees[len(neighbors)] += 1
                self.bytes += len(record)
                if not seed % _RECORDS_PER_REPORT:
                    progress.reach(seed)
                yield record
        self._packer.check_features_found()


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of the command."""
    command_line.define_output_flags(values)
    flags.DEFINE_bool(
        "add_undirected_edges",
        False,
        "Add the reverse of each edge; of two opposite edges, both get the larger "
        "weight.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "max_nbrs",
        None,
        "The maximum number of neighbors of a record. By default there is no limit.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_string(
        "id_feature_name",
        "id",
        "The feature that holds an example's id: one UTF-8 string or integer.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "seeds",
        "labeled",
        _SEEDS,
        "Which examples become records: labeled; or all, to also regularize along the "
        "edges of unlabeled examples.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "neighbor_features",
        None,
        "A comma-separated list of the neighbor features to copy. By default, all.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "dry_run",
        False,
        "Report what would be written, with its size, without writing it.",
        flag_values=values,
    )


def _run(arguments: list[str], keywords: dict[str, Any]) -> None:
    labeled, unlabeled, graph, output = command_line.expect(arguments, ARGUMENTS)
    pack_nbrs(labeled, unlabeled, graph, output, **keywords)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command `nsl-pack-nbrs`.

    Args:
      argv: The arguments; those of the process by default.

    Returns:
      The exit code.
    """
    return command_line.run("pack_nbrs", USAGE, define_flags, _run, argv)


if __name__ == "__main__":
    sys.exit(main())
