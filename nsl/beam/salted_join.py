"""A join in which hot keys are not a bottleneck."""

import zlib
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

NAMESPACE = "nsl.salted_join"

_ONE, _MANY = "one", "many"


def spread(node: bytes, parts: int) -> int:
    """Assigns a node to one of several parts by a hash that all workers share."""
    return zlib.crc32(node) % parts


def _salts(key_and_count: tuple[Any, int], limit: int) -> tuple[Any, int]:
    key, count = key_and_count
    return key, -(-count // limit)


def _salt_many(element: Any, hot: Mapping[Any, int]) -> tuple[Any, Any]:
    key, value = element
    return (key, spread(value[0], hot.get(key, 1))), value


def _salt_one(element: Any, hot: Mapping[Any, int]) -> Iterator[tuple[Any, Any]]:
    key, payload = element
    for salt in range(hot.get(key, 1)):
        yield (key, salt), payload


class _JoinFn(beam.DoFn):
    def __init__(self) -> None:
        self._sizes = Metrics.distribution(NAMESPACE, "values_joined_in_one_place")

    def process(
        self, element: tuple[Any, Mapping[str, Iterable[Any]]]
    ) -> Iterator[tuple[Any, Any, Any]]:
        (key, _), groups = element
        payload = min(groups[_ONE], key=itemgetter(0), default=None)
        size = 0
        for value in groups[_MANY]:
            size += 1
            yield key, value, payload
        self._sizes.update(size)


class SaltedJoin(beam.PTransform):
    """Joins many values of each key with one payload per key.

    A hot key, with more values than a limit, is salted: each value gets a salt from the
    hash of its first item, and the payload is replicated to all salts. No worker then
    gets many more values of one key than the limit. A combiner counts the values of
    each key first.

    The input is a pair of collections: `(key, value)`, where a value is a tuple that
    starts with an id, and `(key, payload)`, where a payload is a tuple that starts with
    a number; of several payloads, the one with the smallest number is used. The output
    is `(key, value, payload)`, with None for a missing payload. The distribution
    `values_joined_in_one_place` shows whether the limit is suitable.
    """

    def __init__(self, limit: int) -> None:
        """Initializes the transform.

        Args:
          limit: The approximate maximum number of values of a key per worker.
        """
        super().__init__()
        self._limit = limit

    def expand(self, inputs: Any) -> Any:
        """Applies the transform; see the class."""
        many, one = inputs
        limit = self._limit
        hot = beam.pvalue.AsDict(
            many
            | "Keys" >> beam.Keys()
            | "Count" >> beam.combiners.Count.PerElement()
            | "Hot" >> beam.Filter(lambda count: count[1] > limit)
            | "Salts" >> beam.Map(_salts, limit)
        )
        return (
            {
                _MANY: many | "SaltValues" >> beam.Map(_salt_many, hot),
                _ONE: one | "SaltPayloads" >> beam.FlatMap(_salt_one, hot),
            }
            | "Group" >> beam.CoGroupByKey()
            | "Join" >> beam.ParDo(_JoinFn())
        )
