"""What programs of NSL 1.4 do with a wrapper besides `fit`."""

import copy
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import nsl
from tests.keras.contract.base import SAMPLE_WEIGHT, X, Y, assert_weights_equal, mlp
from tests.keras.graph_regularization_test import neighbors_of

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
GRAPH = nsl.configs.make_graph_reg_config(max_neighbors=2, multiplier=0.3)
ADVERSARIAL = nsl.configs.make_adv_reg_config(multiplier=0.4, adv_step_size=0.2)


def adversarial(base=None, config=ADVERSARIAL, **kwargs):
    # A copy, for some tests set what a wrapper's config holds.
    config = copy.deepcopy(config)
    base = mlp() if base is None else base
    return nsl.keras.AdversarialRegularization(base, adv_config=config, **kwargs)


def graph(base=None, config=GRAPH, **kwargs):
    config = copy.deepcopy(config)
    base = mlp() if base is None else base
    return nsl.keras.GraphRegularization(base, config, **kwargs)


def compiled(model, **kwargs):
    model.compile(keras.optimizers.SGD(0.1), LOSS, metrics=["accuracy"], **kwargs)
    return model


def fitted(model, x, y=None):
    size = None if isinstance(x, tf.data.Dataset) else 8
    model.fit(x, y, batch_size=size, epochs=2, shuffle=False, verbose=0)
    return model


def assert_same_weights(model, expected):
    assert_weights_equal(model.get_weights(), expected.get_weights(), 1e-5)


def batches(data):
    return tf.data.Dataset.from_tensor_slices(data).batch(8).repeat(2)


LABELED = {"x": X, "label": Y}
WITH_NEIGHBORS = neighbors_of({"x": X}, 2)


@functools.cache
def weights_of(make):
    """What `fit` trains a plain wrapper to, computed once for all tests."""
    x = WITH_NEIGHBORS if make is graph else X
    return fitted(compiled(make()), x, Y).get_weights()


