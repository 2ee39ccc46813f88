"""A Beam transform that builds a graph whose edges join similar embeddings."""

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import apache_beam as beam
import numpy as np
import numpy.typing as npt
from apache_beam.metrics import Metrics

from nsl.beam.combine_heaviest import CombineHeaviest
from nsl.beam.salted_join import spread
from nsl.configs import GraphBuilderConfig
from nsl.tools import lsh, similarity
from nsl.tools.embeddings import Embeddings
from nsl.tools.similar_pairs import Search, nearest_pairs, similar_pairs

NAMESPACE = "nsl.build_graph"

# Round and code of a bucket. Without hashing, one bucket has all nodes.
_Bucket: TypeAlias = tuple[int, bytes]
# Part of the bucket, id, vector, codes of all rounds.
_Member: TypeAlias = tuple[int, bytes, bytes, bytes]
_Edge: TypeAlias = tuple[bytes, bytes, float]


class _HashFn(beam.DoFn):
    """Yields (bucket, (id, vector, codes of all rounds)) for each round."""

    def __init__(self, splits: int, rounds: int, seed: int) -> None:
        self._splits = splits
        self._rounds = rounds
        self._seed = seed
        self._planes: list[npt.NDArray[np.float64]] = []
        self._dimensions = 0
        self._nodes = Metrics.counter(NAMESPACE, "nodes")

    def process(
        self, batch: Sequence[tuple[bytes, bytes]]
    ) -> Iterator[tuple[_Bucket, tuple[bytes, bytes, bytes]]]:
        ids = [node for node, _ in batch]
        lengths = {len(row) for _, row in batch}
        if len(lengths) > 1:
            raise _dimensions_error(lengths)
        vectors = _matrix([row for _, row in batch])
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"The embedding of id {ids[int(np.argmin(finite))].decode()!r} has a "
                "NaN or infinite value."
            )
        self._nodes.inc(len(batch))
        if not self._splits:
            for node, row in batch:
                yield (0, b""), (node, row, b"")
            return
        if self._dimensions != vectors.shape[1]:
            self._dimensions = vectors.shape[1]
            self._planes = list(
                lsh.hyperplanes(
                    self._splits, self._rounds, self._dimensions, self._seed
                )
            )
        # [nodes, rounds, codes]
        codes = np.stack([lsh.sides(vectors, planes) for planes in self._planes], 1)
        for (node, row), own in zip(batch, codes, strict=True):
            member = node, row, own.tobytes()
            for number, code in enumerate(own):
                yield (number, code.tobytes()), member


def _matrix(rows: Sequence[bytes]) -> npt.NDArray[np.float32]:
    # A writable copy, because Embeddings may scale rows in place.
    return np.frombuffer(bytearray().join(rows), "<f4").reshape(len(rows), -1)


def _dimensions_error(lengths: Iterable[int]) -> ValueError:
    return ValueError(
        "All embeddings must have the same number of values, but some have "
        f"{' and some '.join(str(length // 4) for length in sorted(lengths)[:2])}."
    )


def _check_dimensions(lengths: set[int]) -> None:
    if len(lengths) > 1:
        raise _dimensions_error(lengths)


def _blocks(
    element: tuple[_Bucket, tuple[bytes, bytes, bytes]],
    parts_of_large: Mapping[_Bucket, int],
) -> Iterator[tuple[tuple[int, bytes, int, int], _Member]]:
    """Yields a node for each pair of parts of its bucket that includes its part."""
    bucket, (node, row, codes) = element
    parts = parts_of_large.get(bucket, 1)
    part = spread(node, parts)
    for other in range(parts):
        yield (*bucket, min(part, other), max(part, other)), (part, node, row, codes)


class _CompareFn(beam.DoFn):
    """Compares the nodes within one part, or between two parts."""

    def __init__(self, config: GraphBuilderConfig) -> None:
        self._threshold = config.similarity_threshold
        self._num_neighbors = config.num_neighbors
        self._rounds = config.lsh_rounds
        self._pairs = Metrics.counter(NAMESPACE, "compared_pairs")

    def setup(self) -> None:
        self._product_context = similarity.fastest_product()
        self._product = self._product_context.__enter__()

    def teardown(self) -> None:
        self._product_context.__exit__(None, None, None)

    def process(
        self, element: tuple[tuple[int, bytes, int, int], Iterable[_Member]]
    ) -> Iterator[_Edge]:
        (number, _, part, other), values = element
        members = sorted(values)
        if part == other:
            order = similarity.one_run(len(members))
        else:
            rows = sum(member[0] == part for member in members)
            if rows in (0, len(members)):
                return
            order = similarity.one_block(rows, len(members) - rows)
        ids = [node for _, node, _, _ in members]
        embeddings = Embeddings(ids, _matrix([row for _, _, row, _ in members]))
        is_new = None
        if number:
            codes = np.frombuffer(b"".join(codes for _, _, _, codes in members), "<i8")
            codes = codes.reshape(len(members), self._rounds, -1)
            earlier = [lsh.numbered(codes[:, i]) for i in range(number)]
            is_new = functools.partial(
                lsh.Buckets(np.stack(earlier).astype(np.int32)).is_new, number
            )
        self._pairs.inc(similarity.num_comparisons(order))
        search = Search("Comparing", order, is_new)
        if self._num_neighbors is None:
            parts = similar_pairs(embeddings, [search], self._product, self._threshold)
        else:
            parts = nearest_pairs(
                embeddings,
                [search],
                self._product,
                self._threshold,
                self._num_neighbors,
            )
        for pairs in parts:
            for source, target, weight in zip(
                *(column.tolist() for column in pairs), strict=True
            ):
                yield ids[source], ids[target], weight
                if self._num_neighbors is None:
                    yield ids[target], ids[source], weight


