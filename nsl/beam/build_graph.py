"""Builds a graph whose edges join examples with similar embeddings, on Apache Beam.

From the shell:
  python -m nsl.beam.build_graph --runner=FlinkRunner embeddings.tfr graph.tsv
"""

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from absl import flags
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions

from nsl.beam import running, sources
from nsl.beam.build_transform import NAMESPACE, BuildGraph
from nsl.configs import GraphBuilderConfig
from nsl.files import edge_lines
from nsl.files.arrow_files import SUFFIX
from nsl.files.input_files import PathLike, Paths
from nsl.tools import command_line
from nsl.tools.build_graph import ARGUMENTS, USAGE, define_search_flags, list_inputs
from nsl.tools.job_output import JobOutput


class _FirstInputFn(beam.DoFn):
    """Yields each id with its vector from the first input that has the id."""

    def __init__(self) -> None:
        self._duplicates = Metrics.counter(NAMESPACE, "ids_in_several_inputs")

    def process(
        self, element: tuple[bytes, Iterable[tuple[int, bytes]]]
    ) -> Iterator[tuple[bytes, bytes]]:
        node, found = element[0], sorted(element[1])
        for (number, _), (next_number, _) in itertools.pairwise(found):
            if number == next_number:
                raise ValueError(f"Duplicate id {node.decode()!r} in one input.")
        self._duplicates.inc(len(found) - 1)
        yield node, found[0][1]


def _line(edge: tuple[bytes, bytes, float]) -> bytes:
    source, target, weight = edge
    return edge_lines.format_edges([source], [target], [weight])


def build_graph(
    embedding_files: Paths,
    output_graph_path: PathLike,
    similarity_threshold: float = 0.8,
    id_feature_name: str = "id",
    embedding_feature_name: str = "embedding",
    lsh_splits: int = 0,
    lsh_rounds: int = 2,
    random_seed: int | None = None,
    *,
    num_neighbors: int | None = None,
    mutual: bool = False,
    num_shards: int | None = None,
    compression: str | None = None,
    report_path: PathLike | None = None,
    pipeline_options: PipelineOptions | Sequence[str] | None = None,
) -> dict[str, Any]:
    """Like `nsl.tools.build_graph`, on an Apache Beam runner.

    The edges are the same, in a different order.

    Args:
      embedding_files: TFRecord, Parquet or Arrow files; see `nsl.tools.build_graph`.
        Each file is read by one worker.
      output_graph_path: The TSV file to write.
      similarity_threshold: The smallest cosine similarity of an edge.
      id_feature_name: The feature that holds an example's id.
      embedding_feature_name: The feature that holds an example's embedding.
      lsh_splits: The number of random hyperplanes per round of hashing, or 0 for no
        hashing.
      lsh_rounds: The number of rounds of hashing.
      random_seed: The seed of the hyperplanes, which are those of the local tool.
      num_neighbors: The maximum number of neighbors of an example.
      mutual: Whether to keep an edge only if both ends chose each other.
      num_shards: The number of shards. By default, one worker writes a single file.
      compression: None or 'gzip'.
      report_path: A JSON file to write the report to.
      pipeline_options: Beam's options, such as `["--runner=FlinkRunner"]`.

    Returns:
      The report: the numbers of nodes, edges and isolated nodes, and the minimum, mean
      and maximum out-degree of nodes with edges.

    Raises:
      ImportError: If a file needs pyarrow, which is not installed.
      OSError: If a file cannot be read or written.
      TypeError: If `embedding_files` is an array.
      ValueError: If an argument or the content of a file is invalid. Runners may wrap
        errors of their workers.
    """
    config = GraphBuilderConfig(
        id_feature_name=id_feature_name,
        embedding_feature_name=embedding_feature_name,
        similarity_threshold=similarity_threshold,
        lsh_splits=lsh_splits,
        lsh_rounds=lsh_rounds,
        random_seed=random_seed,
        num_neighbors=num_neighbors,
        mutual=mutual,
    )
    output = JobOutput(output_graph_path, num_shards, compression, report_path)
    inputs = list_inputs(embedding_files)
    if not inputs:
        raise TypeError(
            "nsl.beam.build_graph reads files, but received an array: use "
            "nsl.tools.build_graph, or the transform nsl.beam.BuildGraph in a pipeline."
        )
    output.check(itertools.chain(*inputs))
    if output.path.endswith(SUFFIX):
        raise ValueError(
            "nsl.beam.build_graph writes TSV, but the output is "
            f"{output.path}: rename it."
        )
    if not isinstance(pipeline_options, PipelineOptions):
        pipeline_options = PipelineOptions(list(pipeline_options or ()))

    pipeline = beam.Pipeline(options=pipeline_options)
    vectors = [
        pipeline
        | f"Input{number}"
        >> sources.embedding_source(paths, id_feature_name, embedding_feature_name)
        | f"Number{number}"
        >> beam.MapTuple(
            lambda node, row, number=number: (node, (number, row)),
        )
        for number, paths in enumerate(inputs)
    ]
    _ = (
        vectors
        | "Inputs" >> beam.Flatten()
        | "ById" >> beam.GroupByKey()
        | "FirstInput" >> beam.ParDo(_FirstInputFn())
        | "BuildGraph" >> BuildGraph(config)
        | "Format" >> beam.Map(_line)
        | "Write" >> sources.write(output)
    )
    result = pipeline.run()
    result.wait_until_finish()
    report = _report(*running.metrics(result, NAMESPACE))
    output.report(report)
    return report


def _report(counters: dict[str, int], distributions: dict[str, Any]) -> dict[str, Any]:
    nodes = counters.get("nodes", 0)
    report: dict[str, Any] = {
        "nodes": nodes,
        "ids_in_several_inputs": counters.get("ids_in_several_inputs", 0),
        "compared_pairs": counters.get("compared_pairs", 0),
        "edges": counters.get("edges", 0),
        "isolated_nodes": nodes - counters.get("nodes_with_edges", 0),
    }
    degree = distributions.get("degree")
    if degree is not None:
        report["degree"] = {"min": degree.min, "mean": degree.mean, "max": degree.max}
    return report


def _define_flags(values: flags.FlagValues) -> None:
    define_search_flags(values)
    command_line.define_output_flags(values)


def _run(arguments: list[str], keywords: dict[str, Any]) -> None:
    *inputs, output = command_line.expect(arguments, ARGUMENTS)
    build_graph(inputs, output, **keywords)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command `nsl-beam-build-graph`.

    Args:
      argv: The arguments; those of the process by default.

    Returns:
      The exit code.
    """
    return running.run("beam.build_graph", USAGE, _define_flags, _run, argv)


if __name__ == "__main__":
    sys.exit(main())