class TestLossesOfACustomLoop:
    """N1: a custom loop adds up `model.losses`."""

    @pytest.mark.parametrize("compile_step", [False, True])
    def test_adversarial_losses_are_all_that_fit_minimizes(self, compile_step):
        model = compiled(adversarial())

        def step(batch):
            with tf.GradientTape() as tape:
                model(batch, training=True)
                assert len(model.losses) == 2
                loss = tf.add_n(model.losses)
            gradients = tape.gradient(loss, model.trainable_weights)
            model.optimizer.apply(gradients, model.trainable_weights)

        step = tf.function(step) if compile_step else step
        for batch in batches(LABELED):
            step(batch)
        assert_weights_equal(model.get_weights(), weights_of(adversarial), 1e-5)

    def test_graph_losses_are_added_to_a_loss_of_its_own(self):
        model = compiled(graph())
        for x, y in batches((WITH_NEIGHBORS, Y)):
            with tf.GradientTape() as tape:
                y_pred = model(x, training=True)
                [graph_loss] = model.losses
                loss = LOSS(y, y_pred) + graph_loss
            gradients = tape.gradient(loss, model.trainable_weights)
            model.optimizer.apply(gradients, model.trainable_weights)
        assert_weights_equal(model.get_weights(), weights_of(graph), 1e-5)

    @pytest.mark.parametrize("objective", ["trades", "mart"])
    @pytest.mark.parametrize("inner", [mlp, graph])
    def test_losses_of_any_objective_and_stack(self, objective, inner):
        config = nsl.configs.make_adv_reg_config(
            multiplier=0.4, adv_step_size=0.2, objective=objective, random_init=False
        )
        x = WITH_NEIGHBORS if inner is graph else {"x": X}
        model = compiled(adversarial(inner(), config))
        model({**x, "label": Y}, training=True)
        logs = compiled(adversarial(inner(), config)).train_on_batch(
            x, Y, return_dict=True
        )
        # TRADES draws where it probes; its own test holds the numbers.
        tolerance = 0.2 if objective == "trades" else 1e-5
        assert float(tf.add_n(model.losses)) == pytest.approx(
            logs["loss"], rel=tolerance
        )

    def test_base_models_own_losses_count_once(self):
        def base():
            return mlp(keras.layers.ActivityRegularization(l2=0.1))

        model = compiled(adversarial(base()))
        model(LABELED, training=True)
        [labeled, scaled, own] = model.losses
        expected = compiled(adversarial(base()))
        logs = expected.train_on_batch(X, Y, return_dict=True)
        assert float(labeled + scaled + own) == pytest.approx(logs["loss"], rel=1e-5)

    def test_weights_inside_of_the_batch_count(self):
        model = compiled(adversarial(sample_weight_key="w"))
        model({**LABELED, "w": SAMPLE_WEIGHT}, training=True)
        logs = compiled(adversarial()).train_on_batch(
            X, Y, sample_weight=SAMPLE_WEIGHT, return_dict=True
        )
        assert float(sum(model.losses)) == pytest.approx(logs["loss"], rel=1e-5)

    @pytest.mark.parametrize(
        ("make", "batch"), [(adversarial, LABELED), (graph, WITH_NEIGHBORS)]
    )
    def test_none_without_training_or_what_it_takes(self, make, batch):
        model = compiled(make())
        model(batch, training=False)
        assert model.losses == []
        model({"x": X}, training=True)
        assert model.losses == []

    @pytest.mark.parametrize("training", [True, None])
    def test_graph_losses_need_no_compile(self, training):
        model, expected = graph(), compiled(graph())
        for made in (model, expected):
            made(WITH_NEIGHBORS, training=training)
        [found], [loss] = model.losses, expected.losses
        assert float(found) == pytest.approx(float(loss), rel=1e-6)

    def test_adversarial_losses_need_a_compiled_loss(self):
        model = adversarial()
        # Without `training`, a call may only be meant to build the model.
        model(LABELED)
        assert model.losses == []
        with pytest.raises(ValueError, match="adversarial term depends on the compil"):
            model(LABELED, training=True)

    @pytest.mark.parametrize("loss", [LOSS, [LOSS], {"out": LOSS}])
    def test_unlabeled_batches_before_any_labels(self, loss):
        config = nsl.configs.make_adv_reg_config(
            objective="virtual", adv_step_size=1.0, pgd_iterations=0, random_init=True
        )
        losses = []
        for labeled_before in (False, True):
            keras.utils.set_random_seed(0)
            inputs = keras.Input((4,), name="x")
            outputs = keras.layers.Dense(3, name="out")(inputs)
            model = adversarial(keras.Model(inputs, outputs), config)
            model.compile("sgd", loss)
            if labeled_before:
                # Keras learns which loss an output has when it first computes it.
                model.compute_loss(y=Y, y_pred=model.base_model(X))
            model({"x": X}, training=True)
            losses += map(float, model.losses)
        assert losses[0] > 0
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)

    def test_fit_leaves_no_losses_behind(self):
        model = fitted(compiled(adversarial()), LABELED)
        assert model.losses == []
        model.predict(LABELED, verbose=0)
        assert model.losses == []


