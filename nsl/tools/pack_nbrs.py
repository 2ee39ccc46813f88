"""Joins labeled examples with the features of their neighbors in a graph.

From the shell:
  python -m nsl.tools.pack_nbrs --max_nbrs=5 labeled.tfr unlabeled.tfr graph.tsv out.tfr
"""

import collections
import contextlib
import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from absl import flags

from nsl.files import input_files, output_files
from nsl.files.edge_files import COUNTED, EdgeFile
from nsl.files.input_files import PathLike, Paths
from nsl.progress import Progress
from nsl.tools import command_line, reports, tfrecord
from nsl.tools.example_index import ExampleIndex
from nsl.tools.neighbor_table import NeighborTable
from nsl.tools.packing import Packer

ARGUMENTS = "labeled.tfr unlabeled.tfr graph.tsv output.tfr"
USAGE = f"""\
Joins labeled examples with the features of their neighbors in a graph.

Usage: pack_nbrs [flags] {ARGUMENTS}

The first three may be one file, a pattern, or several of these separated by commas;
plain or compressed; local, or of any scheme that tf.io.gfile opens. unlabeled.tfr may
be ''. A line of graph.tsv is source<TAB>target[<TAB>weight]; CSV, Parquet, Arrow and
NumPy files of edges are read too."""

_SEEDS = ("labeled", "all")
_RECORDS_AT_ONCE = 64


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
    """Joins labeled examples with the features of their neighbors in a graph.

    Each labeled example is written with its own features, `NL_num_nbrs`, and for its
    i-th neighbor `NL_nbr_<i>_weight` and every feature of the neighbor as
    `NL_nbr_<i>_<name>`. The heaviest edge comes first; of equally heavy ones the one
    to the larger id. Of an edge given several times the largest weight holds. An edge
    to an unknown id, or from an example to itself, is left out and counted, and of an
    id in both sets the labeled example is taken.

    Args:
      labeled_examples_path: TFRecord files of `tf.train.Example`: a name, a pattern
        or a list of these; plain or gzip.
      unlabeled_examples_path: The same for the examples that are only neighbors. May
        be empty.
      graph_path: Files of edges: text, `source<TAB>target[<TAB>weight]`, also with
        other separators, or Parquet, Arrow or NumPy.
      output_training_data_path: The TFRecord file to write.
      add_undirected_edges: Whether to add the reverse of each edge.
      max_nbrs: The most neighbors an example gets. None is no limit.
      id_feature_name: The feature that holds an example's id.
      seeds: 'labeled', or 'all' to write the unlabeled examples as records with
        neighbors too, after the labeled ones.
      neighbor_features: The features of neighbors to copy. None copies all.
      num_shards: Writes this many files `<output>-00000-of-0000N` instead of one.
      compression: None or 'gzip'.
      dry_run: Whether to do everything but write, to learn the output's size.
      report_path: A file that gets the report as JSON.

    Returns:
      The report: numbers of examples, records, edges and neighbors, and the
      output's size in bytes before compression.

    Raises:
      OSError: If a file cannot be read or written.
      ValueError: If an argument or the content of a file is wrong. No output file is
        left then.
    """
    check_arguments(max_nbrs, seeds)
    labeled, unlabeled, graphs, outputs = check_files(
        labeled_examples_path,
        unlabeled_examples_path,
        graph_path,
        output_training_data_path,
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
        lines = dict.fromkeys(COUNTED, 0)
        for path in graphs:
            file = EdgeFile(path)
            for edges in file:
                table.add(edges)
            for name, count in file.counts.items():
                lines[name] += count

        records = _Records(index, table, num_seeds, Packer(neighbor_features))
        if dry_run:
            for _ in records:
                pass
        else:
            with output_files.atomic_files(
                outputs, "gzip" if compression == "gzip" else None
            ) as files:
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
    title = "Would write" if dry_run else "Wrote"
    reports.log(f"{title} {', '.join(outputs)}", report)
    if report_path is not None:
        reports.write_json(report_path, report)
    return report


class PackedFiles(NamedTuple):
    """The files of a job.

    Attributes:
      labeled: The files of labeled examples.
      unlabeled: Those of unlabeled ones.
      graphs: Those of edges.
      outputs: The files to write.
    """

    labeled: list[str]
    unlabeled: list[str]
    graphs: list[str]
    outputs: list[str]


def check_files(
    labeled_examples_path: Paths,
    unlabeled_examples_path: Paths,
    graph_path: Paths,
    output_training_data_path: PathLike,
    num_shards: int | None,
    compression: str | None,
    report_path: PathLike | None,
) -> PackedFiles:
    """Lists the files of a job, and checks that its outputs can be written.

    Args:
      labeled_examples_path: See `pack_nbrs`, as for the next ones.
      unlabeled_examples_path: The examples that are only neighbors.
      graph_path: The edges.
      output_training_data_path: The output.
      num_shards: The number of its files.
      compression: Its compression.
      report_path: The report.

    Raises:
      OSError: If a file is missing or an output cannot be written.
      ValueError: If an argument is wrong or an output is an input too.
    """
    output_files.check_form(num_shards, compression)
    labeled = input_files.expand_paths(labeled_examples_path)
    unlabeled = (
        input_files.expand_paths(unlabeled_examples_path)
        if unlabeled_examples_path
        else []
    )
    graphs = input_files.expand_paths(graph_path)
    outputs = output_files.check_job(
        [*labeled, *unlabeled, *graphs],
        output_training_data_path,
        num_shards,
        report_path,
    )
    return PackedFiles(labeled, unlabeled, graphs, outputs)


def check_arguments(max_nbrs: int | None, seeds: str) -> None:
    """Raises ValueError if an argument of `pack_nbrs` is wrong."""
    if max_nbrs is not None and max_nbrs < 0:
        raise ValueError(f"max_nbrs must be at least 0, but is {max_nbrs}.")
    if seeds not in _SEEDS:
        raise ValueError(f"seeds must be one of {_SEEDS}, but is {seeds!r}.")


class _Records:
    """The framed records of the output, in order.

    Attributes:
      degrees: How many records had how many neighbors, when all were taken.
      bytes: Their size.
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
                if not seed % _RECORDS_AT_ONCE:
                    progress.reach(seed)
                yield record
        self._packer.check_features_found()


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of the command."""
    command_line.define_output_flags(values)
    flags.DEFINE_bool(
        "add_undirected_edges",
        False,
        "Adds the reverse of each edge; of two opposite edges the larger weight "
        "holds for both.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "max_nbrs",
        None,
        "The most neighbors a record gets. Without it, there is no limit.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_string(
        "id_feature_name",
        "id",
        "The feature that holds an example's id: one bytes value, in UTF-8.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "seeds",
        "labeled",
        _SEEDS,
        "Which examples become records: labeled, or all, which regularizes along "
        "the edges of unlabeled examples too.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "neighbor_features",
        None,
        "The features of neighbors to copy, separated by commas. Without it, all.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "dry_run",
        False,
        "Reports what would be written, with its size, and writes nothing.",
        flag_values=values,
    )


def _run(arguments: list[str], keywords: dict[str, Any]) -> None:
    labeled, unlabeled, graph, output = command_line.expect(arguments, ARGUMENTS)
    pack_nbrs(labeled, unlabeled, graph, output, **keywords)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command `nsl-pack-nbrs`.

    Args:
      argv: The arguments. None takes those of the process.

    Returns:
      The exit code.
    """
    return command_line.run("pack_nbrs", USAGE, define_flags, _run, argv)


if __name__ == "__main__":
    sys.exit(main())
