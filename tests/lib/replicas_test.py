"""What replicas of a strategy share."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from nsl.lib.replicas import (
    gather_from_replicas,
    largest_of_replicas,
    share_of_mean,
    sum_over_replicas,
)

PARTS = [np.array([1.0, 2.0], "float32"), np.array([3.0, 4.0, 5.0], "float32")]


def on_two(run: Callable[[tf.Tensor], Any]) -> list[Any]:
    """What each of two replicas gives for its part, of two rows and of three."""
    two = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    parts = two.experimental_distribute_values_from_function(
        lambda context: PARTS[context.replica_id_in_sync_group]
    )
    results = tf.function(lambda part: two.run(run, (part,)))(parts)
    found = [two.experimental_local_results(one) for one in tf.nest.flatten(results)]
    return list(zip(*found, strict=True))


def test_two_replicas() -> None:
    for [total] in on_two(lambda part: sum_over_replicas(tf.reduce_sum(part))):
        assert float(total) == 15.0
    for [largest] in on_two(lambda part: largest_of_replicas(part[:2])):
        np.testing.assert_array_equal(largest, [3.0, 4.0])
    shares = on_two(
        lambda part: share_of_mean(
            tf.reduce_sum(part), tf.cast(tf.size(part), tf.float32)
        )
    )
    assert float(sum(share for [share] in shares)) == 3.0
    for (rows, first), begin in zip(on_two(gather_from_replicas), (0, 2), strict=True):
        np.testing.assert_array_equal(rows, np.concatenate(PARTS))
        assert int(first) == begin


def test_one_replica() -> None:
    part = tf.constant(PARTS[0])
    assert sum_over_replicas(part) is part
    assert float(share_of_mean(tf.constant(4.0), tf.constant(2.0))) == 2.0
    assert float(share_of_mean(tf.constant(4.0), tf.constant(0.0))) == 0.0
    rows, first = gather_from_replicas(part)
    assert rows is part
    assert first == 0


def test_outside_of_a_replica() -> None:
    """In the scope of a strategy, where no replica runs, there is nothing to share."""
    part = tf.constant(PARTS[0])
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        assert sum_over_replicas(part) is part
        assert gather_from_replicas(part)[0] is part
