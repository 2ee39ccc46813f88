"""Inference needs neither labels nor neighbors."""

import keras
import numpy as np

from tests.keras.contract.base import ContractBase, X, Y, innermost, mlp


class InferenceContract(ContractBase):
    """Prediction, calling, evaluation and export."""

    def test_predict_and_call_are_those_of_the_base_model(self):
        model = self.fresh()
        self.fit(model)
        base = innermost(model)
        expected = base.predict(X, verbose=0)
        for x in (X, {"x": X}, self.training_x({"x": X})):
            np.testing.assert_allclose(
                model.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6
            )
            np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            model.predict_on_batch(X), expected, rtol=1e-5, atol=1e-6
        )

    def test_predict_before_training(self):
        base = mlp()
        np.testing.assert_allclose(
            self.wrap(base).predict(X, verbose=0), base(X), rtol=1e-5
        )

    def test_evaluate_with_and_without_neighbors(self):
        model = self.compiled(metrics=["accuracy"])
        plain = model.evaluate(X, Y, verbose=0, return_dict=True)
        full = model.evaluate(self.training_x({"x": X}), Y, verbose=0, return_dict=True)
        assert plain == full
        assert (self.term_metric in plain) == self.term_in_evaluation

    def test_clone_of_the_base_model(self):
        model = self.fresh()
        self.fit(model)
        base = innermost(model)
        clone = keras.models.clone_model(base)
        clone.set_weights(base.get_weights())
        np.testing.assert_allclose(clone(X), base(X), rtol=1e-6)
