"""One process that fails in the middle of an epoch goes on from its backup."""

from pathlib import Path

import pytest
import tensorflow as tf

from tests.keras.contract.base import assert_weights_equal
from tests.keras.distribution import recovery


def test_fit_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    strategy = tf.distribute.get_strategy()
    expected = recovery.fit(strategy, tmp_path / "undisturbed")
    with pytest.raises(recovery.FailureError):
        recovery.fit(strategy, tmp_path / "backup", recovery.fail)
    resumed = recovery.fit(strategy, tmp_path / "backup")
    assert_weights_equal(resumed, expected, 1e-6)
