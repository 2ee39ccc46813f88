"""Builds a graph whose edges join examples with similar embeddings.

From the shell:
  python -m nsl.tools.build_graph --similarity_threshold=0.9 embeddings.tfr graph.tsv
"""

import functools
import itertools
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
from absl import flags, logging

from nsl.configs import GraphBuilderConfig, SearchIndex
from nsl.files.edge_files import check_edge_output, edge_output
from nsl.files.input_files import PathLike, Paths, expand_paths
from nsl.tools import command_line, similarity, workers
from nsl.tools.embedding_files import embeddings_of, read_embeddings
from nsl.tools.graph_statistics import GraphStatistics
from nsl.tools.indexes import AllPairs, make_index
from nsl.tools.job_output import JobOutput
from nsl.tools.nearest_neighbors import mutual_pairs
from nsl.tools.similar_pairs import nearest_pairs, similar_pairs
from nsl.tools.similarity import Pairs

ARGUMENTS = "embeddings.tfr... graph.tsv"
USAGE = f"""\
Builds a graph whose edges join examples with similar embeddings.

Usage: build_graph [flags] {ARGUMENTS}

Each input is a file, a glob pattern, or a comma-separated list of these. Files may be
compressed, and local or at any URL that tf.io.gfile opens. The format (TFRecord,
Parquet, Arrow or .npy) is detected from the content. Each line of graph.tsv is
source<TAB>target<TAB>cosine similarity; an output name that ends in .parquet writes a
table with these columns."""


