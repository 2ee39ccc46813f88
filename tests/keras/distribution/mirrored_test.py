"""Two devices train to the weights of one, and what holds where they cannot."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.keras.contract.base import assert_weights_equal
from tests.keras.distribution.cases import CASES, Case, draws


def two_devices() -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


def on_two_devices(case: Case) -> tuple[Any, dict[str, Any]]:
    with two_devices().scope():
        model = case.compiled()
    history = case.fit(model)
    return model, history


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_against_one_device(case: Case) -> None:
    model, history = on_two_devices(case)
    single = case.compiled()
    initial = single.get_weights()
    expected = case.fit(single)
    if draws(model):
        # Other numbers, hence other weights, but training of the same kind.
        for name, values in expected.items():
            np.testing.assert_allclose(history[name], values, rtol=0.2, err_msg=name)
    else:
        assert_weights_equal(model.get_weights(), single.get_weights(), 1e-5)
        for name, values in expected.items():
            np.testing.assert_allclose(history[name], values, rtol=1e-4, err_msg=name)
    for before, after in zip(initial, model.get_weights(), strict=True):
        assert not np.array_equal(before, after)


def test_replicas_draw_for_themselves_and_alike_twice() -> None:
    case = CASES["random-start"]
    weights = [on_two_devices(case)[0].get_weights() for _ in range(2)]
    assert_weights_equal(*weights, 0.0)
