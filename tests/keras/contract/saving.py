"""A wrapper is saved whole, or as its base model."""

import keras
import numpy as np

from tests.keras.contract.base import (
    ContractBase,
    X,
    assert_weights_equal,
    innermost,
    mlp,
)


class SavingContract(ContractBase):
    """Saving, loading, configs."""

    def test_save_writes_the_base_model(self, tmp_path):
        model = self.compiled()
        self.fit(model)
        model.save(tmp_path / "base.keras")
        loaded = keras.models.load_model(tmp_path / "base.keras")
        assert type(loaded) is type(innermost(model))
        np.testing.assert_allclose(loaded(X), model(X), rtol=1e-6)

    def test_weights_round_trip(self, tmp_path):
        model = self.compiled()
        self.fit(model)
        model.save_weights(tmp_path / "model.weights.h5")
        other = self.compiled(mlp(seed=2))
        other.load_weights(tmp_path / "model.weights.h5")
        assert_weights_equal(other.get_weights(), model.get_weights())

    def test_config_round_trip(self):
        model = self.wrap(mlp())
        again = type(model).from_config(model.get_config())
        assert again.get_config() == model.get_config()
        assert again.name == model.name
