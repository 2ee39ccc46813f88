"""Builds a graph whose edges join examples of similar embeddings.

From the shell:
  python -m nsl.tools.build_graph --similarity_threshold=0.9 embeddings.tfr graph.tsv
"""

import functools
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
from absl import flags, logging

from nsl.configs import GraphBuilderConfig, SearchIndex
from nsl.files import input_files, output_files
from nsl.files.edge_files import EdgeWriter, check_edge_output, edge_output
from nsl.files.input_files import PathLike, Paths
from nsl.tools import command_line, reports, similarity, workers
from nsl.tools.embedding_files import embeddings_of, read_embeddings
from nsl.tools.embeddings import Embeddings
from nsl.tools.graph_statistics import GraphStatistics
from nsl.tools.indexes import AllPairs, make_index
from nsl.tools.nearest_neighbors import mutual_pairs
from nsl.tools.similar_pairs import nearest_pairs, similar_pairs
from nsl.tools.similarity import Pairs

ARGUMENTS = "embeddings.tfr... graph.tsv"
USAGE = f"""\
Builds a graph whose edges join examples of similar embeddings.

Usage: build_graph [flags] {ARGUMENTS}

Each input may be one file, a pattern, or several of these separated by commas; plain
or compressed; local, or of any scheme that tf.io.gfile opens. TFRecord, Parquet, Arrow
and .npy files are told by their content. A line of graph.tsv is source<TAB>target<TAB>
cosine similarity; a graph whose name ends in .parquet is a table of these."""

_EDGES_AT_ONCE = 1 << 16


class GraphBuilder:
    """Builds graphs with the settings of one config.

    Does what `build_graph_from_config` does; it is here for programs of NSL 1.4.

    Attributes:
      config: The config.

    Args:
      graph_builder_config: Which pairs become edges, and how they are searched.
    """

    def __init__(self, graph_builder_config: GraphBuilderConfig) -> None:
        self.config = graph_builder_config

    def build(
        self, embedding_files: Paths | npt.NDArray[Any], output_graph_path: PathLike
    ) -> dict[str, Any]:
        """Builds a graph whose edges join examples of similar embeddings.

        Args:
          embedding_files: See `build_graph_from_config`.
          output_graph_path: The TSV file to write.

        Returns:
          The report.

        Raises:
          OSError: If a file cannot be read or written.
          TypeError: If the config is no `GraphBuilderConfig`.
          ValueError: If the content of a file is wrong.
        """
        return build_graph_from_config(embedding_files, output_graph_path, self.config)


