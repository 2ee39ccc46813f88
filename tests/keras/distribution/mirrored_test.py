"""Two devices train to the weights of one, and what holds where they cannot."""

import numpy as np
import pytest

from tests.keras.contract.base import assert_weights_equal
from tests.keras.distribution.cases import (
    CASES,
    Case,
    on_one_device,
    on_two_devices,
)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_against_one_device(case: Case) -> None:
    model = case.compiled()
    weights, history = on_two_devices(case)
    expected, expected_history = on_one_device(case)
    # Where replicas draw for themselves, training is of the same kind at least.
    tolerance = 0.2 if case.draws else 1e-4
    if not case.draws:
        assert_weights_equal(weights, expected, 1e-5)
    assert history.keys() == expected_history.keys()
    for name, values in expected_history.items():
        np.testing.assert_allclose(history[name], values, rtol=tolerance, err_msg=name)
    for before, after in zip(model.get_weights(), weights, strict=True):
        assert not np.array_equal(before, after)


def test_replicas_draw_alike_twice() -> None:
    case = CASES["random-start"]
    once, _ = on_two_devices(case)
    again, _ = on_two_devices.__wrapped__(case)
    assert_weights_equal(once, again, 0.0)
