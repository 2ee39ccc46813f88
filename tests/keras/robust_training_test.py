"""Ways to train robust networks: free training, perturbed weights, starts in noise."""

import functools

import attrs
import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

import nsl
from nsl.keras import presets
from nsl.lib.adversarial_neighbor import projected_gradient_ascent
from tests.keras.contract.base import X, Y, assert_weights_equal, mlp

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RATE = 0.1
FREE = {
    "mode": "free",
    "pgd_iterations": 3,
    "pgd_epsilon": 0.3,
    "adv_step_size": 0.2,
    "adv_grad_norm": "infinity",
}


def compiled(base=None, compile_args=None, **config):
    model = nsl.keras.AdversarialRegularization(
        mlp() if base is None else base,
        adv_config=nsl.configs.make_adv_reg_config(**config),
    )
    settings = {"optimizer": keras.optimizers.SGD(RATE), "loss": LOSS}
    model.compile(**{**settings, **(compile_args or {})})
    return model


def fitted(model, **fit_args):
    settings = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}
    model.fit({"x": X}, Y, **{**settings, **fit_args})
    return model.get_weights()


@functools.cache
def expected_of(name):
    """What the plain form of each way in `BOTH` trains to, for several tests."""
    return fitted(compiled(**BOTH[name]))


def batches(epochs=2):
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).repeat(epochs)


def deep():
    """A network with dropout and normalization, whose state a pass may change."""
    return mlp(keras.layers.BatchNormalization(), keras.layers.Dropout(0.0))


class TestFreeTraining:
    def test_weights_of_algorithm_1_by_hand(self):
        base = mlp()
        for x, y in batches():
            moved = x
            for _ in range(3):
                with tf.GradientTape() as tape:
                    tape.watch(moved)
                    loss = LOSS(y, base(moved, training=True))
                of_input, *gradients = tape.gradient(
                    loss, [moved, *base.trainable_weights]
                )
                for weight, gradient in zip(
                    base.trainable_weights, gradients, strict=True
                ):
                    weight.assign_sub(RATE * gradient)
                move = tf.clip_by_value(moved + 0.2 * tf.sign(of_input) - x, -0.3, 0.3)
                moved = x + move
        assert_weights_equal(expected_of("free"), base.get_weights(), 1e-5)

    def test_each_batch_updates_the_weights_that_often(self):
        model = compiled(**FREE)
        fitted(model, epochs=1)
        assert int(model.optimizer.iterations) == 3 * 3

    def test_starts_at_random_within_the_ball(self):
        first = fitted(compiled(**FREE, random_init=True), epochs=1)
        again = fitted(compiled(**FREE, random_init=True), epochs=1)
        assert_weights_equal(first, again)
        still = fitted(compiled(**FREE), epochs=1)
        assert not np.allclose(first[0], still[0], atol=1e-5)

    def test_layer_in_the_place_of_features(self):
        name = "hidden"
        base = mlp(keras.layers.Dense(4, activation="tanh", name=name))
        expected = mlp(keras.layers.Dense(4, activation="tanh", name=name))
        below = keras.Model(expected.inputs, expected.get_layer(name).output)
        above = expected.layers[-1]
        for x, y in batches():
            center, move = below(x), tf.zeros([8, 4])
            for _ in range(3):
                with tf.GradientTape() as tape:
                    tape.watch(move)
                    loss = LOSS(y, above(below(x) + move))
                of_move, *gradients = tape.gradient(
                    loss, [move, *expected.trainable_weights]
                )
                for weight, gradient in zip(
                    expected.trainable_weights, gradients, strict=True
                ):
                    weight.assign_sub(RATE * gradient)
                moved = center + move + 0.2 * tf.sign(of_move)
                move = tf.clip_by_value(moved - center, -0.3, 0.3)
        model = compiled(base, **FREE, embedding_layer=name)
        assert_weights_equal(fitted(model), expected.get_weights(), 1e-5)

    def test_stacked_on_a_graph(self):
        graph = nsl.configs.make_graph_reg_config(max_neighbors=1, multiplier=0.3)
        x = {"x": X, "NL_nbr_0_x": X[::-1].copy(), "NL_nbr_0_weight": np.ones((24, 1))}
        base = nsl.keras.GraphRegularization(mlp(), graph)
        model = compiled(base, **FREE)
        logs = model.fit(x, Y, batch_size=8, epochs=1, verbose=0).history
        assert logs["scaled_graph_loss"][0] > 0
        assert int(model.optimizer.iterations) == 9

    def test_recurrent_state_begins_anew_for_each_update(self):
        def base():
            keras.utils.set_random_seed(4)
            return keras.Sequential(
                [
                    keras.Input((4, 1), batch_size=8),
                    keras.layers.GRU(3, stateful=True),
                    keras.layers.Dense(3),
                ]
            )

        one = compiled(base(), **{**FREE, "pgd_iterations": 1})
        several = compiled(base(), {"optimizer": keras.optimizers.SGD(0.0)}, **FREE)
        one.optimizer.learning_rate = 0.0
        x = X[..., np.newaxis]
        for model in (one, several):
            model.fit(x, Y, batch_size=8, epochs=1, shuffle=False, verbose=0)
        state, expected = (
            np.asarray(model.base_model.layers[0].states[0]) for model in (several, one)
        )
        # Of the last update, at neighbors of the samples instead of at them.
        np.testing.assert_allclose(state, expected, atol=0.3)
        assert not np.allclose(state, 0)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"start_epoch": 1}, "start_epoch=1"),
            ({"pgd_iterations": 0}, "pgd_iterations=0"),
            ({"objective": "trades"}, "objective"),
        ],
    )
    def test_settings_that_do_not_go_with_it(self, settings, message):
        with pytest.raises(ValueError, match=message):
            nsl.configs.make_adv_reg_config(**{**FREE, **settings})