def build_graph_from_config(
    embedding_files: Paths | npt.NDArray[Any],
    output_graph_path: PathLike,
    graph_builder_config: GraphBuilderConfig,
    *,
    ids: Any = None,
    label_feature_name: str | None = None,
    report_path: PathLike | None = None,
) -> dict[str, Any]:
    """Builds a graph whose edges join examples of similar embeddings.

    A pair of examples whose cosine similarity is at least the threshold becomes two
    lines of the output, one in each direction, with the similarity as weight. With
    `num_neighbors`, each example becomes the source of lines to its most similar
    ones only. Similarities are decided in float64 arithmetic.

    Args:
      embedding_files: TFRecord files of `tf.train.Example`, Parquet or Arrow files
        with a column for each feature, or `.npy` files of shape [nodes, dimensions]: a
        name, a pattern, or a list of these. An id that stands in several inputs of the
        list is taken from the first. Or an array [nodes, dimensions] in memory.
      output_graph_path: The file to write: Parquet if it ends in `.parquet`, else TSV.
      graph_builder_config: Which pairs become edges, and how they are searched.
      ids: The distinct ids of the rows of arrays, integers or strings; or a file of
        them, `.npy` or a text with one in each line. Without it they are the numbers
        of the rows, counted over all files.
      label_feature_name: A feature for the report on how many edges join equal labels.
      report_path: A file that gets the report as JSON.

    Returns:
      The report: nodes, edges, isolated nodes, quantiles of the degree, the size of
      the largest component; with labels the share of edges that join equal ones; with
      hashing or inverted lists an estimate of the share of edges they found, from a
      sample of nodes that is compared to all.

    Raises:
      OSError: If a file cannot be read or written.
      TypeError: If `graph_builder_config` is no `GraphBuilderConfig`.
      ValueError: If the content of a file is wrong. No output file is left then.
    """
    config = graph_builder_config
    if not isinstance(config, GraphBuilderConfig):
        raise TypeError(
            "graph_builder_config must be a GraphBuilderConfig, but received "
            f"{config!r} ({type(config).__name__})."
        )
    inputs, (output,) = check_files(
        embedding_files, output_graph_path, report_path=report_path
    )
    if _is_array(embedding_files):
        if label_feature_name is not None:
            raise ValueError("An array has no feature for labels.")
        embeddings = embeddings_of(embedding_files, ids)
    else:
        embeddings = read_embeddings(
            inputs,
            config.id_feature_name,
            config.embedding_feature_name,
            label_feature_name,
            ids,
        )
    logging.info(
        "%d embeddings of %d dimensions: %.0f MB; %d left out because their ids "
        "stood in an earlier input.",
        *embeddings.vectors.shape,
        embeddings.vectors.nbytes / 1e6,
        embeddings.duplicates,
    )
    statistics = GraphStatistics(len(embeddings), embeddings.labels)
    threshold, k = config.similarity_threshold, config.num_neighbors
    with (
        edge_output(output) as file,
        workers.one_per_core() as cores,
        similarity.fastest_product(cores) as product,
    ):
        index, recall = make_index(config, embeddings, product)
        if k is None:
            for pairs in similar_pairs(
                embeddings, index.searches(), product, threshold
            ):
                statistics.add_both_ways(pairs.sources, pairs.targets)
                _write(file, embeddings, pairs, both_ways=True)
        else:
            pairs = nearest_pairs(embeddings, index.searches(), product, threshold, k)
            if config.mutual:
                pairs = mutual_pairs(pairs, len(embeddings))
            statistics.add(pairs.sources, pairs.targets)
            _write(file, embeddings, pairs, both_ways=False)

    report = statistics.report()
    if not isinstance(index, AllPairs):
        report["estimated_recall"] = recall
    reports.log(f"Wrote {output}", report)
    if report_path is not None:
        reports.write_json(report_path, report)
    return report


def _is_array(value: object) -> bool:
    return hasattr(value, "__array__")


def check_files(
    embedding_files: Paths | npt.NDArray[Any],
    output_graph_path: PathLike,
    num_shards: int | None = None,
    compression: str | None = None,
    report_path: PathLike | None = None,
) -> tuple[list[list[str]], list[str]]:
    """Lists the files of a job, and checks that its outputs can be written.

    Args:
      embedding_files: See `build_graph`, as for the next one.
      output_graph_path: The output.
      num_shards: The number of its files.
      compression: Its compression.
      report_path: The report.

    Returns:
      The files of each input, and those of the output.

    Raises:
      ImportError: If the output needs pyarrow, which is missing.
      OSError: If a file is missing or an output cannot be written.
      ValueError: If an argument is wrong or an output is an input too.
    """
    output_files.check_form(num_shards, compression)
    arguments: Sequence[Any] = ()
    if isinstance(embedding_files, str | os.PathLike):
        arguments = [embedding_files]
    elif not _is_array(embedding_files):
        arguments = list(embedding_files)
    inputs = [input_files.expand_paths(argument) for argument in arguments]
    if not inputs and not _is_array(embedding_files):
        raise ValueError("embedding_files must name at least one file.")
    read_paths = [path for paths in inputs for path in paths]
    outputs = output_files.check_job(
        read_paths, output_graph_path, num_shards, report_path
    )
    check_edge_output(outputs[0], read_paths)
    return inputs, outputs


def _write(
    file: EdgeWriter, embeddings: Embeddings, pairs: Pairs, both_ways: bool
) -> None:
    ids = embeddings.ids
    for start in range(0, len(pairs.sources), _EDGES_AT_ONCE):
        some = slice(start, start + _EDGES_AT_ONCE)
        file.write(
            [ids[node] for node in pairs.sources[some].tolist()],
            [ids[node] for node in pairs.targets[some].tolist()],
            pairs.similarities[some].tolist(),
            both_ways,
        )


