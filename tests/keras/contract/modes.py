"""Eager, compiled, XLA, mixed precision, several devices."""

import keras
import numpy as np
import pytest

from tests.keras.contract.base import (
    ContractBase,
    X,
    Y,
    assert_weights_equal,
    innermost,
)


class ModesContract(ContractBase):
    """Ways to run a step, which must all come to the same weights."""

    @pytest.fixture(scope="class")
    @classmethod
    def graph_mode_weights(cls):
        return cls().trained_weights()

    @pytest.fixture(scope="class")
    @classmethod
    def full_precision(cls):
        contract = cls()
        return contract.comparable(contract.fit(contract.fresh(), epochs=4).history)

    @pytest.mark.parametrize(
        "settings",
        [
            {"run_eagerly": True},
            {"jit_compile": True, "steps_per_execution": 2},
        ],
        ids=str,
    )
    def test_same_weights(self, settings, graph_mode_weights):
        model = self.compiled(**settings)
        self.fit(model)
        assert_weights_equal(model.get_weights(), graph_mode_weights, self.near(1e-5))
        evaluation = {"batch_size": 8, "verbose": 0, "return_dict": True}
        logs = model.evaluate(X, Y, **evaluation)
        same = self.fresh()
        same.set_weights(model.get_weights())
        expected = same.evaluate(X, Y, **evaluation)
        assert self.comparable(logs) == pytest.approx(
            self.comparable(expected), rel=self.near(1e-4)
        )

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
    def test_mixed_precision(self, policy, full_precision):
        keras.config.set_dtype_policy(policy)
        try:
            model = self.compiled()
            history = self.fit(model, epochs=4).history
        finally:
            keras.config.set_dtype_policy("float32")
        assert innermost(model).layers[0].compute_dtype == policy.removeprefix("mixed_")
        assert history["loss"][-1] < history["loss"][0]
        assert history[self.term_metric][0] > 0
        for name, values in full_precision.items():
            np.testing.assert_allclose(
                history[name], values, rtol=0.02 if name == "loss" else 0.05
            )

    def test_gradient_accumulation(self):
        def weights(optimizer, batch_size):
            model = self.compiled(optimizer=optimizer)
            self.fit(model, batch_size=batch_size, epochs=1)
            return model.get_weights()

        accumulated = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
        whole = keras.optimizers.SGD(0.1)
        assert_weights_equal(
            weights(accumulated, 8), weights(whole, 24), self.near(1e-4)
        )
