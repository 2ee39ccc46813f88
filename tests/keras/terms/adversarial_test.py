"""The adversarial term in the place of the labeled loss."""

import keras
import pytest

import nsl
from tests.keras.contract import StepContract
from tests.keras.contract.base import SAMPLE_WEIGHT, X, Y, assert_weights_equal, mlp
from tests.keras.contract.losses import OwnLoss
from tests.keras.terms.objectives.digits import (
    accuracy,
    accuracy_under_attack,
    plain_accuracy_under_attack,
    train,
)

REPLACE = nsl.configs.make_adv_reg_config(
    mode="replace", adv_step_size=0.1, pgd_iterations=3, pgd_epsilon=0.2
)


class TestReplaceContract(StepContract):
    term_metric = "scaled_adversarial_loss"
    term_is_weighted = True

    def wrap(self, base):
        return nsl.keras.AdversarialRegularization(base, adv_config=REPLACE)


def base_model():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((4,), name="x"),
            keras.layers.Dense(5, "tanh", kernel_regularizer="l2"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3, activity_regularizer="l2"),
        ]
    )


def compiled(model, **settings):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"], **settings)
    return model


def replacing(base, **settings):
    model = nsl.keras.AdversarialRegularization(base, adv_config=REPLACE)
    return compiled(model, **settings)


class TestReplace:
    """Madry et al. (2018): training on adversarial neighbors, and nothing else."""

    @pytest.mark.parametrize("make_base", [base_model, OwnLoss])
    def test_is_training_the_base_model_on_perturbed_samples(self, make_base):
        keras.utils.set_random_seed(1)
        wrapper = replacing(make_base())
        wrapper.predict(X, verbose=0)
        by_hand = compiled(make_base())
        by_hand.predict(X, verbose=0)
        by_hand.set_weights(wrapper.get_weights())
        searching = replacing(by_hand)
        for _ in range(3):
            neighbors = searching.perturb_on_batch(X, Y, SAMPLE_WEIGHT)
            settings = {"sample_weight": SAMPLE_WEIGHT, "return_dict": True}
            logs = wrapper.train_on_batch(X, Y, **settings)
            expected = by_hand.train_on_batch(neighbors, Y, **settings)
            assert {name: logs[name] for name in expected} == pytest.approx(
                expected, rel=1e-4
            )
            assert_weights_equal(wrapper.get_weights(), by_hand.get_weights(), 1e-4)

    @pytest.mark.parametrize("make_base", [base_model, OwnLoss])
    def test_evaluation_has_metrics_of_samples_and_loss_of_neighbors(self, make_base):
        wrapper = replacing(make_base())
        wrapper.fit(X, Y, verbose=0)
        by_hand = compiled(wrapper.base_model)
        logs = wrapper.evaluate(X, Y, verbose=0, return_dict=True)
        clean = by_hand.evaluate(X, Y, verbose=0, return_dict=True)
        attacked = by_hand.evaluate(
            wrapper.perturb_on_batch(X, Y), Y, verbose=0, return_dict=True
        )
        assert logs["accuracy"] == clean["accuracy"]
        # The neighbors' activities are regularized in training alone.
        assert logs["loss"] == pytest.approx(attacked["loss"], rel=2e-2)
        assert logs["loss"] > 1.02 * clean["loss"]

    @pytest.mark.parametrize("random_init", [False, True])
    def test_passes_of_a_training_step(self, random_init):
        notes = []

        class Counted(keras.layers.Layer):
            def call(self, inputs, training=None):
                notes.append(training)
                return inputs

        config = nsl.configs.make_adv_reg_config(
            mode="replace", pgd_iterations=3, pgd_epsilon=0.3, random_init=random_init
        )
        model = nsl.keras.AdversarialRegularization(mlp(Counted()), config)
        compiled(model, run_eagerly=True)
        notes.clear()
        model.train_on_batch(X, Y)
        assert notes == [False, False, False, True]

    def test_builds_the_base_model_first(self):
        base = keras.Sequential([keras.layers.Dense(3, kernel_initializer="ones")])
        built = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(3, kernel_initializer="ones")]
        )
        for model in (base, built):
            replacing(model).fit(X, Y, shuffle=False, verbose=0)
        assert_weights_equal(base.get_weights(), built.get_weights())

    def test_needs_a_loss(self):
        model = nsl.keras.AdversarialRegularization(mlp(), adv_config=REPLACE)
        model.compile("sgd")
        with pytest.raises(ValueError, match="received no loss"):
            model.fit(X, verbose=0)


@pytest.mark.arithmetic
def test_digits_are_more_robust_than_without():
    robust = train(mode="replace")
    assert accuracy_under_attack(robust) > plain_accuracy_under_attack() + 0.2
    assert accuracy(robust) > 0.7
