"""Schedules of multipliers, steps and radii; terms that start at a later epoch."""

import copy
import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import nsl
from nsl.keras.schedules import at_step
from tests.keras.contract.base import SAMPLES, X, Y, assert_weights_equal, mlp
from tests.keras.graph_regularization_test import neighbors_of

SCHEDULES = keras.optimizers.schedules
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def adversarial(base=None, **config):
    settings = {"multiplier": 0.5, "adv_step_size": 0.2, **config}
    config = nsl.configs.make_adv_reg_config(**settings)
    base = mlp() if base is None else base
    return nsl.keras.AdversarialRegularization(base, adv_config=config)


def graph(base=None, **config):
    config = nsl.configs.make_graph_reg_config(**{"max_neighbors": 1, **config})
    base = mlp() if base is None else base
    return nsl.keras.GraphRegularization(base, config)


def compiled(model, **settings):
    model.compile(keras.optimizers.SGD(0.1), LOSS, **settings)
    return model


def features(model):
    term = model.terms()[-1].name
    return neighbors_of({"x": X}, 1) if term == "graph" else {"x": X}


def fit(model, epochs=4, **settings):
    defaults = {"batch_size": 8, "shuffle": False, "verbose": 0, "epochs": epochs}
    return model.fit(features(model), Y, **{**defaults, **settings}).history


def term_losses(history):
    [name] = [name for name in history if name.startswith("scaled_")]
    return np.array(history[name])


def train_on_batches(model, count):
    x, logs = features(model), []
    for _ in range(count):
        logs.append(model.train_on_batch(x, Y, return_dict=True))
    return term_losses({name: [log[name] for log in logs] for name in logs[0]})


class TestAtStep:
    def test_every_level_of_a_config(self):
        config = nsl.configs.make_adv_reg_config(
            multiplier=SCHEDULES.PolynomialDecay(0.0, 10, 1.0),
            pgd_epsilon=lambda step: 0.1 * step,
        )
        resolved = at_step(config, 5)
        assert float(resolved.multiplier) == 0.5
        assert float(resolved.adv_neighbor_config.pgd_epsilon) == 0.5
        assert resolved.adv_neighbor_config.adv_step_size == 0.001

    def test_a_config_without_schedules_stays(self):
        for config in (nsl.configs.AdvRegConfig(), nsl.configs.GraphRegConfig()):
            assert at_step(config, 3) is config


class TestMultiplier:
    @pytest.mark.parametrize(
        ("wrap", "settings"), [(adversarial, {"jit_compile": True}), (graph, {})]
    )
    def test_is_that_of_the_step(self, wrap, settings):
        schedule = SCHEDULES.PiecewiseConstantDecay([0, 1], [0.0, 0.5, 1.0])
        # Keras would update metrics over batches; one batch of no learning each.
        model = wrap(multiplier=schedule)
        model.compile(keras.optimizers.SGD(0.0), LOSS, **settings)
        losses = []
        for _ in range(4):
            model.reset_metrics()
            losses.append(train_on_batches(model, 1)[0])
        assert losses[0] == 0
        assert losses[2] > 0
        np.testing.assert_allclose(losses[1], 0.5 * losses[2], rtol=1e-5)
        np.testing.assert_allclose(losses[3], losses[2], rtol=1e-5)

    def test_constant_schedule_is_the_constant(self):
        for wrap in (adversarial, graph):
            weights = []
            for multiplier in (0.5, lambda step: 0.5):
                model = compiled(wrap(multiplier=multiplier))
                fit(model, epochs=1)
                weights.append(model.get_weights())
            assert_weights_equal(*weights)

    def test_zero_costs_no_pass(self):
        notes = []

        class Counted(keras.layers.Layer):
            def call(self, inputs, training=None):
                notes.append(training)
                return inputs

        schedule = SCHEDULES.PiecewiseConstantDecay([0], [0.0, 0.5])
        for objective in ("labeled", "trades"):
            model = adversarial(
                mlp(Counted()), multiplier=schedule, objective=objective
            )
            compiled(model, run_eagerly=True)
            notes.clear()
            model.train_on_batch(X, Y)
            assert notes == [True]
            model.train_on_batch(X, Y)
            assert len(notes) > 2
            assert notes[1]
            assert notes[-1]

    def test_steps_of_several_replicas(self):
        devices = [d.name for d in tf.config.list_logical_devices("CPU")]
        strategy = tf.distribute.MirroredStrategy(
            devices, cross_device_ops=tf.distribute.ReductionToOneDevice()
        )
        schedule = SCHEDULES.PiecewiseConstantDecay([1], [0.0, 0.5])
        with strategy.scope():
            model = compiled(adversarial(multiplier=schedule, start_epoch=1))
        single = compiled(adversarial(multiplier=schedule, start_epoch=1))
        losses = [term_losses(fit(each, epochs=2)) for each in (model, single)]
        np.testing.assert_allclose(*losses, rtol=1e-4)
        assert_weights_equal(model.get_weights(), single.get_weights(), 1e-5)


