"""Tests of decay over time."""

import numpy as np
import pytest
import tensorflow as tf

from nsl import configs, lib
from tests.conftest import golden

CASES = [case for case in golden("misc") if case["config"]["op"] == "decay_over_time"]


def split(case):
    config = dict(case["config"])
    del config["op"]
    step, init_value = config.pop("global_step"), config.pop("init_value")
    return step, configs.DecayConfig(**config), init_value


@pytest.mark.parametrize("case", CASES)
def test_golden(case):
    step, config, init_value = split(case)
    value = lib.decay_over_time(step, config, init_value)
    assert value.dtype == tf.float32
    np.testing.assert_allclose(value, case["expected"], atol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("case", CASES[1::3])
def test_graph_with_a_step_that_moves(case, jit_compile):
    step, config, init_value = split(case)
    step = tf.Variable(step, dtype=tf.int64)

    @tf.function(jit_compile=jit_compile)
    def run():
        return lib.decay_over_time(step, config, init_value)

    np.testing.assert_allclose(run(), case["expected"], atol=1e-5)
    step.assign_add(1)
    assert run() < case["expected"]


def test_starts_at_one():
    for decay_type in configs.DecayType.all():
        config = configs.DecayConfig(5, decay_type=decay_type)
        assert lib.decay_over_time(0, config) == 1.0
