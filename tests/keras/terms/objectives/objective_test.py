"""A new objective is one class; what objectives cost; what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import nsl
from nsl.keras.terms import AdversarialObjective
from tests.keras.contract.base import X, Y, mlp
from tests.keras.terms.objectives.by_hand import LOSS, wrapped


class Farther(nsl.keras.AdversarialObjective, objective="farther"):
    """The Euclidean distance of the logits, at the neighbor that diverges most."""

    climbs_divergence = True

    def __call__(self, passes, config):
        return tf.add_n(
            [
                pair.mean(tf.norm(pair.clean - pair.adversarial, axis=-1))
                for pair in passes.outputs()
            ]
        )


class TestNewObjective:
    @pytest.mark.arithmetic
    def test_trains_by_its_name(self):
        neighbors = wrapped(objective="farther").perturb_on_batch(X, Y)
        model = wrapped(objective="farther")
        away = np.linalg.norm(model(X) - model(neighbors), axis=1)
        logs = model.train_on_batch(X, Y, return_dict=True)
        np.testing.assert_allclose(
            logs["scaled_adversarial_loss"], 2.0 * away.mean(), rtol=1e-4
        )
        history = model.fit(X, Y, epochs=30, verbose=0).history
        assert (
            history["scaled_adversarial_loss"][-1]
            < 0.8 * history["scaled_adversarial_loss"][0]
        )

    def test_is_saved_by_its_name(self):
        model = wrapped(objective="farther")
        again = type(model).from_config(model.get_config())
        assert again.adv_config == model.adv_config
        assert again.adv_config.objective == "farther"

    def test_unknown_names_list_the_known(self):
        with pytest.raises(ValueError, match=r"'nearer'.*'farther'.*'trades'"):
            wrapped(objective="nearer")

    def test_a_class_without_a_name_is_refused(self):
        with pytest.raises(TypeError, match=r"Nameless\(.*objective="):

            class Nameless(nsl.keras.AdversarialObjective):
                def __call__(self, passes, config):
                    return 0.0

    def test_every_member_is_there(self):
        for member in nsl.configs.AdvObjective:
            assert AdversarialObjective.of(member) is AdversarialObjective.of(
                member.value
            )


class TestCost:
    # In evaluation the clean pass gives the first gradient, or what to diverge from.
    @pytest.mark.parametrize(
        ("objective", "random_init", "in_training", "in_evaluation"),
        [
            ("labeled", False, 2, 2),
            ("labeled", True, 3, 3),
            ("mart", False, 3, 2),
            ("logit_pairing", True, 3, 3),
            ("trades", False, 4, 3),
            ("trades", True, 4, 3),
            ("virtual", False, 4, 3),
        ],
    )
    def test_passes_of_a_step(self, objective, random_init, in_training, in_evaluation):
        notes = []

        class Counted(keras.layers.Layer):
            def call(self, inputs, training=None):
                notes.append(training)
                return inputs

        model = wrapped(mlp(Counted()), objective=objective, random_init=random_init)
        model.run_eagerly = True
        notes.clear()
        model.train_on_batch(X, Y)
        assert notes == [True, *[False] * in_training, True]
        notes.clear()
        model.test_on_batch(X, Y)
        assert notes == [False, *[False] * in_evaluation, False]

    def test_searching_neighbors_moves_no_state(self):
        base = mlp(keras.layers.BatchNormalization(), keras.layers.Dropout(0.5))
        model = wrapped(base, objective="trades")
        model.train_on_batch(X, Y)
        before = [v.numpy() for v in base.variables]
        model.test_on_batch(X, Y)
        model.perturb_on_batch(X, Y)
        for variable, value in zip(base.variables, before, strict=True):
            np.testing.assert_array_equal(variable, value)


def test_the_function_for_own_loops_knows_one_objective():
    config = nsl.configs.AdvRegConfig(objective="mart")
    with pytest.raises(ValueError, match=r"labeled loss.*'?mart"):
        nsl.keras.adversarial_loss(tf.constant(X), Y, mlp(), LOSS, adv_config=config)