class TestWeightPerturbation:
    @pytest.mark.parametrize("mode", ["replace", "add"])
    def test_weights_by_hand(self, mode):
        gamma, step = 0.05, 0.2
        base = mlp()

        def loss_of(x, y, neighbor):
            loss = LOSS(y, base(neighbor))
            return loss if mode == "replace" else LOSS(y, base(x)) + 0.5 * loss

        for x, y in batches():
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = LOSS(y, base(x))
            neighbor = x + step * tf.sign(tape.gradient(loss, x))
            weights = base.trainable_weights
            with tf.GradientTape() as tape:
                loss = loss_of(x, y, neighbor)
            before = [np.array(weight) for weight in weights]
            gradients = tape.gradient(loss, weights)
            for weight, w, g in zip(weights, before, gradients, strict=True):
                if w.ndim > 1:
                    length = gamma * np.linalg.norm(w) / np.linalg.norm(g)
                    weight.assign(w + length * g)
            with tf.GradientTape() as tape:
                loss = loss_of(x, y, neighbor)
            gradients = tape.gradient(loss, weights)
            for weight, w, g in zip(weights, before, gradients, strict=True):
                weight.assign(w - RATE * g)
        model = compiled(
            mode=mode,
            multiplier=0.5,
            adv_step_size=step,
            adv_grad_norm="infinity",
            weight_perturbation=gamma,
        )
        assert_weights_equal(fitted(model), base.get_weights(), 1e-5)

    # Both draw random numbers; the labeled objective is computed by hand above.
    @pytest.mark.parametrize("objective", ["trades", "virtual"])
    def test_0_changes_nothing(self, objective):
        settings = {"objective": objective, "adv_step_size": 0.2}
        plain = fitted(compiled(**settings))
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay([100], [0.0, 0.0])
        found = fitted(compiled(**settings, weight_perturbation=schedule))
        assert_weights_equal(found, plain, 1e-6)

    def test_logs_are_of_the_weights_themselves(self):
        logs = [
            compiled(compile_args={"metrics": ["accuracy"]}, weight_perturbation=gamma)
            .fit(X, Y, batch_size=24, verbose=0)
            .history
            for gamma in (0.0, 0.5)
        ]
        assert {name: value for name, [value] in logs[0].items()} == pytest.approx(
            {name: value for name, [value] in logs[1].items()}, rel=1e-6
        )

    def test_state_is_that_of_one_pass(self):
        expected = deep()
        expected(X[:8], training=True)
        model = compiled(deep(), mode="replace", adv_step_size=0.0)
        perturbed = compiled(
            deep(), mode="replace", adv_step_size=0.0, weight_perturbation=0.1
        )
        for one in (model, perturbed):
            one.train_on_batch(X[:8], Y[:8])
            means = one.base_model.layers[1].moving_mean
            np.testing.assert_allclose(means, expected.layers[1].moving_mean, rtol=1e-5)

    def test_penalties_of_the_base_model_count_once(self):
        def base():
            keras.utils.set_random_seed(1)
            return keras.Sequential(
                [
                    keras.Input((4,), name="x"),
                    keras.layers.Dense(
                        3, kernel_regularizer=keras.regularizers.L2(1.0)
                    ),
                ]
            )

        expected = base()
        weight, bias = expected.trainable_weights
        w = np.array(weight)
        with tf.GradientTape() as tape:
            loss = LOSS(Y, expected(X)) + tf.reduce_sum(weight.value**2)
        g = tape.gradient(loss, weight)
        weight.assign(w + 0.1 * np.linalg.norm(w) * g / np.linalg.norm(g))
        with tf.GradientTape() as tape:
            loss = LOSS(Y, expected(X)) + tf.reduce_sum(weight.value**2)
        g, of_bias = tape.gradient(loss, [weight, bias])
        weight.assign(w - RATE * g)
        bias.assign_sub(RATE * of_bias)
        model = compiled(
            base(), mode="replace", adv_step_size=0.0, weight_perturbation=0.1
        )
        model.train_on_batch(X, Y)
        assert_weights_equal(model.get_weights(), expected.get_weights(), 1e-5)

    def test_embeddings(self):
        keras.utils.set_random_seed(1)
        base = keras.Sequential(
            [
                keras.Input((3,), dtype="int32"),
                keras.layers.Embedding(5, 4, name="embedding"),
                keras.layers.Flatten(),
                keras.layers.Dense(3),
            ]
        )
        model = compiled(
            base, embedding_layer="embedding", weight_perturbation=0.05, mode="replace"
        )
        before = model.get_weights()
        model.fit(np.arange(24 * 3).reshape(24, 3) % 5, Y, verbose=0)
        assert all(
            np.isfinite(after).all() and not np.array_equal(after, then)
            for after, then in zip(model.get_weights(), before, strict=True)
        )

    def test_weight_with_a_gradient_of_0_stays(self):
        # Reported of another implementation, which divided by the norm.
        base = mlp(keras.layers.Dense(4, kernel_initializer="zeros", activation="relu"))
        found = fitted(compiled(base, weight_perturbation=0.1))
        assert all(np.isfinite(weight).all() for weight in found)

    @pytest.mark.parametrize("policy", ["float16", "bfloat16", "float64"])
    def test_weights_of_other_dtypes(self, policy):
        base = keras.Sequential(
            [keras.Input((4,), name="x"), keras.layers.Dense(3, dtype=policy)]
        )
        model = compiled(base, mode="replace", weight_perturbation=0.1)
        before = np.asarray(base.get_weights()[0], "float64")
        fitted(model)
        after = np.asarray(base.get_weights()[0], "float64")
        assert np.isfinite(after).all()
        assert not np.array_equal(after, before)

    def test_start_epoch_holds_for_the_weights_too(self):
        settings = {"adv_step_size": 0.2, "start_epoch": 1}
        first = fitted(compiled(**settings), epochs=1)
        found = fitted(compiled(**settings, weight_perturbation=0.1), epochs=1)
        assert_weights_equal(found, first, 1e-6)
        assert not np.allclose(
            fitted(compiled(**settings, weight_perturbation=0.1))[0],
            fitted(compiled(**settings))[0],
            atol=1e-6,
        )