def build_graph(
    embedding_files: Paths | npt.NDArray[Any],
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
    index: SearchIndex | str = SearchIndex.EXACT,
    recall: float = 0.98,
    ids: Any = None,
    label_feature_name: str | None = None,
    report_path: PathLike | None = None,
) -> dict[str, Any]:
    """Does what `build_graph_from_config` does, with the config's fields given singly.

    Args:
      embedding_files: See `build_graph_from_config`.
      output_graph_path: The TSV file to write.
      similarity_threshold: See `nsl.configs.GraphBuilderConfig`, as for the next ones.
      id_feature_name: The feature that holds an example's id.
      embedding_feature_name: The feature that holds its embedding.
      lsh_splits: The number of random hyperplanes, or 0 to compare every pair.
      lsh_rounds: How often the splitting is repeated.
      random_seed: Seed of the hyperplanes.
      num_neighbors: The most neighbors an example keeps.
      mutual: Whether each end of an edge must have chosen the other.
      index: How similar embeddings are searched.
      recall: With inverted lists, the share of the edges that are to be found.
      ids: See `build_graph_from_config`, as for the next one.
      label_feature_name: The feature that holds an example's label.
      report_path: A file that gets the report as JSON.

    Returns:
      The report.

    Raises:
      OSError: If a file cannot be read or written.
      ValueError: If an argument or the content of a file is wrong.
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
        index=index,
        recall=recall,
    )
    return build_graph_from_config(
        embedding_files,
        output_graph_path,
        config,
        ids=ids,
        label_feature_name=label_feature_name,
        report_path=report_path,
    )


def define_search_flags(values: flags.FlagValues) -> None:
    """Defines the flags that say which edges the graph has."""
    string = functools.partial(flags.DEFINE_string, flag_values=values)
    integer = functools.partial(flags.DEFINE_integer, flag_values=values)
    string(
        "id_feature_name",
        "id",
        "The feature that holds an example's id: one bytes value, in UTF-8.",
    )
    string(
        "embedding_feature_name",
        "embedding",
        "The feature that holds an example's embedding: floats, equally many in all.",
    )
    flags.DEFINE_float(
        "similarity_threshold",
        0.8,
        "Pairs of at least this cosine similarity become edges.",
        lower_bound=-1.0,
        upper_bound=1.0,
        flag_values=values,
    )
    integer(
        "lsh_splits",
        0,
        "Random hyperplanes that split the examples into buckets; only pairs within "
        "a bucket are compared. 0 compares every pair. A good number makes buckets "
        "of a few hundred: log2(examples / 500).",
        lower_bound=0,
    )
    integer(
        "lsh_rounds",
        2,
        "How often the splitting is repeated with new hyperplanes. More rounds find "
        "more of the edges; the report estimates how many.",
        lower_bound=0,
    )
    integer(
        "random_seed", None, "Seed of the hyperplanes. Without it, they are random."
    )
    integer(
        "num_neighbors",
        None,
        "The most neighbors an example keeps: the most similar, at or above the "
        "threshold. Without it, all.",
        lower_bound=1,
    )
    flags.DEFINE_bool(
        "mutual",
        False,
        "With num_neighbors, keeps an edge only if each end has chosen the other.",
        flag_values=values,
    )


def _define_flags(values: flags.FlagValues) -> None:
    define_search_flags(values)
    string = functools.partial(flags.DEFINE_string, flag_values=values)
    string(
        "label_feature_name",
        None,
        "A feature that holds a label; the report then tells the share of edges that "
        "join equal labels.",
    )
    flags.DEFINE_enum(
        "index",
        SearchIndex.EXACT.value,
        [index.value for index in SearchIndex],
        "How similar embeddings are searched: exact compares all pairs, ivf those in "
        "near lists, auto takes the quicker of both.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "recall",
        0.98,
        "With inverted lists, the share of the edges that are to be found.",
        lower_bound=0.0,
        upper_bound=1.0,
        flag_values=values,
    )
    string(
        "ids",
        None,
        "With embeddings in .npy files, a file of their ids: .npy, or a text with one "
        "in each line. Without it, the numbers of the rows.",
    )
    command_line.define_report_flag(values)


def _run(arguments: list[str], keywords: dict[str, Any]) -> None:
    *inputs, output = command_line.expect(arguments, ARGUMENTS)
    build_graph(inputs, output, **keywords)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command `nsl-build-graph`.

    Args:
      argv: The arguments. None takes those of the process.

    Returns:
      The exit code.
    """
    return command_line.run("build_graph", USAGE, _define_flags, _run, argv)


if __name__ == "__main__":
    sys.exit(main())
