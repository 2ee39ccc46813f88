"""Tests of `nsl.beam.salted_join`."""

import collections

import apache_beam as beam
from apache_beam.testing.util import assert_that, equal_to

from nsl.beam.salted_join import SaltedJoin, spread


def test_values_get_the_payload_of_their_key() -> None:
    values = [(b"hub", (b"n%d" % i, i)) for i in range(300)]
    values += [(b"leaf", (b"n1", 7)), (b"unknown", (b"n1", 8))]
    payloads = [
        (b"hub", (1, "second")),
        (b"hub", (0, "first")),
        (b"leaf", (1, "leaf")),
        (b"alone", (0, "nobody asks")),
    ]
    expected = [(b"hub", value, (0, "first")) for _, value in values[:300]]
    expected += [
        (b"leaf", (b"n1", 7), (1, "leaf")),
        (b"unknown", (b"n1", 8), None),
    ]
    pipeline = beam.Pipeline(runner="FnApiRunner")
    joined = (
        pipeline | "Many" >> beam.Create(values),
        pipeline | "One" >> beam.Create(payloads),
    ) | SaltedJoin(50)
    assert_that(joined, equal_to(expected))
    result = pipeline.run()
    sizes = result.metrics().query(
        beam.metrics.MetricsFilter().with_name("values_joined_in_one_place")
    )["distributions"]
    # Three hundred values of one key, at most about fifty in one place.
    (size,) = [metric.result for metric in sizes]
    assert size.sum == 302
    assert 40 < size.max < 90


def test_nodes_are_spread_evenly() -> None:
    counts = collections.Counter(spread(b"node%07d" % i, 7) for i in range(7000))
    assert set(counts) == set(range(7))
    assert max(counts.values()) < 1200