class TestNeighbors:
    @pytest.mark.parametrize("jit_compile", [False, True])
    def test_radius_and_step_are_those_of_the_optimizers_step(self, jit_compile):
        config = {"adv_grad_norm": "infinity", "pgd_iterations": 3}
        model = adversarial(
            pgd_epsilon=SCHEDULES.PolynomialDecay(0.1, 2, 0.5),
            adv_step_size=lambda step: 0.1 + 0.2 * tf.cast(step, tf.float32),
            **config,
        )
        compiled(model, jit_compile=jit_compile)
        constant = compiled(adversarial(pgd_epsilon=0.1, adv_step_size=0.1, **config))
        for each in (model, constant):
            each.train_on_batch(X, Y)
        assert_weights_equal(model.get_weights(), constant.get_weights(), 1e-5)
        model.train_on_batch(X, Y)
        moved = np.abs(model.perturb_on_batch(X, Y) - X)
        np.testing.assert_allclose(moved.max(), 0.5, rtol=1e-5)


class TestStartEpoch:
    @pytest.mark.parametrize(
        ("wrap", "settings"),
        [
            (adversarial, {"jit_compile": True}),
            (adversarial, {"run_eagerly": True}),
            (graph, {"steps_per_execution": 2}),
            (functools.partial(adversarial, objective="trades"), {}),
        ],
    )
    def test_begins_with_the_epoch(self, wrap, settings):
        model, at_start = compiled(wrap(start_epoch=2), **settings), []
        note = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: at_start.append(model.get_weights())
        )
        losses = term_losses(fit(model, epochs=4, callbacks=[note]))
        assert (losses[:2] == 0).all()
        assert (losses[2:] > 0).all()
        plain = compiled(mlp())
        plain.fit(X, Y, batch_size=8, shuffle=False, verbose=0, epochs=2)
        assert_weights_equal(at_start[2], plain.get_weights(), 1e-5)

    @pytest.mark.parametrize(
        "config", [{"mode": "replace"}, {"objective": "mart"}], ids=str
    )
    def test_before_it_the_labeled_loss_is_minimized(self, config):
        model = compiled(adversarial(start_epoch=1, **config))
        fit(model, epochs=1)
        plain = compiled(mlp())
        plain.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
        assert_weights_equal(model.get_weights(), plain.get_weights(), 1e-5)
        history = fit(model, epochs=2, initial_epoch=1)
        always = compiled(adversarial(plain, **config))
        expected = fit(always, epochs=1)
        np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-4)
        assert_weights_equal(model.get_weights(), always.get_weights(), 1e-4)

    def test_counts_from_the_initial_epoch(self):
        model = compiled(adversarial(start_epoch=3))
        losses = term_losses(fit(model, epochs=5, initial_epoch=2))
        assert losses[0] == 0
        assert (losses[1:] > 0).all()

    def test_every_form_of_callbacks(self):
        ends = []
        callback = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: ends.append(epoch)
        )
        model = compiled(adversarial(start_epoch=1))
        whole = keras.callbacks.CallbackList(
            [callback], add_history=True, model=model, epochs=2
        )
        for callbacks in (callback, [callback], whole):
            losses = term_losses(fit(model, epochs=2, callbacks=callbacks))
            assert losses[0] == 0
            assert losses[1] > 0
        assert ends == [0, 1] * 3

    def test_evaluation_always_counts_it(self):
        late = compiled(adversarial(start_epoch=9))
        always = compiled(adversarial())
        history = fit(late, epochs=1, validation_data=(X, Y))
        always.base_model.set_weights(late.get_weights())
        expected = always.evaluate(X, Y, verbose=0, return_dict=True)
        assert history["val_loss"][0] == pytest.approx(expected["loss"], rel=1e-5)

    def test_own_losses_and_batch_statistics_before_it(self):
        def base():
            keras.utils.set_random_seed(1)
            return keras.Sequential(
                [
                    keras.Input((4,), name="x"),
                    keras.layers.Dense(5, activity_regularizer="l2"),
                    keras.layers.BatchNormalization(),
                    keras.layers.Dense(3, kernel_regularizer="l2"),
                ]
            )

        late, plain = compiled(adversarial(base(), start_epoch=1)), compiled(base())
        loss = fit(late, epochs=1)["loss"]
        expected = plain.fit(X, Y, batch_size=8, shuffle=False, verbose=0).history
        assert loss == pytest.approx(expected["loss"], rel=1e-5)
        assert_weights_equal(late.get_weights(), plain.get_weights(), 1e-5)