class TestOverriddenCall:
    """N2: a subclass that overrides `call` runs in `fit`."""

    @pytest.mark.parametrize(
        ("kind", "jit_compile"),
        [("adversarial", False), ("graph", False), ("adversarial", True)],
    )
    def test_trains_as_without(self, kind, jit_compile):
        base_class = {
            "adversarial": nsl.keras.AdversarialRegularization,
            "graph": nsl.keras.GraphRegularization,
        }[kind]

        class Counting(base_class):  # type: ignore[valid-type]
            calls = 0

            def call(self, inputs, training=None):
                type(self).calls += 1
                return super().call(inputs, training=training)

        config = {"adversarial": {"adv_config": ADVERSARIAL}, "graph": {}}[kind]
        more = [GRAPH] if kind == "graph" else []
        x = WITH_NEIGHBORS if kind == "graph" else X
        model = compiled(Counting(mlp(), *more, **config), jit_compile=jit_compile)
        plain = compiled({"adversarial": adversarial, "graph": graph}[kind]())
        history = model.fit(x, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        expected = plain.fit(x, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        assert Counting.calls > 0
        assert_same_weights(model, plain)
        assert history.history.keys() == expected.history.keys()
        for name, values in history.history.items():
            np.testing.assert_allclose(values, expected.history[name], rtol=1e-4)
        np.testing.assert_allclose(
            model.evaluate({"x": X}, Y, verbose=0),
            plain.evaluate({"x": X}, Y, verbose=0),
            rtol=1e-4,
        )
        np.testing.assert_allclose(
            model.predict({"x": X}, verbose=0), plain.predict({"x": X}, verbose=0), 1e-4
        )

    def test_labels_inside_of_the_batch(self):
        class Same(nsl.keras.AdversarialRegularization):
            def call(self, inputs, training=None):
                return super().call(inputs, training=training)

        expected = weights_of(adversarial)
        for data in (LABELED, tf.data.Dataset.from_tensor_slices(LABELED).batch(8)):
            model = fitted(compiled(Same(mlp(), adv_config=ADVERSARIAL)), data)
            assert_weights_equal(model.get_weights(), expected, 1e-5)

    def test_other_outputs_are_trained_and_predicted(self):
        class Doubled(nsl.keras.GraphRegularization):
            def call(self, inputs, training=None):
                return 2 * super().call(inputs, training=training)

        model = compiled(Doubled(mlp(), nsl.configs.GraphRegConfig()))
        base = mlp()
        doubled = keras.Model(base.inputs, keras.layers.Rescaling(2.0)(base.outputs[0]))
        fitted(model, {"x": X}, Y)
        fitted(compiled(doubled), {"x": X}, Y)
        assert_same_weights(model, doubled)
        np.testing.assert_allclose(
            model.predict({"x": X}, verbose=0),
            doubled.predict({"x": X}, verbose=0),
            rtol=1e-5,
        )


class TestBaseModelIsCompiled:
    """N3: the base model is compiled along with the wrapper."""

    @pytest.mark.parametrize("make", [adversarial, graph])
    def test_evaluates_and_trains_by_itself(self, make):
        model = compiled(make())
        base = model.base_model
        expected = model.evaluate({"x": X}, Y, verbose=0, return_dict=True)
        found = base.evaluate(X, Y, verbose=0, return_dict=True)
        assert found["accuracy"] == expected["accuracy"]
        assert base.optimizer is model.optimizer
        base.fit(X, Y, verbose=0)
        assert int(model.optimizer.iterations) == 1

    def test_stacked(self):
        model = compiled(adversarial(graph()))
        assert model.base_model.compiled
        assert model.base_model.base_model.compiled

    def test_metrics_have_a_state_of_their_own(self):
        metric = keras.metrics.SparseCategoricalAccuracy(name="right")
        model = adversarial()
        model.compile("sgd", LOSS, metrics=[metric])
        logs = model.fit(X, Y, verbose=0, batch_size=8, epochs=1).history
        count = float(metric.count)
        model.base_model.evaluate(X[:4], Y[:4], verbose=0)
        assert float(metric.count) == count == len(X)
        assert "right" in logs

    def test_metric_that_cannot_be_copied_is_the_wrappers_alone(self):
        class Counting(keras.metrics.Metric):
            def __init__(self, step):
                super().__init__(name="counting")
                self.step, self.total = step, self.add_weight(initializer="zeros")

            def update_state(self, y_true, y_pred, sample_weight=None):
                self.total.assign_add(self.step)

            def result(self):
                return self.total.value

        model = adversarial()
        model.compile("sgd", LOSS, metrics=[Counting(2.0)])
        logs = model.fit(X, Y, batch_size=8, verbose=0).history
        assert logs["counting"] == [2.0 * len(X) / 8]
        assert model.base_model.evaluate(X, Y, verbose=0) > 0

    def test_saved_model_is_loaded_compiled(self, tmp_path):
        model = fitted(compiled(adversarial()), X, Y)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert loaded.evaluate(X, Y, verbose=0, return_dict=True) == pytest.approx(
            model.base_model.evaluate(X, Y, verbose=0, return_dict=True)
        )
        assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations)


class TestConfigThatChanges:
    """N4 and N5: the config is set, or changed in place, at any time."""

    def test_multiplier_changed_in_place(self):
        def config(multiplier):
            return nsl.configs.make_adv_reg_config(
                multiplier=multiplier, adv_step_size=0.2
            )

        model = compiled(adversarial(config=config(0.1)))
        model.adv_config.multiplier = 0.4
        fitted(model, X, Y)
        assert_weights_equal(model.get_weights(), weights_of(adversarial), 1e-5)
        # A step that has been compiled follows too.
        model.adv_config.multiplier = 0.0
        before = model.get_weights()
        fitted(model, X, Y)
        plain = compiled(mlp())
        plain.set_weights(before)
        fitted(plain, X, Y)
        assert_same_weights(model, plain)

    def test_config_is_set(self):
        model = fitted(compiled(adversarial(config=nsl.configs.AdvRegConfig())), X, Y)
        before = model.get_weights()
        model.adv_config = ADVERSARIAL
        fitted(model, X, Y)
        expected = compiled(adversarial())
        expected.set_weights(before)
        fitted(expected, X, Y)
        assert_same_weights(model, expected)

    def test_config_of_a_wrapped_wrapper(self):
        inner = graph(
            config=nsl.configs.make_graph_reg_config(max_neighbors=2, multiplier=0.1)
        )
        model = fitted(compiled(adversarial(inner)), WITH_NEIGHBORS, Y)
        before = model.get_weights()
        inner.graph_reg_config = GRAPH
        fitted(model, WITH_NEIGHBORS, Y)
        expected = compiled(adversarial(graph()))
        expected.set_weights(before)
        fitted(expected, WITH_NEIGHBORS, Y)
        assert_same_weights(model, expected)

    def test_start_that_is_set_later(self):
        model = fitted(compiled(adversarial()), X, Y)
        model.adv_config.start_epoch = 1
        logs = model.fit(X, Y, epochs=2, verbose=0).history
        first, second = logs["scaled_adversarial_loss"]
        assert first == 0 < second

    @pytest.mark.parametrize(
        ("make", "name"), [(adversarial, "adv_config"), (graph, "graph_reg_config")]
    )
    def test_anything_else_is_refused(self, make, name):
        with pytest.raises(TypeError, match=f"{name} must be"):
            setattr(make(), name, {"multiplier": 0.1})


def test_perturb_on_batch_gives_labels_as_tensors():
    """N9."""
    model = compiled(adversarial(sample_weight_key="w"))
    found = model.perturb_on_batch({**LABELED, "w": SAMPLE_WEIGHT})
    np.testing.assert_array_equal(found["label"].numpy(), Y)
    np.testing.assert_array_equal(found["w"].numpy(), SAMPLE_WEIGHT)
    np.testing.assert_allclose(
        tf.norm(found["x"] - X, axis=1), np.full(len(X), 0.2), rtol=1e-5
    )


class TestWithoutLabels:
    """Terms that need no labels train alone, in a model compiled without a loss."""

    VIRTUAL = nsl.configs.make_adv_reg_config(
        multiplier=1.0, adv_step_size=0.1, objective="virtual", from_logits=True
    )

    def test_graph(self):
        model = graph()
        model.compile(keras.optimizers.SGD(0.1))
        before = model.predict({"x": X}, verbose=0)
        logs = model.fit(WITH_NEIGHBORS, epochs=20, verbose=0).history
        assert logs["loss"] == logs["scaled_graph_loss"]
        assert logs["loss"][-1] < 0.9 * logs["loss"][0]
        assert not np.allclose(model.predict({"x": X}, verbose=0), before)
        assert model.evaluate({"x": X}, verbose=0) == 0.0

    @pytest.mark.parametrize("inner", [mlp, graph])
    def test_virtual(self, inner):
        model = adversarial(inner(), self.VIRTUAL)
        model.compile(keras.optimizers.SGD(0.1))
        x = WITH_NEIGHBORS if inner is graph else {"x": X}
        logs = model.train_on_batch(x, return_dict=True)
        assert logs["scaled_adversarial_loss"] > 0
        terms = [value for name, value in logs.items() if name.startswith("scaled")]
        assert logs["loss"] == pytest.approx(sum(terms))
        assert model.perturb_on_batch({"x": X})["x"].shape == X.shape

    def test_what_climbs_the_labeled_loss_is_refused(self):
        model = adversarial()
        model.compile("sgd")
        for method in (model.fit, model.perturb_on_batch):
            with pytest.raises(ValueError, match=r"compile\(\) received no loss"):
                method(X)


def test_fit_goes_on_after_a_mistake():
    model = compiled(graph())
    with pytest.raises(KeyError, match="NL_nbr_0_x"):
        model.fit({"x": X, "NL_nbr_0_weight": np.ones((len(X), 1))}, Y, verbose=0)
    fitted(model, WITH_NEIGHBORS, Y)
    assert_weights_equal(model.get_weights(), weights_of(graph), 1e-5)
