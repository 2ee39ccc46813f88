"""Which outputs objectives compare, how they read and how they average them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import nsl
from nsl.keras.compiled_losses import OutputLoss
from nsl.keras.terms import OutputPair
from tests.keras.contract.base import SAMPLE_WEIGHT, X, Y, mlp
from tests.keras.contract.losses import OwnLoss

RANDOM = np.random.default_rng(0)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def pair(clean, adversarial, binary=False, labels=None, weight=None, mask=None):
    loss = OutputLoss(LOSS, labels, weight, binary, True)
    tensors = [tf.constant(logits, tf.float32) for logits in (clean, adversarial)]
    return OutputPair(*tensors, binary, loss, mask)


def trained(base, loss, y, config=None, **settings):
    settings = {"objective": "trades", "adv_step_size": 0.3, **settings}
    config = config or nsl.configs.make_adv_reg_config(1.0, **settings)
    keras.utils.set_random_seed(1)
    model = nsl.keras.AdversarialRegularization(base, adv_config=config)
    model.compile(keras.optimizers.SGD(0.1), loss)
    logs = model.train_on_batch(X, y, return_dict=True)
    return logs["scaled_adversarial_loss"]


class TestDivergence:
    def test_of_yes_and_no_is_that_of_two_classes(self):
        yes = RANDOM.normal(size=(2, 6, 4))
        both = [np.stack([np.zeros_like(z), z], -1) for z in yes]
        np.testing.assert_allclose(
            pair(*yes, binary=True).divergence(), pair(*both).divergence(), atol=1e-6
        )

    def test_is_finite_for_certain_predictions(self):
        value = pair([[100.0, 0.0, 0.0]], [[0.0, 100.0, 0.0]]).divergence()
        np.testing.assert_allclose(value, [100.0], rtol=1e-5)


class TestMean:
    VALUES = RANDOM.uniform(size=(4, 3)).astype("float32")

    def mean(self, values, weighted=True, **settings):
        logits = np.zeros((4, 3, 2))
        return pair(logits, logits, **settings).mean(tf.constant(values), weighted)

    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("weight", [None, np.float32([0, 1, 2, 3])])
    def test_is_that_of_keras(self, masked, weight):
        class Values(keras.losses.Loss):
            def call(self, y_true, y_pred):
                return y_pred

        mask = tf.constant([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0]]) > 0
        values = tf.constant(self.VALUES)
        if masked:
            keras.src.backend.set_keras_mask(values, mask)
        expected = Values()(0.0, values, None if weight is None else weight[:, None])
        actual = self.mean(self.VALUES, weight=weight, mask=mask if masked else None)
        np.testing.assert_allclose(actual, expected, rtol=1e-5)

    def test_unweighted(self):
        actual = self.mean(self.VALUES, False, weight=np.zeros(4, "float32"))
        np.testing.assert_allclose(actual, self.VALUES.mean(), rtol=1e-5)

    def test_answers_of_one_position_count_as_one(self):
        values = RANDOM.uniform(size=(4, 3, 5)).astype("float32")
        mask = tf.constant([[True, True, False]] * 4)
        actual = self.mean(values, mask=mask)
        np.testing.assert_allclose(actual, values[:, :2].mean(), rtol=1e-5)


class TestReading:
    @pytest.mark.parametrize("objective", ["trades", "mart", "virtual"])
    def test_probabilities_as_logits(self, objective):
        class Plain(keras.layers.Layer):
            """Softmax without what Keras keeps of its input."""

            def call(self, inputs):
                return tf.nn.softmax(inputs)

        expected = trained(mlp(), LOSS, Y, objective=objective)
        assert expected > 1e-3
        for last in (keras.layers.Activation("softmax"), Plain()):
            base = keras.Sequential([*mlp().layers, last])
            actual = trained(
                base, "sparse_categorical_crossentropy", Y, objective=objective
            )
            assert actual == pytest.approx(expected, rel=1e-3)

    def test_what_the_config_says_counts_where_the_loss_does_not_tell(self):
        def own(y_true, y_pred):
            return keras.losses.sparse_categorical_crossentropy(
                y_true, y_pred, from_logits=True
            )

        with pytest.raises(ValueError, match=r"from_logits=True"):
            trained(mlp(), own, Y)
        actual = trained(mlp(), own, Y, from_logits=True)
        assert actual == pytest.approx(trained(mlp(), LOSS, Y), rel=1e-5)

    def test_regression_is_refused(self):
        with pytest.raises(ValueError, match=r"TRADES.*crossentropy of Keras"):
            trained(mlp(), "mse", X[:, :3])

    def test_only_the_outputs_that_are_class_scores_count(self):
        def model(heads):
            keras.utils.set_random_seed(1)
            inputs = keras.Input((4,), name="x")
            outputs = {
                "kind": keras.layers.Dense(3, name="kind")(inputs),
                "size": keras.layers.Dense(1, name="size")(inputs),
            }
            return keras.Model(inputs, {head: outputs[head] for head in heads})

        both = trained(
            model(["kind", "size"]),
            {"kind": LOSS, "size": "mse"},
            {"kind": Y, "size": X[:, :1]},
        )
        one = trained(model(["kind"]), {"kind": LOSS}, {"kind": Y})
        assert both == pytest.approx(one, rel=1e-5)

    def test_base_model_with_a_loss_of_its_own(self):
        assert trained(OwnLoss(), LOSS, Y) > 0

    @pytest.mark.parametrize("objective", ["trades", "mart", "logit_pairing"])
    @pytest.mark.parametrize("shape", [(), (1,)])
    def test_yes_or_no(self, objective, shape):
        base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        if not shape:
            base.add(keras.layers.Reshape(()))
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        y = (Y > 0).astype("float32").reshape(-1, *shape)
        assert trained(base, loss, y, objective=objective) > 1e-3


def test_masked_positions_do_not_count():
    def term(tokens, weight):
        keras.utils.set_random_seed(1)
        base = keras.Sequential(
            [
                keras.Input((None, 2), name="x"),
                keras.layers.Masking(),
                keras.layers.LSTM(4, return_sequences=True),
                keras.layers.Dense(3),
            ]
        )
        config = nsl.configs.make_adv_reg_config(
            1.0, objective="mart", adv_step_size=0.3
        )
        model = nsl.keras.AdversarialRegularization(base, adv_config=config)
        model.compile(keras.optimizers.SGD(0.1), LOSS)
        labels = np.zeros(tokens.shape[:2], int)
        logs = model.train_on_batch(
            tokens, labels, sample_weight=weight[:, None], return_dict=True
        )
        return logs["scaled_adversarial_loss"]

    short = RANDOM.normal(size=(24, 3, 2)).astype("float32")
    padded = np.pad(short, [(0, 0), (0, 2), (0, 0)])
    expected = term(short, SAMPLE_WEIGHT)
    assert term(padded, SAMPLE_WEIGHT) == pytest.approx(expected, rel=1e-4)
