"""Sample weights and class weights reach the labeled loss and the term."""

import numpy as np
import pytest

from tests.keras.contract.base import (
    SAMPLE_WEIGHT,
    SAMPLES,
    ContractBase,
    X,
    Y,
    assert_weights_equal,
)


class TermWeightsContract(ContractBase):
    """What the weights of samples do to a term, which differs between terms."""

    #: Whether the term is a loss of labels, so that sample weights scale it.
    term_is_weighted: bool

    def test_weight_of_zero_removes_the_sample(self):
        weight = SAMPLE_WEIGHT * (np.arange(SAMPLES) % 2)
        other = np.where(weight == 0, (Y + 1) % 3, Y)
        assert_weights_equal(
            self.trained_weights(sample_weight=weight, y=other),
            self.trained_weights(sample_weight=weight),
        )

    def test_doubling_the_weights_doubles_the_losses(self):
        logs = []
        for factor in (1, 2):
            model = self.fresh()
            x = self.training_x({"x": X})
            logs.append(
                model.train_on_batch(
                    x, Y, sample_weight=SAMPLE_WEIGHT * factor, return_dict=True
                )
            )
        once, twice = logs
        term = self.term_metric
        assert once[term] > 0
        expected_term = 2 if self.term_is_weighted else 1
        assert twice[term] == pytest.approx(expected_term * once[term], rel=1e-3)
        labeled = [log["loss"] - self.terms(log) for log in logs]
        assert labeled[1] == pytest.approx(2 * labeled[0], rel=1e-4)


class WeightsContract(TermWeightsContract):
    """The weights of samples."""

    def test_shape_of_sample_weight(self):
        # A model that Keras has traced for one shape of weights takes no other.
        model = self.compiled()
        self.fit(model, sample_weight=SAMPLE_WEIGHT[:, None])
        flat = self.trained_weights(sample_weight=SAMPLE_WEIGHT)
        assert_weights_equal(model.get_weights(), flat)

    def test_class_weight_is_a_sample_weight(self):
        class_weight = {0: 0.5, 1: 2.0, 2: 1.0}
        by_sample = np.array([class_weight[label] for label in Y], "float32")
        assert_weights_equal(
            self.trained_weights(class_weight=class_weight),
            self.trained_weights(sample_weight=by_sample),
        )