class TestSaving:
    def test_copies(self):
        model = compiled(adversarial(start_epoch=1))
        fit(model, epochs=2)
        again = copy.deepcopy(model)
        losses = [term_losses(fit(each, epochs=2)) for each in (model, again)]
        np.testing.assert_allclose(*losses, rtol=1e-5)

    def test_schedules_of_keras(self, tmp_path):
        model = adversarial(
            multiplier=SCHEDULES.PolynomialDecay(0.0, 10, 1.0),
            pgd_epsilon=SCHEDULES.ExponentialDecay(0.1, 5, 0.9),
            start_epoch=2,
        )
        json.dumps(model.get_config()["adv_config"])
        fit(compiled(model), epochs=3)
        keras.saving.save_model(model, tmp_path / "whole.keras")
        loaded = keras.saving.load_model(tmp_path / "whole.keras")
        assert loaded.get_config()["adv_config"] == model.get_config()["adv_config"]
        assert type(loaded.adv_config.multiplier) is SCHEDULES.PolynomialDecay
        for each in (model, loaded):
            fit(each, epochs=4, initial_epoch=3)
        assert_weights_equal(loaded.get_weights(), model.get_weights(), 1e-6)

    def test_of_the_graph_wrapper(self):
        model = graph(multiplier=SCHEDULES.PolynomialDecay(0.0, 10, 1.0))
        again = type(model).from_config(model.get_config())
        assert float(again.graph_reg_config.multiplier(5)) == 0.5


def test_what_is_neither_number_nor_schedule():
    for make in (nsl.configs.AdvRegConfig, nsl.configs.GraphRegConfig):
        with pytest.raises(TypeError, match=r"number or a schedule.*'large'"):
            make(multiplier="large")


def test_mixed_precision_with_a_schedule():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled(adversarial(multiplier=lambda step: 0.5))
        losses = train_on_batches(model, 3)
    finally:
        keras.config.set_dtype_policy("float32")
    assert (losses > 0).all()
    assert int(model.optimizer.iterations) == 3
    assert len(X) == SAMPLES


def test_xla_with_a_recurrent_layer_before_and_after_the_start():
    def history(jit_compile):
        keras.utils.set_random_seed(1)
        base = keras.Sequential(
            [
                keras.Input(X.shape[1:]),
                keras.layers.Reshape((2, -1)),
                # Of recurrent layers the quickest for XLA to compile.
                keras.layers.SimpleRNN(3),
                keras.layers.Dense(3),
            ]
        )
        model = adversarial(base, start_epoch=1, pgd_iterations=2)
        compiled(model, jit_compile=jit_compile)
        return model.fit(X, Y, epochs=2, shuffle=False, verbose=0).history

    expected = history(False)
    assert term_losses(expected)[0] == 0
    for name, values in history(True).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, err_msg=name)