def _pair(edge: _Edge) -> tuple[tuple[bytes, bytes], _Edge]:
    source, target, _ = edge
    return (min(source, target), max(source, target)), edge


def _mutual(element: tuple[Any, Iterable[_Edge]]) -> list[_Edge]:
    edges = list(element[1])
    return edges if len(edges) == 2 else []


class _DegreesFn(beam.DoFn):
    def __init__(self) -> None:
        self._edges = Metrics.counter(NAMESPACE, "edges")
        self._touched = Metrics.counter(NAMESPACE, "nodes_with_edges")
        self._degrees = Metrics.distribution(NAMESPACE, "degree")

    def process(self, element: tuple[bytes, int]) -> None:
        degree = element[1]
        self._touched.inc()
        self._edges.inc(degree)
        self._degrees.update(degree)


class BuildGraph(beam.PTransform):
    """Builds a graph whose edges join similar embeddings.

    Like `nsl.tools.build_graph_from_config`. The input is a collection of
    `(id, vector)`: unique ids as UTF-8 bytes, and vectors as bytes of little-endian
    float32. The output is a collection of edges `(source, target, similarity)`.

    Nodes are grouped by hash bucket; without hashing, all are in one. A bucket of more
    than `block_size` nodes is split into parts of about that size, and each pair of
    parts is compared separately, so that a worker holds at most two parts. Each node
    carries its buckets of all rounds, so that pairs from earlier rounds are skipped.

    ```python
    import apache_beam as beam
    import numpy as np

    vectors = [(b"a", np.float32([1, 0])), (b"b", np.float32([1, 0.1]))]
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        edges = (
            pipeline
            | beam.Create([(node, vector.tobytes()) for node, vector in vectors])
            | nsl.beam.BuildGraph(nsl.configs.GraphBuilderConfig())
        )
    ```

    Metrics, in the namespace `nsl.build_graph`: the counters `nodes`, `edges`,
    `nodes_with_edges` and `compared_pairs`, and the distribution `degree`.
    """

    def __init__(self, config: GraphBuilderConfig, *, block_size: int = 8192) -> None:
        """Initializes the transform.

        Args:
          config: Which pairs become edges, and how to search for them. Without a random
            seed, one is drawn here for all workers.
          block_size: The approximate size of a part.

        Raises:
          TypeError: If `config` is not a `GraphBuilderConfig`.
          ValueError: If `block_size` is less than 1.
        """
        super().__init__()
        if not isinstance(config, GraphBuilderConfig):
            raise TypeError(
                f"config must be a GraphBuilderConfig, but received {config!r} "
                f"({type(config).__name__})."
            )
        if block_size < 1:
            raise ValueError(f"block_size must be at least 1, but is {block_size}.")
        self._config = config
        self._block_size = block_size
        seed = config.random_seed
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        self._seed = seed

    def expand(self, vectors: Any) -> Any:
        """Applies the transform; see the class."""
        config, block_size = self._config, self._block_size
        _ = (
            vectors
            | "Lengths" >> beam.Map(lambda vector: len(vector[1]))
            | "Distinct" >> beam.CombineGlobally(beam.combiners.ToSetCombineFn())
            | "CheckLengths" >> beam.Map(_check_dimensions)
        )
        buckets = (
            vectors
            | "Batch" >> beam.BatchElements(min_batch_size=64, max_batch_size=4096)
            | "Hash"
            >> beam.ParDo(_HashFn(config.lsh_splits, config.lsh_rounds, self._seed))
        )
        large = beam.pvalue.AsDict(
            buckets
            | "Buckets" >> beam.Keys()
            | "Sizes" >> beam.combiners.Count.PerElement()
            | "Large" >> beam.Filter(lambda size: size[1] > block_size)
            | "Parts" >> beam.MapTuple(lambda key, size: (key, -(-size // block_size)))
        )
        edges = (
            buckets
            | "Blocks" >> beam.FlatMap(_blocks, large)
            | "ByBlocks" >> beam.GroupByKey()
            | "Compare" >> beam.ParDo(_CompareFn(config))
        )
        if config.num_neighbors is not None:
            edges = (
                edges
                | "BySource" >> beam.MapTuple(lambda a, b, weight: (a, (b, weight)))
                | "Nearest" >> beam.CombinePerKey(CombineHeaviest(config.num_neighbors))
                | "Edges"
                >> beam.FlatMapTuple(
                    lambda a, found: [(a, b, weight) for b, weight in found]
                )
            )
            if config.mutual:
                edges = (
                    edges
                    | "ByPair" >> beam.Map(_pair)
                    | "GroupPairs" >> beam.GroupByKey()
                    | "Mutual" >> beam.FlatMap(_mutual)
                )
        _ = (
            edges
            | "Ends"
            >> beam.FlatMapTuple(lambda a, b, _: itertools.chain([(a, 1), (b, 0)]))
            | "Degrees" >> beam.CombinePerKey(sum)
            | "Count" >> beam.ParDo(_DegreesFn())
        )
        return edges
