"""A Beam transform that packs examples with the features of their neighbors."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from nsl.beam.combine_heaviest import CombineHeaviest
from nsl.beam.salted_join import SaltedJoin
from nsl.tools.example_wire import check_example
from nsl.tools.pack_nbrs import check_arguments
from nsl.tools.packing import Packer

NAMESPACE = "nsl.pack_nbrs"
# Records with at least this many neighbors share a counter.
MANY_NEIGHBORS = 100
_LABELED, _UNLABELED, _UNKNOWN = 0, 1, 2
_KINDS = ("labeled", "unlabeled")
_FOUND = "found"


def _checked(example: tuple[bytes, bytes], kind: int) -> tuple[bytes, Any]:
    """Checks an example, and returns (id, (kind, serialized example))."""
    node, data = example
    try:
        check_example(data)
    except ValueError as error:
        raise ValueError(
            f"The {_KINDS[kind]} example with id {node.decode()!r}: {error}."
        ) from None
    return node, (kind, data)


class _CheckIdsFn(beam.DoFn):
    """Yields each id with its kind: labeled, if it occurs in both sets."""

    def __init__(self) -> None:
        self._labeled = Metrics.counter(NAMESPACE, "labeled_examples")
        self._unlabeled = Metrics.counter(NAMESPACE, "unlabeled_examples")
        self._both = Metrics.counter(NAMESPACE, "ids_in_both_sets")

    def process(
        self, element: tuple[bytes, Iterable[int]]
    ) -> Iterator[tuple[bytes, tuple[int]]]:
        node, kinds = element[0], sorted(element[1])
        for kind, next_kind in itertools.pairwise(kinds):
            if kind == next_kind:
                raise ValueError(
                    f"Duplicate id {node.decode()!r} among the {_KINDS[kind]} examples."
                )
        (self._unlabeled if kinds[0] else self._labeled).inc()
        self._both.inc(len(kinds) - 1)
        yield node, (kinds[0],)


class _DirectEdgesFn(beam.DoFn):
    """Yields (seed, (neighbor, weight)) for edges between two known ids."""

    def __init__(self, both_ways: bool, last_seed_kind: int) -> None:
        self._both_ways = both_ways
        self._last_seed_kind = last_seed_kind
        self._edges = Metrics.counter(NAMESPACE, "edges")
        self._unknown = Metrics.counter(NAMESPACE, "edges_to_unknown_ids")
        self._self_edges = Metrics.counter(NAMESPACE, "self_edges")

    def process(self, element: Any) -> Iterator[tuple[bytes, tuple[bytes, float]]]:
        target, (source, weight, source_kind), found = element
        target_kind = _UNKNOWN if found is None else found[0]
        self._edges.inc()
        if _UNKNOWN in (source_kind, target_kind):
            self._unknown.inc()
            return
        if source == target:
            self._self_edges.inc()
            return
        if source_kind <= self._last_seed_kind:
            yield source, (target, weight)
        if self._both_ways and target_kind <= self._last_seed_kind:
            yield target, (source, weight)


class _PackFn(beam.DoFn):
    """Yields the record of a seed, and the names of features found in neighbors."""

    def __init__(self, neighbor_features: Sequence[str] | None) -> None:
        self._features = neighbor_features
        self._records = Metrics.counter(NAMESPACE, "records")
        self._neighbors = Metrics.distribution(NAMESPACE, "neighbors_per_record")
        self._bytes = Metrics.counter(NAMESPACE, "record_bytes")

    def start_bundle(self) -> None:
        self._packer = Packer(self._features)
        self._yielded: set[bytes] = set()

    def process(self, element: tuple[bytes, Mapping[str, Iterable[Any]]]) -> Any:
        groups = element[1]
        example = min(groups["example"], key=itemgetter(0))[1]
        neighbors = sorted(groups["neighbors"], key=itemgetter(0))
        record = self._packer.pack(
            example,
            [data for _, _, data in neighbors],
            [weight for _, weight, _ in neighbors],
        )
        self._records.inc()
        self._bytes.inc(len(record))
        self._neighbors.update(len(neighbors))
        Metrics.counter(
            NAMESPACE, f"records_with_{min(len(neighbors), MANY_NEIGHBORS)}"
        ).inc()
        yield record
        if self._features is not None and self._packer.packed_neighbors:
            # The empty name means that there was at least one neighbor.
            names = self._packer.found | {b""}
            for name in names - self._yielded:
                yield beam.pvalue.TaggedOutput(_FOUND, name)
            self._yielded |= names


def _check_features_found(names: set[bytes], neighbor_features: Sequence[str]) -> None:
    packer = Packer(neighbor_features)
    packer.packed_neighbors = b"" in names
    packer.found = names
    packer.check_features_found()


class _TargetsFn(beam.DoFn):
    """Yields (neighbor, (seed, rank, weight)) for each chosen neighbor."""

    def __init__(self) -> None:
        self._chosen = Metrics.counter(NAMESPACE, "neighbors_chosen")

    def process(
        self, element: tuple[bytes, list[tuple[bytes, float]]]
    ) -> Iterator[tuple[bytes, tuple[bytes, int, float]]]:
        seed, neighbors = element
        self._chosen.inc(len(neighbors))
        for rank, (target, weight) in enumerate(neighbors):
            yield target, (seed, rank, weight)


class PackNeighbors(beam.PTransform):
    """Packs examples with the features of their neighbors in a graph.

    Like `nsl.tools.pack_nbrs`. The input is a dict of collections:

    - `labeled` and `unlabeled`: `(id, serialized Example)`, ids as UTF-8 bytes;
    - `edges`: `(source, target, weight)`.

    The output is a collection of serialized records. Neighbors are chosen before any
    features are shuffled. Hubs are not a bottleneck: neither the seeds of a popular
    neighbor nor the edges of a high-degree seed are gathered in one worker. With
    `max_nbrs=None`, however, one worker makes a record with all neighbors of a seed.

    ```python
    import apache_beam as beam

    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        records = {
            "labeled": pipeline | "Labeled" >> beam.Create([(b"a", b"")]),
            "unlabeled": pipeline | "Unlabeled" >> beam.Create([(b"b", b"")]),
            "edges": pipeline | "Edges" >> beam.Create([(b"a", b"b", 0.5)]),
        } | nsl.beam.PackNeighbors(max_nbrs=5)
    ```

    Metrics, in the namespace `nsl.pack_nbrs`: counters for the numbers in the local
    report, and the distribution `neighbors_per_record`.
    """

    def __init__(
        self,
        *,
        add_undirected_edges: bool = False,
        max_nbrs: int | None = None,
        seeds: str = "labeled",
        neighbor_features: Sequence[str] | None = None,
        edges_at_once: int = 10_000,
        hot_seed_fanout: int | None = None,
    ) -> None:
        """Initializes the transform.

        Args:
          add_undirected_edges: Whether to add the reverse of each edge.
          max_nbrs: The maximum number of neighbors of an example, or None for no limit.
          seeds: 'labeled' to make records of the labeled examples, 'all' to make
            records of the unlabeled ones as well.
          neighbor_features: The features of neighbors to copy, or None for all.
          edges_at_once: The maximum number of edges of one node joined by one worker.
          hot_seed_fanout: The number of workers among which the selection of a seed's
            neighbors is divided. This shuffles every edge once more, so it pays only if
            combining the edges of a few seeds takes most of the time.

        Raises:
          ValueError: If an argument is invalid.
        """
        super().__init__()
        check_arguments(max_nbrs, seeds)
        if edges_at_once < 1:
            raise ValueError(
                f"edges_at_once must be at least 1, but is {edges_at_once}."
            )
        self._add_undirected_edges = add_undirected_edges
        self._max_nbrs = max_nbrs
        self._seeds = seeds
        self._neighbor_features = neighbor_features
        self._edges_at_once = edges_at_once
        self._hot_seed_fanout = hot_seed_fanout

    # `Any`, because Beam would treat the type of a dict as that of one collection.
    def expand(self, inputs: Any) -> Any:
        """Applies the transform; see the class."""
        labeled = inputs["labeled"] | "MarkLabeled" >> beam.Map(_checked, _LABELED)
        unlabeled = inputs["unlabeled"] | "MarkUnlabeled" >> beam.Map(
            _checked, _UNLABELED
        )
        examples = (labeled, unlabeled) | "Examples" >> beam.Flatten()
        ids = (
            examples
            | "Ids" >> beam.Map(lambda example: (example[0], example[1][0]))
            | "GroupIds" >> beam.GroupByKey()
            | "CheckIds" >> beam.ParDo(_CheckIdsFn())
        )
        neighbors = self._heaviest(inputs["edges"], ids)
        packer = Packer(self._neighbor_features)
        features = examples | "Trim" >> beam.Map(
            lambda example: (
                example[0],
                (example[1][0], packer.trim(example[1][1])),
            )
        )
        joined = (
            (neighbors | "Targets" >> beam.ParDo(_TargetsFn()), features)
            | "JoinFeatures" >> SaltedJoin(self._edges_at_once)
            | "BySeed"
            >> beam.MapTuple(
                lambda _, seed, found: (seed[0], (seed[1], seed[2], found[1]))
            )
        )
        packed = (
            {
                "example": examples if self._seeds == "all" else labeled,
                "neighbors": joined,
            }
            | "GroupBySeed" >> beam.CoGroupByKey()
            | "Pack"
            >> beam.ParDo(_PackFn(self._neighbor_features)).with_outputs(
                _FOUND, main="records"
            )
        )
        if self._neighbor_features is not None:
            _ = (
                packed[_FOUND]
                | "Found" >> beam.CombineGlobally(beam.combiners.ToSetCombineFn())
                | "CheckFound"
                >> beam.Map(_check_features_found, self._neighbor_features)
            )
        return packed.records

    def _heaviest(self, edges: Any, ids: Any) -> Any:
        """Returns (seed, [(neighbor, weight), ...]), heaviest first."""
        limit = self._edges_at_once
        by_source = edges | "BySource" >> beam.MapTuple(
            lambda source, target, weight: (source, (target, weight))
        )
        by_target = (
            (by_source, ids)
            | "JoinSources" >> SaltedJoin(limit)
            | "ByTarget"
            >> beam.MapTuple(
                lambda source, edge, found: (
                    edge[0],
                    (source, edge[1], _UNKNOWN if found is None else found[0]),
                )
            )
        )
        last_seed_kind = _UNLABELED if self._seeds == "all" else _LABELED
        combine = beam.CombinePerKey(CombineHeaviest(self._max_nbrs))
        if self._hot_seed_fanout is not None:
            combine = combine.with_hot_key_fanout(self._hot_seed_fanout)
        return (
            (by_target, ids)
            | "JoinTargets" >> SaltedJoin(limit)
            | "Direct"
            >> beam.ParDo(_DirectEdgesFn(self._add_undirected_edges, last_seed_kind))
            | "Heaviest" >> combine
        )