BOTH = {"free": FREE, "weights": {"mode": "replace", "weight_perturbation": 0.05}}


@pytest.mark.parametrize("name", BOTH)
class TestBoth:
    """What both ways to update have in common."""

    def test_under_xla(self, name):
        found = fitted(compiled(compile_args={"jit_compile": True}, **BOTH[name]))
        assert_weights_equal(found, expected_of(name), 1e-5)

    def test_in_half_precision(self, name):
        base = keras.Sequential(
            [
                keras.Input((4,), name="x"),
                keras.layers.Dense(5, activation="tanh", dtype="mixed_float16"),
                keras.layers.Dense(3, dtype="mixed_float16"),
                keras.layers.Activation("linear", dtype="float32"),
            ]
        )
        base.set_weights(mlp().get_weights())
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(RATE))
        found = fitted(compiled(base, {"optimizer": optimizer}, **BOTH[name]))
        assert_weights_equal(found, expected_of(name), 1e-2)

    def test_saved_and_loaded(self, name, tmp_path):
        model = compiled(**BOTH[name])
        fitted(model)
        keras.saving.save_model(model, tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert loaded.adv_config == model.adv_config
        assert_weights_equal(fitted(loaded), fitted(model), 1e-5)

    def test_refused_by_the_loss_alone(self, name):
        config = nsl.configs.make_adv_reg_config(**BOTH[name])
        with pytest.raises(ValueError, match="does not update weights"):
            nsl.keras.adversarial_loss(X, Y, mlp(), LOSS, adv_config=config)

    def test_refused_in_a_custom_loop(self, name):
        model = compiled(**BOTH[name])
        with pytest.raises(ValueError, match="Train with fit"):
            model({"x": X, "label": Y}, training=True)
        # To evaluate and to predict there is nothing to refuse.
        model({"x": X, "label": Y}, training=False)
        model.evaluate({"x": X}, Y, verbose=0)


class TestEma:
    """Weights averaged by Keras."""

    def test_callbacks_and_the_trained_model_see_the_average(self):
        def ema():
            return keras.optimizers.SGD(RATE, use_ema=True, ema_momentum=0.5)

        found = []
        plain = mlp()
        plain.compile(ema(), LOSS)
        # Its neighbors are the samples, so that it trains as the plain model does.
        wrapped = compiled(
            compile_args={"optimizer": ema()}, mode="replace", adv_step_size=0.0
        )
        for model in (plain, wrapped):
            seen = []

            def note(epoch, logs, model=model, seen=seen):
                seen.append(model.get_weights())

            callbacks = [
                keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
                keras.callbacks.LambdaCallback(on_epoch_end=note),
            ]
            seen.append(fitted(model, callbacks=callbacks))
            found.append(seen)
        assert len(found[0]) == 3
        for expected, weights in zip(*found, strict=True):
            assert_weights_equal(weights, expected, 1e-5)
        last = compiled(mode="replace", adv_step_size=0.0)
        assert not np.allclose(fitted(last)[0], found[1][-1][0], atol=1e-6)


class TestPresets:
    @pytest.mark.parametrize("name", ["pgd", "trades", "fast", "free"])
    def test_trains_and_stays_within_bounds(self, name):
        config = getattr(presets, name)(0.1, bounds=(-1.0, 1.0))
        x = np.clip(X, -1, 1)
        model = nsl.keras.AdversarialRegularization(mlp(), adv_config=config)
        model.compile("sgd", LOSS)
        model.fit(x, Y, verbose=0)
        found = np.asarray(model.perturb_on_batch(x, Y))
        assert found.min() >= -1
        assert found.max() <= 1
        # The noise of N-FGSM leaves the ball.
        reach = 0.3 if name == "fast" else 0.1
        assert np.abs(found - x).max() == pytest.approx(reach, abs=0.05 * reach + 1e-6)

    def test_radius_for_each_feature(self):
        config = presets.fast({"a": 0.1, "b": np.array([0.2, 0.3])}, bounds=None)
        neighbor = config.adv_neighbor_config
        assert neighbor.random_init_radius["a"] == 0.2
        np.testing.assert_allclose(neighbor.random_init_radius["b"], [0.4, 0.6])

    def test_schedule_is_refused(self):
        with pytest.raises(TypeError, match="make_adv_reg_config"):
            presets.pgd(keras.optimizers.schedules.CosineDecay(0.1, 10))

    def test_radius_grows_in_the_warmup(self):
        config = presets.fast(0.1, bounds=None, warmup_steps=3)
        model = nsl.keras.AdversarialRegularization(mlp(), adv_config=config)
        model.compile("sgd", LOSS)
        found = []
        for _ in range(5):
            moved = np.asarray(model.perturb_on_batch(X, Y))
            found.append(np.abs(moved - X).max())
            model.train_on_batch(X, Y)
        expected = [0.0, 0.1, 0.2, 0.3, 0.3]
        np.testing.assert_allclose(found, expected, rtol=0.05, atol=1e-6)

    def test_radius_of_each_feature_does_not_grow(self):
        with pytest.raises(TypeError, match="warmup_steps=3"):
            presets.pgd({"x": 0.1}, warmup_steps=3)

    def test_saved_while_it_grows(self, tmp_path):
        config = presets.free(0.1, warmup_steps=3)
        model = nsl.keras.AdversarialRegularization(mlp(), adv_config=config)
        keras.saving.save_model(model, tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert float(loaded.adv_config.adv_neighbor_config.pgd_epsilon(9)) == (
            pytest.approx(0.1)
        )

    def test_weights_too(self):
        assert presets.trades(0.1, weight_perturbation=0.005).weight_perturbation


@pytest.mark.arithmetic
class TestCollapse:
    """One step from the samples themselves is soon all that a network withstands."""

    def trained(self, config):
        digits = load_digits()
        x = np.kron(digits.images / 16, np.ones((1, 2, 2)))[..., np.newaxis]
        x, y = x.astype("float32"), digits.target
        keras.utils.set_random_seed(0)
        base = keras.Sequential(
            [
                keras.Input(x.shape[1:]),
                keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
                keras.layers.Conv2D(
                    16, 3, strides=2, padding="same", activation="relu"
                ),
                keras.layers.Flatten(),
                keras.layers.Dense(64, activation="relu"),
                keras.layers.Dense(10),
            ]
        )
        model = nsl.keras.AdversarialRegularization(base, adv_config=config)
        model.compile(keras.optimizers.Adam(0.002), LOSS)
        watch = nsl.keras.callbacks.RobustAccuracy(
            x[1400:1700], y[1400:1700], 0.25, bounds=(0.0, 1.0), every_epochs=15
        )
        model.fit(
            x[:1400], y[:1400], batch_size=64, epochs=15, verbose=0, callbacks=[watch]
        )
        [one_step, robust] = (found[0.25] for found in watch.report.accuracy.values())
        return one_step, robust

    def test_happens_to_fgsm(self):
        config = nsl.configs.make_adv_reg_config(
            mode="replace",
            adv_step_size=0.25,
            adv_grad_norm="infinity",
            clip_value_min=0.0,
            clip_value_max=1.0,
        )
        one_step, robust = self.trained(config)
        assert robust < 0.2
        assert one_step > robust + 0.3

    def test_does_not_happen_to_the_preset(self):
        _, robust = self.trained(presets.fast(0.25, warmup_steps=300))
        assert robust > 0.25


class TestStartsInNoise:
    def test_start_has_a_radius_of_its_own(self):
        config = nsl.configs.AdvNeighborConfig(
            adv_step_size=0.1,
            adv_grad_norm="infinity",
            random_init=True,
            random_init_radius=0.2,
            pgd_iterations=0,
        )
        x = tf.zeros([100, 7])
        start = projected_gradient_ascent(x, None, config, gradient_fn=tf.ones_like)
        assert 0.19 < np.abs(start).max() <= 0.2
        moved = projected_gradient_ascent(
            x, None, attrs.evolve(config, pgd_iterations=1), gradient_fn=tf.ones_like
        )
        assert -0.1 <= np.min(moved) < -0.09
        assert 0.29 < np.max(moved) <= 0.3 + 1e-6

    def test_radius_without_a_random_start_is_refused(self):
        with pytest.raises(ValueError, match="random_init=True"):
            nsl.configs.make_adv_reg_config(random_init_radius=0.1)
