"""Packs labeled examples with the features of their neighbors, on Apache Beam.

From the shell:
  python -m nsl.beam.pack_nbrs --runner=FlinkRunner labeled.tfr '' graph.tsv out.tfr
"""

import sys
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
from absl import logging
from apache_beam.options.pipeline_options import PipelineOptions

from nsl.beam import running, sources
from nsl.beam.pack_transform import MANY_NEIGHBORS, NAMESPACE, PackNeighbors
from nsl.files.edge_files import COUNTED
from nsl.files.input_files import PathLike, Paths, expand_paths
from nsl.tools import command_line, tfrecord
from nsl.tools.job_output import JobOutput
from nsl.tools.pack_nbrs import ARGUMENTS, USAGE, check_arguments, define_flags


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
    pipeline_options: PipelineOptions | Sequence[str] | None = None,
) -> dict[str, Any]:
    """Like `nsl.tools.pack_nbrs`, on an Apache Beam runner.

    The records are the same, in a different order.

    Args:
      labeled_examples_path: See `nsl.tools.pack_nbrs`, like the other arguments. Each
        file is read by one worker.
      unlabeled_examples_path: The examples that occur only as neighbors.
      graph_path: The files of edges.
      output_training_data_path: The TFRecord file to write.
      add_undirected_edges: Whether to add the reverse of each edge.
      max_nbrs: The maximum number of neighbors of an example, or None for no limit.
      id_feature_name: The feature that holds an example's id.
      seeds: 'labeled' or 'all'.
      neighbor_features: The features of neighbors to copy, or None for all.
      num_shards: The number of shards. By default, one worker writes a single file.
      compression: None or 'gzip'.
      dry_run: Whether to do everything except write.
      report_path: A JSON file to write the report to.
      pipeline_options: Beam's options, such as `["--runner=FlinkRunner"]`.

    Returns:
      The report of `nsl.tools.pack_nbrs`, from the pipeline's counters, without
      `first_unknown_ids`.

    Raises:
      ImportError: If a file needs pyarrow, which is not installed.
      OSError: If a file cannot be read or written.
      ValueError: If an argument or the content of a file is invalid. Runners may wrap
        errors of their workers.
    """
    check_arguments(max_nbrs, seeds)
    output = JobOutput(output_training_data_path, num_shards, compression, report_path)
    labeled, unlabeled, graphs = map(
        expand_paths,
        (labeled_examples_path, unlabeled_examples_path or (), graph_path),
    )
    output.check([*labeled, *unlabeled, *graphs])
    if not isinstance(pipeline_options, PipelineOptions):
        pipeline_options = PipelineOptions(list(pipeline_options or ()))

    pipeline = beam.Pipeline(options=pipeline_options)
    records = {
        "labeled": pipeline
        | "Labeled" >> sources.example_source(labeled, id_feature_name),
        "unlabeled": pipeline
        | "Unlabeled" >> sources.example_source(unlabeled, id_feature_name),
        "edges": pipeline | "Graph" >> sources.edge_source(graphs, NAMESPACE),
    } | "PackNeighbors" >> PackNeighbors(
        add_undirected_edges=add_undirected_edges,
        max_nbrs=max_nbrs,
        seeds=seeds,
        neighbor_features=neighbor_features,
    )
    if not dry_run:
        _ = (
            records
            | "Frame" >> beam.Map(tfrecord.frame)
            | "Write" >> sources.write(output)
        )
    result = pipeline.run()
    result.wait_until_finish()
    counters, distributions = running.metrics(result, NAMESPACE)
    _check_complete(counters, distributions)
    report = _report(counters, distributions)
    output.report(report, dry_run)
    return report


def _check_complete(counters: dict[str, int], distributions: dict[str, Any]) -> None:
    """Warns if the records do not have the neighbors that were chosen."""
    chosen = counters.get("neighbors_chosen", 0)
    neighbors = distributions.get("neighbors_per_record")
    packed = neighbors.sum if neighbors is not None else 0
    if chosen != packed:
        logging.warning(
            "%d neighbors were chosen, but the records have %d. Either the runner "
            "counted retried work twice, or it lost data: check the output.",
            chosen,
            packed,
        )


def _report(counters: dict[str, int], distributions: dict[str, Any]) -> dict[str, Any]:
    names = (
        "labeled_examples",
        "unlabeled_examples",
        "ids_in_both_sets",
        "edges",
        *COUNTED,
        "self_edges",
        "edges_to_unknown_ids",
        "records",
    )
    report: dict[str, Any] = {name: counters.get(name, 0) for name in names}
    degrees: dict[Any, int] = {
        degree: counters[f"records_with_{degree}"]
        for degree in range(MANY_NEIGHBORS)
        if f"records_with_{degree}" in counters
    }
    many = counters.get(f"records_with_{MANY_NEIGHBORS}")
    if many is not None:
        degrees[f"{MANY_NEIGHBORS} or more"] = many
    report["records_by_number_of_neighbors"] = degrees
    neighbors = distributions.get("neighbors_per_record")
    if neighbors is not None:
        report["neighbors_per_record"] = {
            "min": neighbors.min,
            "mean": neighbors.mean,
            "max": neighbors.max,
        }
    report["output_bytes"] = (
        counters.get("record_bytes", 0) + tfrecord.FRAME_BYTES * report["records"]
    )
    return report


def _run(arguments: list[str], keywords: dict[str, Any]) -> None:
    labeled, unlabeled, graph, output = command_line.expect(arguments, ARGUMENTS)
    pack_nbrs(labeled, unlabeled, graph, output, **keywords)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command `nsl-beam-pack-nbrs`.

    Args:
      argv: The arguments; those of the process by default.

    Returns:
      The exit code.
    """
    return running.run("beam.pack_nbrs", USAGE, define_flags, _run, argv)


if __name__ == "__main__":
    sys.exit(main())
