"""Metrics have Keras's names, and callbacks can use them."""

import keras
import numpy as np
import pytest

from tests.keras.contract.base import (
    SAMPLE_WEIGHT,
    ContractBase,
    X,
    Y,
    assert_weights_equal,
    mlp,
)


def mean_prediction(y_true, y_pred):
    """A metric that is a plain function."""
    del y_true
    return keras.ops.mean(y_pred, axis=-1)


class MetricsContract(ContractBase):
    """Metrics and callbacks."""

    def test_names(self):
        model = self.compiled(
            metrics=[
                "accuracy",
                mean_prediction,
                keras.metrics.SparseTopKCategoricalAccuracy(2, name="top_2"),
            ],
            weighted_metrics=["accuracy"],
        )
        history = self.fit(model, sample_weight=SAMPLE_WEIGHT).history
        expected = {"loss", "accuracy", "mean_prediction", "top_2", "weighted_accuracy"}
        assert set(history) == expected | {self.term_metric, *self.further_metrics}

    def test_metrics_equal_those_of_the_base_model(self):
        base = mlp()
        model = self.compiled(base, metrics=["accuracy"], weighted_metrics=["accuracy"])
        self.fit(model)
        actual = model.evaluate(
            X, Y, sample_weight=SAMPLE_WEIGHT, verbose=0, return_dict=True
        )
        base.compile(
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            weighted_metrics=["accuracy"],
        )
        expected = base.evaluate(
            X, Y, sample_weight=SAMPLE_WEIGHT, verbose=0, return_dict=True
        )
        # Before 3.14, Keras gives tensors.
        actual, expected = (
            {name: float(value) for name, value in logs.items()}
            for logs in (actual, expected)
        )
        assert actual["accuracy"] == pytest.approx(expected["accuracy"])
        assert actual["weighted_accuracy"] == pytest.approx(
            expected["weighted_accuracy"], rel=1e-5
        )
        labeled = actual["loss"] - self.terms(actual)
        assert labeled == pytest.approx(expected["loss"], rel=1e-4)

    def test_loss_is_labeled_loss_plus_term(self):
        model = self.fresh()
        logs = model.train_on_batch(self.training_x({"x": X}), Y, return_dict=True)
        base = mlp()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        base.compile(loss=loss, run_eagerly=True)
        labeled = base.test_on_batch(X, Y)
        assert logs["loss"] == pytest.approx(labeled + self.terms(logs), rel=1e-5)

    def test_early_stopping(self):
        model = self.compiled(metrics=["accuracy"])
        stop = keras.callbacks.EarlyStopping(
            "val_accuracy", patience=1, min_delta=2.0, mode="max"
        )
        history = self.fit(
            model, validation_data=(X, Y), epochs=9, callbacks=[stop]
        ).history
        assert len(history["loss"]) == 2

    def test_model_checkpoint_and_tensorboard(self, tmp_path):
        path = tmp_path / "best.keras"
        model = self.compiled(metrics=["accuracy"])
        self.fit(
            model,
            epochs=2,
            validation_data=(X, Y),
            callbacks=[
                keras.callbacks.ModelCheckpoint(path, "val_accuracy"),
                keras.callbacks.ModelCheckpoint(
                    tmp_path / "best.weights.h5", save_weights_only=True
                ),
                keras.callbacks.TensorBoard(tmp_path / "logs"),
                keras.callbacks.ReduceLROnPlateau(
                    "val_loss", patience=1, min_delta=100.0
                ),
            ],
        )
        restored = keras.models.load_model(path)
        np.testing.assert_allclose(
            restored.predict(X, verbose=0), model(X), rtol=1e-5, atol=1e-6
        )
        assert list((tmp_path / "logs").rglob("events*"))
        assert float(model.optimizer.learning_rate) < 0.1
        before = model.get_weights()
        self.fit(model)
        model.load_weights(tmp_path / "best.weights.h5")
        assert_weights_equal(model.get_weights(), before)
