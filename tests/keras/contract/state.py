"""Which passes move the state of a model, and which leave it alone."""

import keras
import numpy as np

from tests.keras.contract.base import (
    ContractBase,
    X,
    Y,
    assert_weights_equal,
    mlp,
)


class PassesContract(ContractBase):
    """What the passes of a step leave behind, which differ between objectives."""

    #: Passes that a step makes in training mode: the clean one and the term's.
    training_passes = 2

    def test_batch_normalization_moves_with_each_training_pass(self):
        momentum = 0.9
        base = mlp(keras.layers.BatchNormalization(momentum=momentum))
        norm = base.layers[1]
        seen = []

        class Spy(keras.layers.Layer):
            def call(self, inputs, training=None):
                seen.append((training, keras.ops.mean(inputs, axis=0)))
                return inputs

        base = keras.Sequential([keras.Input((4,), name="x"), base.layers[0], Spy()])
        base.add(norm)
        base.add(keras.layers.Dense(3))
        model = self.compiled(base, run_eagerly=True)
        model.train_on_batch(self.training_x({"x": X}), Y)
        means = [mean.numpy() for training, mean in seen if training]
        assert len(means) == self.training_passes
        expected = np.zeros_like(means[0])
        for mean in means:
            expected = momentum * expected + (1 - momentum) * mean
        np.testing.assert_allclose(norm.moving_mean, expected, rtol=1e-4, atol=1e-6)
        before = [v.numpy() for v in model.non_trainable_variables]
        model.test_on_batch({"x": X}, Y)
        model.predict(X, verbose=0)
        for variable, value in zip(model.non_trainable_variables, before, strict=True):
            np.testing.assert_array_equal(variable, value)

    def test_stateful_recurrent_layer_goes_on_where_the_clean_pass_ended(self):
        def base():
            keras.utils.set_random_seed(1)
            return keras.Sequential(
                [
                    keras.Input(batch_shape=(8, 4, 1), name="x"),
                    keras.layers.LSTM(5, stateful=True),
                    keras.layers.Dense(3),
                ]
            )

        wrapped, plain = base(), base()
        x = X[:8, :, None]
        model = self.compiled(wrapped, optimizer=keras.optimizers.SGD(0.0))
        training_x = self.training_x({"x": X[..., None]})
        batch = {name: value[:8] for name, value in training_x.items()}
        for _ in range(2):
            model.train_on_batch(batch, Y[:8])
            plain(x)
        for actual, expected in zip(
            wrapped.layers[0].states, plain.layers[0].states, strict=True
        ):
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
            assert np.abs(actual).sum() > 0


class StateContract(PassesContract):
    """Batch statistics, random layers, recurrent layers and frozen ones."""

    def test_random_layers_follow_the_seed(self):
        def run():
            keras.utils.set_random_seed(11)
            base = keras.Sequential(
                [
                    keras.Input((4,), name="x"),
                    keras.layers.GaussianNoise(0.1),
                    keras.layers.Dense(5, "tanh"),
                    keras.layers.Dropout(0.5),
                    keras.layers.Dense(3),
                ]
            )
            return self.trained_weights(base, shuffle=True)

        first, second = run(), run()
        assert_weights_equal(first, second)

    def test_recurrent_layer(self):
        keras.utils.set_random_seed(1)
        base = keras.Sequential(
            [
                keras.Input((4, 1), name="x"),
                keras.layers.GRU(5, dropout=0.2),
                keras.layers.Dense(3),
            ]
        )
        x = self.training_x({"x": X[..., None]})
        history = self.fit(self.compiled(base), x=x).history
        assert np.isfinite(history["loss"]).all()

    def test_preprocessing_inside_the_model(self):
        keras.utils.set_random_seed(1)
        normalize = keras.layers.Normalization()
        normalize.adapt(X)
        base = keras.Sequential(
            [keras.Input((4,), name="x"), normalize, keras.layers.Dense(3)]
        )
        history = self.fit(self.compiled(base), epochs=4).history
        assert history["loss"][-1] < history["loss"][0]

    def test_frozen_layers_stay_frozen(self):
        base = mlp()
        base.layers[0].trainable = False
        frozen = base.layers[0].get_weights()
        last = base.layers[-1].get_weights()
        self.fit(self.compiled(base))
        assert_weights_equal(base.layers[0].get_weights(), frozen)
        assert not np.allclose(base.layers[-1].get_weights()[0], last[0])