class GraphBuilder:
    """Builds graphs with one config, for compatibility with NSL 1.4.

    Equivalent to `build_graph_from_config`.

    Attributes:
      config: The config.

    Args:
      graph_builder_config: Which pairs become edges, and how to search for them.
    """

    def __init__(self, graph_builder_config: GraphBuilderConfig) -> None:
        self.config = graph_builder_config

    def build(
        self, embedding_files: Paths | npt.NDArray[Any], output_graph_path: PathLike
    ) -> dict[str, Any]:
        """Builds a graph whose edges join examples with similar embeddings.

        Args:
          embedding_files: See `build_graph_from_config`.
          output_graph_path: The file to write.

        Returns:
          The report; see `build_graph_from_config`.

        Raises:
          OSError: If a file cannot be read or written.
          TypeError: If the config is not a `GraphBuilderConfig`.
          ValueError: If the content of a file is invalid.
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
    """Builds a graph whose edges join examples with similar embeddings.

    Each pair of examples whose cosine similarity is at least the threshold is written
    as two edges, one in each direction, weighted with the similarity. With
    `num_neighbors`, each example only has edges to its most similar examples.
    Similarities are compared with the threshold in float64.

    Args:
      embedding_files: TFRecord files of `tf.train.Example`s, Parquet or Arrow files
        with a column for each feature, or `.npy` files of shape [nodes, dimensions]: a
        path, a glob pattern or a list of these. If an id occurs in several inputs of
        the list, the first one is used. Or an array of shape [nodes, dimensions].
      output_graph_path: The file to write: Parquet if it ends in `.parquet`, else TSV.
      graph_builder_config: Which pairs become edges, and how to search for them.
      ids: The distinct ids of the rows of arrays, integers or strings of shape
        [nodes]; or a file of ids, `.npy` or text with one id per line. By default, ids
        are row numbers, counted over all files.
      label_feature_name: A feature with labels, for the homophily in the report.
      report_path: A JSON file to write the report to.

    Returns:
      The report: the numbers of nodes, edges and isolated nodes, quantiles of the
      degree and the size of the largest component. With labels, also the homophily
      (the fraction of edges that join equal labels). With hashing or inverted lists,
      also the estimated recall (the fraction of edges that were found), measured on a
      sample of nodes that is compared with all nodes.

    Raises:
      ImportError: If a file needs pyarrow, which is not installed.
      OSError: If a file cannot be read or written.
      TypeError: If `graph_builder_config` is not a `GraphBuilderConfig`.
      ValueError: If the content of a file is invalid. No output file is left behind.
    """
    config = graph_builder_config
    if not isinstance(config, GraphBuilderConfig):
        raise TypeError(
            "graph_builder_config must be a GraphBuilderConfig, but received "
            f"{config!r} ({type(config).__name__})."
        )
    output = JobOutput(output_graph_path, report_path=report_path)
    inputs = list_inputs(embedding_files)
    output.check(itertools.chain(*inputs))
    check_edge_output(output.path)
    if _is_array(embedding_files):
        if label_feature_name is not None:
            raise ValueError(
                f"label_feature_name={label_feature_name!r} needs files with features, "
                "but embedding_files is an array."
            )
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
        "%d embeddings of %d dimensions: %.0f MB; skipped %d whose ids occurred in an "
        "earlier input.",
        *embeddings.vectors.shape,
        embeddings.vectors.nbytes / 1e6,
        embeddings.duplicates,
    )
    statistics = GraphStatistics(len(embeddings), embeddings.labels)
    threshold, k = config.similarity_threshold, config.num_neighbors
    with (
        edge_output(output.path) as file,
        workers.one_per_core() as cores,
        similarity.fastest_product(cores) as product,
    ):
        index, recall = make_index(config, embeddings, product)
        searches = index.searches()
        if k is None:
            parts = similar_pairs(embeddings, searches, product, threshold)
        else:
            parts = nearest_pairs(embeddings, searches, product, threshold, k)
        if config.mutual:
            parts = iter([mutual_pairs(Pairs.joined(parts), len(embeddings))])
        for pairs in parts:
            statistics.add(pairs.sources, pairs.targets, both_ways=k is None)
            file.write(embeddings.ids, *pairs, both_ways=k is None)

    report = statistics.report()
    if not isinstance(index, AllPairs):
        report["estimated_recall"] = recall
    output.report(report)
    return report


def _is_array(value: object) -> bool:
    return hasattr(value, "__array__")


def list_inputs(embedding_files: Paths | npt.NDArray[Any]) -> list[list[str]]:
    """Lists the files of each input of `build_graph`; none for an array.

    Raises:
      FileNotFoundError: If a file is missing.
      ValueError: If there is neither a file nor an array.
    """
    if _is_array(embedding_files):
        return []
    arguments: Any = embedding_files
    if isinstance(embedding_files, str | os.PathLike):
        arguments = [embedding_files]
    inputs = [expand_paths(argument) for argument in arguments]
    if not inputs:
        raise ValueError("embedding_files must name at least one file.")
    return inputs


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
    """Like `build_graph_from_config`, with the fields of the config as arguments.

    Args:
      embedding_files: See `build_graph_from_config`.
      output_graph_path: The file to write: Parquet if it ends in `.parquet`, else TSV.
      similarity_threshold: The smallest cosine similarity of an edge.
      id_feature_name: The feature that holds an example's id.
      embedding_feature_name: The feature that holds an example's embedding.
      lsh_splits: The number of random hyperplanes per round of hashing, or 0 for no
        hashing.
      lsh_rounds: The number of rounds of hashing.
      random_seed: The seed of hyperplanes and centroids.
      num_neighbors: The maximum number of neighbors of an example.
      mutual: Whether to keep an edge only if both ends chose each other.
      index: How to search for similar embeddings.
      recall: The target recall of inverted lists.
      ids: See `build_graph_from_config`.
      label_feature_name: The feature that holds an example's label.
      report_path: A JSON file to write the report to.

    Returns:
      The report; see `build_graph_from_config`.

    Raises:
      ImportError: If a file needs pyarrow, which is not installed.
      OSError: If a file cannot be read or written.
      ValueError: If an argument or the content of a file is invalid.
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
    """Defines the flags that determine the edges of the graph."""
    string = functools.partial(flags.DEFINE_string, flag_values=values)
    integer = functools.partial(flags.DEFINE_integer, flag_values=values)
    string(
        "id_feature_name",
        "id",
        "The feature that holds an example's id: one UTF-8 string or integer.",
    )
    string(
        "embedding_feature_name",
        "embedding",
        "The feature that holds an example's embedding: floats, the same number in "
        "every example.",
    )
    flags.DEFINE_float(
        "similarity_threshold",
        0.8,
        "The smallest cosine similarity of an edge.",
        lower_bound=-1.0,
        upper_bound=1.0,
        flag_values=values,
    )
    integer(
        "lsh_splits",
        0,
        "The number of random hyperplanes that hash examples into buckets; only pairs "
        "in the same bucket are compared. 0 disables hashing. log2(examples / 500) is "
        "a good value: it makes buckets of a few hundred examples.",
        lower_bound=0,
    )
    integer(
        "lsh_rounds",
        2,
        "The number of rounds of hashing, each with new hyperplanes. More rounds "
        "increase the recall, which the report estimates.",
        lower_bound=0,
    )
    integer(
        "random_seed",
        None,
        "The seed of hyperplanes and centroids. By default, they are random.",
    )
    integer(
        "num_neighbors",
        None,
        "The maximum number of neighbors of an example; the most similar are kept. By "
        "default there is no limit.",
        lower_bound=1,
    )
    flags.DEFINE_bool(
        "mutual",
        False,
        "With num_neighbors, keep an edge only if both ends chose each other.",
        flag_values=values,
    )


def _define_flags(values: flags.FlagValues) -> None:
    define_search_flags(values)
    string = functools.partial(flags.DEFINE_string, flag_values=values)
    string(
        "label_feature_name",
        None,
        "The feature that holds an example's label; the report then gives the fraction "
        "of edges that join equal labels.",
    )
    flags.DEFINE_enum(
        "index",
        SearchIndex.EXACT.value,
        [index.value for index in SearchIndex],
        "How to search for similar embeddings: exact compares all pairs, ivf uses "
        "inverted lists, auto chooses the faster of the two.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "recall",
        0.98,
        "The target recall of inverted lists: the fraction of edges to find.",
        lower_bound=0.0,
        upper_bound=1.0,
        flag_values=values,
    )
    string(
        "ids",
        None,
        "A file with the ids of embeddings in .npy files: .npy, or text with one id "
        "per line. By default, ids are row numbers.",
    )
    command_line.define_report_flag(values)


def _run(arguments: list[str], keywords: dict[str, Any]) -> None:
    *inputs, output = command_line.expect(arguments, ARGUMENTS)
    build_graph(inputs, output, **keywords)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command `nsl-build-graph`.

    Args:
      argv: The arguments; those of the process by default.

    Returns:
      The exit code.
    """
    return command_line.run("build_graph", USAGE, _define_flags, _run, argv)


if __name__ == "__main__":
    sys.exit(main())
