"""Losses of every form; the base model's own count exactly once."""

import keras
import numpy as np
import pytest

from tests.keras.contract.base import (
    SAMPLE_WEIGHT,
    SAMPLES,
    ContractBase,
    X,
    Y,
    mlp,
)

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy


class PenalizedOutput(keras.layers.Layer):
    """Adds the mean square of what passes through to the losses of the model."""

    def call(self, inputs):
        self.add_loss(0.1 * keras.ops.mean(keras.ops.square(inputs)))
        return inputs


@keras.saving.register_keras_serializable()
class OwnLoss(keras.Model):
    """A model that computes its loss itself."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = keras.layers.Dense(5, activation="tanh", kernel_regularizer="l2")
        self.out = keras.layers.Dense(3)

    def call(self, inputs):
        x = inputs["x"] if isinstance(inputs, dict) else inputs
        return self.out(self.hidden(x))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return 3.0 * super().compute_loss(x, y, y_pred, sample_weight)


class LossesContract(ContractBase):
    """The labeled loss and the base model's own."""

    def two_headed(self):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((4,), name="x")
        hidden = keras.layers.Dense(5, activation="tanh")(inputs)
        outputs = {
            "kind": keras.layers.Dense(3, name="kind")(hidden),
            "size": keras.layers.Dense(1, name="size")(hidden),
        }
        return keras.Model(inputs, outputs)

    def test_several_outputs(self):
        settings = {
            "loss": {"kind": CROSSENTROPY(from_logits=True), "size": "mse"},
            "loss_weights": {"kind": 1.0, "size": 0.5},
            "metrics": {"kind": ["accuracy"], "size": ["mae"]},
        }
        y = {"kind": Y, "size": X[:, :1]}
        model = self.compiled(self.two_headed(), **settings)
        logs = model.train_on_batch(self.training_x({"x": X}), y, return_dict=True)
        base = self.two_headed()
        base.compile(**settings, run_eagerly=True)
        expected = base.test_on_batch(X, y, return_dict=True)
        assert logs["kind_loss"] == pytest.approx(expected["kind_loss"], rel=1e-5)
        assert logs["size_loss"] == pytest.approx(expected["size_loss"], rel=1e-5)
        assert logs["size_mae"] == pytest.approx(expected["size_mae"], rel=1e-5)
        assert logs["loss"] == pytest.approx(
            expected["loss"] + self.terms(logs), rel=1e-5
        )

    def test_regression(self):
        base = mlp()
        model = self.compiled(base, loss="mse", metrics=["mae"])
        history = self.fit(model, y=X[:, :3] * 2, epochs=5).history
        assert history["loss"][-1] < history["loss"][0]

    def test_dense_outputs(self):
        keras.utils.set_random_seed(1)
        base = keras.Sequential(
            [
                keras.Input((6, 6, 1), name="x"),
                keras.layers.Conv2D(4, 3, padding="same", activation="relu"),
                keras.layers.Conv2D(2, 3, padding="same"),
            ]
        )
        model = self.compiled(base)
        images = np.random.default_rng(0).normal(size=(SAMPLES, 6, 6, 1))
        images = images.astype("float32")
        labels = (images[..., 0] > 0).astype(int)
        x = self.training_x({"x": images})
        history = self.fit(model, x=x, y=labels, epochs=5).history
        assert history["loss"][-1] < history["loss"][0]

    @pytest.mark.parametrize(
        "reduction", ["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight"]
    )
    def test_reductions(self, reduction):
        loss = CROSSENTROPY(from_logits=True, reduction=reduction)
        model = self.compiled(loss=loss)
        logs = model.train_on_batch(
            self.training_x({"x": X}), Y, sample_weight=SAMPLE_WEIGHT, return_dict=True
        )
        base = mlp()
        base.compile(loss=loss, run_eagerly=True)
        labeled = base.test_on_batch(X, Y, sample_weight=SAMPLE_WEIGHT)
        assert logs["loss"] == pytest.approx(labeled + self.terms(logs), rel=1e-5)

    def test_no_reduction(self):
        summed = self.compiled(loss=CROSSENTROPY(from_logits=True, reduction="sum"))
        unreduced = self.compiled(loss=CROSSENTROPY(from_logits=True, reduction=None))
        x = self.training_x({"x": X})
        expected = summed.train_on_batch(x, Y, return_dict=True)
        actual = unreduced.train_on_batch(x, Y, return_dict=True)
        labeled = [logs["loss"] - self.terms(logs) for logs in (actual, expected)]
        # Keras logs the mean of an unreduced loss and differentiates its sum.
        assert labeled[0] == pytest.approx(labeled[1] / SAMPLES, rel=1e-4)

    def test_weight_regularizers_count_once(self):
        def base():
            keras.utils.set_random_seed(1)
            return keras.Sequential(
                [
                    keras.Input((4,), name="x"),
                    keras.layers.Dense(5, "tanh", kernel_regularizer="l2"),
                    keras.layers.Dense(3, activity_regularizer="l2"),
                ]
            )

        self._check_own_losses(base)

    def test_add_loss_counts_once(self):
        self._check_own_losses(lambda: mlp(PenalizedOutput()))

    def test_overridden_compute_loss_counts_once(self):
        def base():
            keras.utils.set_random_seed(1)
            return OwnLoss()

        self._check_own_losses(base)

    def _check_own_losses(self, make_base):
        loss = CROSSENTROPY(from_logits=True)
        model = self.compiled(make_base(), loss=loss)
        base = make_base()
        base.compile(loss=loss, run_eagerly=True)
        expected = base.test_on_batch(X, Y)
        logs = model.test_on_batch({"x": X}, Y, return_dict=True)
        total = expected + self.terms(logs)
        assert logs["loss"] == pytest.approx(total, rel=1e-5)
        model.reset_metrics()  # Before 3.15, Keras does not do so for single batches.
        in_training = model.train_on_batch(
            self.training_x({"x": X}), Y, return_dict=True
        )
        assert in_training["loss"] == pytest.approx(
            expected + self.terms(in_training), rel=1e-5
        )
