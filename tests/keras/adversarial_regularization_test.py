"""AdversarialRegularization: the contract of wrappers, NSL 1.4's figures, errors."""

import copy
import functools
import pickle
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import nsl
from tests.keras.contract import StateContract, WrapperContract
from tests.keras.contract.base import SAMPLE_WEIGHT, SAMPLES, X, Y, mlp, renewed


class TestFgsmContract(WrapperContract):
    term_metric = "scaled_adversarial_loss"
    term_in_evaluation = True
    term_is_weighted = True

    def wrap(self, base):
        config = nsl.configs.make_adv_reg_config(
            multiplier=0.5, adv_step_size=0.2, adv_grad_norm="infinity"
        )
        return nsl.keras.AdversarialRegularization(base, adv_config=config)

    @pytest.mark.parametrize("structure", ["tensor", "list", "tuple", "dict", "nested"])
    def test_structure_of_features(self, structure):
        first, second = X[:, :2], X[:, 2:]
        a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
        inputs, x = {
            "tensor": (a, first),
            "list": ([a, b], [first, second]),
            "tuple": ((a, b), (first, second)),
            "dict": ({"a": a, "b": b}, {"b": second, "a": first}),
            "nested": ({"n": {"a": a}, "b": b}, {"n": {"a": first}, "b": second}),
        }[structure]
        keras.utils.set_random_seed(1)
        flat = keras.tree.flatten(inputs)
        hidden = keras.layers.Concatenate()(flat) if len(flat) > 1 else flat[0]
        model = self.compiled(keras.Model(inputs, keras.layers.Dense(3)(hidden)))
        history = self.fit(model, x=x)
        assert np.isfinite(history.history["loss"]).all()
        logs = model.evaluate(x, Y, verbose=0, return_dict=True)
        assert np.isfinite(logs["loss"])
        assert model.predict(x, verbose=0).shape == (SAMPLES, 3)


class TestPgdContract(StateContract):
    term_metric = "scaled_adversarial_loss"
    term_is_weighted = True

    def wrap(self, base):
        config = nsl.configs.make_adv_reg_config(
            multiplier=0.5, adv_step_size=0.1, pgd_iterations=3, pgd_epsilon=0.2
        )
        return nsl.keras.AdversarialRegularization(base, adv_config=config)


def wrapped(base=None, **config):
    settings = {"multiplier": 0.5, "adv_step_size": 0.2, "adv_grad_norm": "infinity"}
    config = nsl.configs.make_adv_reg_config(**{**settings, **config})
    model = nsl.keras.AdversarialRegularization(base or mlp(), adv_config=config)
    model.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def fresh():
    """What `wrapped()` gives, traced once for all tests that change no more of it."""
    return renewed(wrapped)


class CountedPasses(keras.layers.Layer):
    """Notes the training argument of every pass."""

    def __init__(self, notes):
        super().__init__()
        # Keras would copy a list.
        self.note = notes.append

    def call(self, inputs, training=None):
        self.note(training)
        return inputs


class TestCost:
    @pytest.mark.parametrize("iterations", [1, 2, 5])
    def test_passes_of_a_training_step(self, iterations):
        notes = []
        model = wrapped(
            mlp(CountedPasses(notes)), pgd_iterations=iterations, pgd_epsilon=0.3
        )
        model.run_eagerly = True
        notes.clear()
        model.train_on_batch(X, Y)
        inner = [False] * (iterations - 1)
        assert notes == [True, *inner, True]

    def test_multiplier_of_zero_costs_nothing(self):
        notes = []
        model = wrapped(mlp(CountedPasses(notes)), multiplier=0.0)
        model.run_eagerly = True
        notes.clear()
        logs = model.train_on_batch(X, Y, return_dict=True)
        assert notes == [True]
        assert logs["scaled_adversarial_loss"] == 0

    def test_random_start_is_reproducible(self):
        def weights():
            keras.utils.set_random_seed(5)
            model = wrapped(random_init=True, pgd_epsilon=0.3, pgd_iterations=2)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile("sgd", loss)
            model.fit(X, Y, verbose=0, shuffle=False)
            return model.get_weights()

        for left, right in zip(weights(), weights(), strict=True):
            np.testing.assert_array_equal(left, right)


class DictBatches(keras.utils.PyDataset):
    def __len__(self):
        return SAMPLES // 8

    def __getitem__(self, index):
        rows = slice(8 * index, 8 * index + 8)
        return {"x": X[rows], "label": Y[rows]}


class TestDictForm:
    """One dict that holds features and labels, as in NSL 1.4."""

    @staticmethod
    @functools.cache
    def expected(class_weights=None, validated=False):
        model = fresh()
        fit_args = {"validation_data": (X, Y)} if validated else {}
        if class_weights is not None:
            fit_args["class_weight"] = dict(enumerate(class_weights))
        history = model.fit(X, Y, batch_size=8, shuffle=False, verbose=0, **fit_args)
        return model.get_weights(), history.history

    @pytest.mark.parametrize(
        "source", ["arrays", "dataset", "generator", "batches", "py"]
    )
    def test_trains_like_keras_form(self, source):
        batch = {"x": X, "label": Y}
        dataset = tf.data.Dataset.from_tensor_slices(batch).batch(8)
        expected, _ = self.expected()
        # Made for the test, so that its first data are in this form.
        model = wrapped() if source in ("arrays", "dataset") else fresh()
        if source == "arrays":
            model.fit(batch, batch_size=8, shuffle=False, verbose=0)
        elif source == "dataset":
            model.fit(dataset, verbose=0)
        elif source == "generator":
            model.fit((b for b in dataset.as_numpy_iterator()), verbose=0)
        elif source == "py":
            model.fit(DictBatches(), shuffle=False, verbose=0)
        else:
            for b in dataset:
                model.train_on_batch(b)
        for left, right in zip(model.get_weights(), expected, strict=True):
            np.testing.assert_allclose(left, right, atol=1e-6)

    def test_validation_evaluation_and_prediction(self):
        batch = {"x": X, "label": Y}
        model = wrapped()
        history = model.fit(
            batch, batch_size=8, shuffle=False, verbose=0, validation_data=batch
        ).history
        _, expected = self.expected(validated=True)
        assert set(history) == set(expected)
        for name, values in expected.items():
            np.testing.assert_allclose(history[name], values, rtol=1e-5)
        split = model.fit(batch, verbose=0, validation_split=0.5).history
        assert "val_accuracy" in split
        np.testing.assert_allclose(
            model.predict(batch, verbose=0), model.predict(X, verbose=0), rtol=1e-6
        )
        assert model.evaluate(batch, verbose=0) == model.evaluate(X, Y, verbose=0)

    @pytest.mark.parametrize("source", ["arrays", "dataset"])
    def test_class_weight(self, source):
        weights = 0.5, 2.0, 1.0
        x = {"x": X, "label": Y}
        if source == "dataset":
            x = tf.data.Dataset.from_tensor_slices(x).batch(8)
        expected, _ = self.expected(class_weights=weights)
        model = fresh()
        size = None if source == "dataset" else 8
        settings = {"batch_size": size, "shuffle": False, "verbose": 0}
        model.fit(x, class_weight=dict(enumerate(weights)), **settings)
        for left, right in zip(model.get_weights(), expected, strict=True):
            np.testing.assert_allclose(left, right, atol=1e-6)

    def test_class_weight_of_dict_batches_is_refused(self):
        with pytest.raises(ValueError, match=r"returns \(x, y\).*'label'"):
            wrapped().fit(DictBatches(), class_weight={0: 2.0}, verbose=0)

    def test_missing_labels_name_expected_and_received_keys(self):
        model = wrapped()
        with pytest.raises(ValueError, match=r"\['label'\].*received.*'target'"):
            model.fit({"x": X, "target": Y}, verbose=0)

    def test_missing_feature_names_expected_and_received_keys(self):
        model = wrapped()
        batch = {"a": X, "b": X, "label": Y}
        with pytest.raises(KeyError, match=r"\['x'\].*\['a', 'b'\]"):
            model.fit(batch, verbose=0)

    def test_several_labels_in_order_of_outputs(self):
        inputs = keras.Input((4,), name="x")
        outputs = [keras.layers.Dense(3)(inputs), keras.layers.Dense(1)(inputs)]
        model = nsl.keras.AdversarialRegularization(
            keras.Model(inputs, outputs), label_keys=["kind", "size"]
        )
        model.compile(
            loss=[keras.losses.SparseCategoricalCrossentropy(from_logits=True), "mse"]
        )
        batch = {"x": X, "kind": Y, "size": X[:, :1]}
        assert np.isfinite(model.fit(batch, verbose=0).history["loss"]).all()


class TestProtectedFeatures:
    """Labels and sample weights are inputs of the base model, but never perturbed."""

    def base(self):
        keras.utils.set_random_seed(1)
        inputs = {
            name: keras.Input(shape, name=name)
            for name, shape in {"x": (4,), "label": (3,), "weight": (1,)}.items()
        }
        hidden = keras.layers.Concatenate()(list(inputs.values()))
        return keras.Model(inputs, keras.layers.Dense(3)(hidden))

    @pytest.mark.parametrize("form", ["dict", "keras"])
    def test_stay_as_they_are(self, form):
        config = nsl.configs.make_adv_reg_config(adv_step_size=1.0)
        model = nsl.keras.AdversarialRegularization(
            self.base(), sample_weight_key="weight", adv_config=config
        )
        model.compile(loss="mse")
        label = np.eye(3, dtype="float32")[Y]
        x = {"x": X, "label": label, "weight": np.full((SAMPLES, 1), 2.0, "float32")}
        perturbed = model.perturb_on_batch(x, None if form == "dict" else label)
        np.testing.assert_array_equal(perturbed["label"], label)
        np.testing.assert_array_equal(perturbed["weight"], x["weight"])
        moved = np.linalg.norm(perturbed["x"] - X, axis=1)
        np.testing.assert_allclose(moved, 1.0, rtol=1e-4)
        model.fit(x, None if form == "dict" else label, verbose=0)

    def test_subclassed_model_with_labels_in_features(self):
        seen = []

        class Base(keras.Model):
            def __init__(self):
                super().__init__()
                self.out = keras.layers.Dense(3)

            def call(self, inputs):
                seen.append(sorted(inputs))
                return self.out(inputs["x"])

        for flag, expected in ((True, ["label", "x"]), (False, ["x"])):
            seen.clear()
            model = nsl.keras.AdversarialRegularization(
                Base(), base_with_labels_in_features=flag
            )
            model.compile(
                loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            )
            model.fit({"x": X, "label": Y}, verbose=0)
            assert all(keys == expected for keys in seen)


class TestPerturbOnBatch:
    def test_against_the_gradient(self):
        model = fresh()
        x = tf.constant(X)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
                Y, model.base_model(x)
            )
        expected = X + 0.2 * np.sign(tape.gradient(loss, x))
        perturbed = model.perturb_on_batch(X, Y)
        assert isinstance(perturbed, np.ndarray)
        np.testing.assert_allclose(perturbed, expected, rtol=1e-5)
        named = model.perturb_on_batch({"x": X, "label": Y})
        assert sorted(named) == ["label", "x"]
        np.testing.assert_allclose(named["x"], expected, rtol=1e-5)

    def test_batches_as_fit_takes_them(self):
        weights = np.arange(SAMPLES) % 2
        model = fresh()
        expected = model.perturb_on_batch(X, Y)
        np.testing.assert_array_equal(model.perturb_on_batch((X, Y)), expected)
        expected = model.perturb_on_batch(X, Y, weights)
        assert (expected[weights == 0] == X[weights == 0]).all()
        for batch in tf.data.Dataset.from_tensor_slices((X, Y, weights)).batch(24):
            np.testing.assert_array_equal(model.perturb_on_batch(batch), expected)
        found = model.perturb_on_batch((X, Y), sample_weight=weights)
        np.testing.assert_array_equal(found, expected)
        named = model.perturb_on_batch(({"x": X}, Y, weights))
        assert named.keys() == {"x"}
        np.testing.assert_array_equal(named["x"], expected)
        labels_inside = model.perturb_on_batch(({"x": X, "label": Y},))
        assert labels_inside.keys() == {"x", "label"}

    def test_a_tuple_of_features(self):
        inputs = [keras.Input((4,)), keras.Input((4,))]
        base = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Add()(inputs)))
        model = wrapped(base)
        expected = model.perturb_on_batch([X, X], Y)
        for found in (
            model.perturb_on_batch((X, X), Y),
            model.perturb_on_batch(((X, X), Y)),
        ):
            assert isinstance(found, tuple)
            np.testing.assert_array_equal(found, expected)

    def test_fields_of_the_config_can_be_given(self):
        model = fresh()
        perturbed = model.perturb_on_batch(
            X,
            Y,
            adv_grad_norm="l2",
            adv_step_size=0.1,
            pgd_iterations=5,
            pgd_epsilon=0.25,
            clip_value_max=1.0,
            feature_mask=np.array([1.0, 1.0, 1.0, 0.0]),
        )
        inside = X.max(axis=1) < 1.0
        assert inside.any()
        assert not inside.all()
        moved = np.linalg.norm(perturbed - X, axis=1)[inside]
        assert moved.max() <= 0.25 + 1e-5
        assert perturbed.max() <= 1.0
        np.testing.assert_array_equal(perturbed[:, 3], np.minimum(X[:, 3], 1.0))

    def test_moves_no_state(self):
        model = wrapped(
            mlp(keras.layers.BatchNormalization(), keras.layers.Dropout(0.5))
        )
        model.fit(X, Y, verbose=0)
        before = [v.numpy() for v in model.variables]
        first = model.perturb_on_batch(X, Y, pgd_iterations=3, pgd_epsilon=0.3)
        np.testing.assert_array_equal(
            first, model.perturb_on_batch(X, Y, pgd_iterations=3, pgd_epsilon=0.3)
        )
        for variable, value in zip(model.variables, before, strict=True):
            np.testing.assert_array_equal(variable, value)

    def test_before_the_base_model_is_built(self):
        base = keras.Sequential([keras.layers.Dense(3)])
        model = wrapped(base)
        assert np.abs(model.perturb_on_batch(X, Y) - X).max() > 0.1

    def test_labels_missing(self):
        with pytest.raises(ValueError, match="needs labels"):
            fresh().perturb_on_batch(X)

    def test_needs_compile(self):
        model = nsl.keras.AdversarialRegularization(mlp())
        with pytest.raises(ValueError, match="compile"):
            model.perturb_on_batch(X, Y)

    @pytest.mark.parametrize("dtype", ["float16", "float64"])
    def test_keeps_the_dtype(self, dtype):
        perturbed = fresh().perturb_on_batch(X.astype(dtype), Y)
        assert perturbed.dtype == dtype

    def test_strings_come_back_as_keras_takes_them(self):
        inputs = {"x": keras.Input((4,)), "kind": keras.Input((1,), dtype="string")}
        kind = keras.layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")
        joined = keras.layers.Concatenate()([inputs["x"], kind(inputs["kind"])])
        model = wrapped(keras.Model(inputs, keras.layers.Dense(3)(joined)))
        x = {"x": X, "kind": np.array(["a", "b"] * (len(X) // 2), object)}
        perturbed = model.perturb_on_batch(x, Y)
        assert perturbed["kind"] is x["kind"]
        assert (perturbed["x"] != X).any()
        model.predict(perturbed, verbose=0)


class TestNumbers:
    def test_non_finite_gradient_coordinates_perturb_nothing(self):
        class Root(keras.layers.Layer):
            def call(self, inputs):
                return keras.ops.sqrt(inputs)

        base = keras.Sequential([keras.Input((4,), name="x"), Root(), mlp()])
        x = np.abs(X)
        x[:, 0] = 0.0
        perturbed = wrapped(base).perturb_on_batch(x, Y)
        np.testing.assert_array_equal(perturbed[:, 0], 0.0)
        np.testing.assert_allclose(np.abs(perturbed - x)[:, 1:], 0.2, rtol=1e-4)

    @pytest.mark.parametrize("norm", ["l1", "l2", "infinity"])
    def test_zero_gradient_gives_no_nan(self, norm):
        base = mlp()
        base.layers[-1].set_weights([np.zeros((5, 3)), np.zeros(3)])
        model = wrapped(base, adv_grad_norm=norm, pgd_iterations=2, pgd_epsilon=0.2)
        np.testing.assert_array_equal(model.perturb_on_batch(X, Y), X)
        model.fit(X, Y, verbose=0)
        assert all(np.isfinite(weight).all() for weight in model.get_weights())

    def test_attack_direction_under_loss_scaling(self):
        full = fresh().perturb_on_batch(X, Y)
        keras.config.set_dtype_policy("mixed_float16")
        try:
            model = wrapped()
        finally:
            keras.config.set_dtype_policy("float32")
        assert model.optimizer.initial_scale > 1000
        half = model.perturb_on_batch(X, Y)
        assert (np.sign(half - X) == np.sign(full - X)).mean() > 0.97
        # Without scaling, a loss this small would have no gradient in half precision.
        tiny = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(loss=lambda y, p: 1e-4 * tiny(y, p))
        assert (model.perturb_on_batch(X, Y) != X).mean() > 0.97

    def test_images_of_bytes_are_refused(self):
        base = keras.Sequential(
            [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
        )
        images = np.zeros((SAMPLES, 4, 4, 1), "uint8")
        with pytest.raises(ValueError, match=r"uint8.*float32"):
            wrapped(base).fit(images, Y, verbose=0)

    def test_nothing_to_perturb(self):
        base = keras.Sequential(
            [keras.Input((4,), dtype="int32"), keras.layers.Embedding(9, 3)]
        )
        base.add(keras.layers.GlobalAveragePooling1D())
        with pytest.raises(ValueError, match=r"int32.*float"):
            wrapped(base).fit(np.zeros((SAMPLES, 4), "int32"), Y, verbose=0)


class TestArguments:
    def test_config_in_second_place(self):
        config = nsl.configs.make_adv_reg_config(multiplier=0.7)
        model = nsl.keras.AdversarialRegularization(mlp(), config)
        assert model.adv_config is config
        assert model.label_keys == ("label",)

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ({"label_keys": "label"}, "list or tuple of strings"),
            ({"label_keys": 3}, "list or tuple of strings"),
            ({"label_keys": nsl.configs.AdvNeighborConfig()}, "label_keys"),
            ({"sample_weight_key": nsl.configs.AdvRegConfig()}, "adv_config="),
            ({"adv_config": nsl.configs.AdvNeighborConfig()}, "AdvRegConfig"),
            ({"adv_config": {"multiplier": 0.2}}, "AdvRegConfig"),
        ],
    )
    def test_wrong_types_say_what_was_expected(self, arguments, expected):
        with pytest.raises(TypeError, match=expected):
            nsl.keras.AdversarialRegularization(mlp(), **arguments)

    def test_two_configs(self):
        config = nsl.configs.AdvRegConfig()
        with pytest.raises(TypeError, match="label_keys"):
            nsl.keras.AdversarialRegularization(mlp(), config, adv_config=config)

    @pytest.mark.parametrize("base", [None, "model", tf.Module(), lambda x: x])
    def test_base_model_that_is_no_keras_model(self, base):
        with pytest.raises(TypeError, match=r"keras\.Model"):
            nsl.keras.AdversarialRegularization(base)

    def test_legacy_keras_is_refused_by_name(self):
        legacy = type("Model", (), {"__module__": "tf_keras.src.engine.training"})
        with pytest.raises(TypeError, match="legacy package tf_keras"):
            nsl.keras.AdversarialRegularization(legacy())

    def test_train_step_of_the_base_model_is_not_used(self):
        class OwnStep(keras.Model):
            def train_step(self, data):
                return {}

        with pytest.warns(UserWarning, match="train_step of OwnStep will not be used"):
            nsl.keras.AdversarialRegularization(OwnStep())


class TestWeightsBesideTheDict:
    """Weights that come as arguments, with a dict that holds the labels."""

    @pytest.mark.parametrize(
        "weights",
        [{"sample_weight": SAMPLE_WEIGHT}, {"class_weight": {0: 2.0, 1: 0.5}}],
    )
    def test_reach_every_entry(self, weights):
        batch = {"x": X, "label": Y}
        found = []
        for data in ((X, Y), (batch,)):
            model = fresh()
            model.fit(*data, shuffle=False, verbose=0, **weights)
            model.train_on_batch(*data, **weights)
            found.append(model.get_weights())
        for expected, actual in zip(*found, strict=True):
            np.testing.assert_allclose(actual, expected, atol=1e-6)

    def test_reach_evaluation(self):
        batch, model = {"x": X, "label": Y}, fresh()
        weights = {"sample_weight": 10 * SAMPLE_WEIGHT}
        expected = model.evaluate(X, Y, verbose=0, **weights)
        assert model.evaluate(batch, verbose=0, **weights) == expected
        model.reset_metrics()
        found = model.test_on_batch(batch, **weights)
        model.reset_metrics()
        np.testing.assert_allclose(found, model.test_on_batch(X, Y, **weights))
        history = model.fit(
            X,
            Y,
            epochs=1,
            validation_data=(batch, None, weights["sample_weight"]),
            verbose=0,
        ).history
        assert history["val_loss"][0] == pytest.approx(
            model.evaluate(X, Y, verbose=0, **weights)[0], rel=1e-5
        )

    def test_dataset_of_one_tuples_with_class_weight(self):
        dataset = tf.data.Dataset.from_tensor_slices(({"x": X, "label": Y},)).batch(8)
        model, settings = fresh(), {"class_weight": {0: 1.0, 1: 3.0, 2: 1.0}}
        model.fit(dataset, verbose=0, **settings)
        found = model.get_weights()[0]
        model = fresh()
        model.fit(X, Y, batch_size=8, shuffle=False, verbose=0, **settings)
        np.testing.assert_allclose(found, model.get_weights()[0], atol=1e-6)

    def test_mistyped_key_is_an_error(self):
        model = nsl.keras.AdversarialRegularization(mlp(), sample_weight_key="wieght")
        model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        batch = {"x": X, "label": Y, "weight": SAMPLE_WEIGHT}
        with pytest.raises(ValueError, match=r"'wieght'.*'weight'"):
            model.fit(batch, verbose=0)


class TestSubclassedBase:
    class Concatenated(keras.Model):
        """Takes all features that it is given."""

        def __init__(self):
            super().__init__()
            self.out = keras.layers.Dense(3)

        def call(self, inputs):
            return self.out(keras.ops.concatenate(list(inputs.values()), axis=-1))

    def test_labels_are_no_features_anywhere(self):
        model = wrapped(self.Concatenated())
        batch = {"x": X, "label": Y[:, None]}
        model.fit(batch, verbose=0)
        model.evaluate(batch, verbose=0)
        expected = model.predict({"x": X}, verbose=0)
        np.testing.assert_allclose(model.predict(batch, verbose=0), expected)
        np.testing.assert_allclose(model(batch), expected, rtol=1e-6)


class TestRandomStart:
    def model(self):
        return wrapped(random_init=True, pgd_epsilon=0.3, pgd_iterations=2)

    @pytest.mark.parametrize("form", ["whole", "weights"])
    def test_goes_on_after_saving(self, form, tmp_path):
        keras.utils.set_random_seed(5)
        model = self.model()
        model.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
        if form == "whole":
            keras.saving.save_model(model, tmp_path / "whole.keras")
            loaded = keras.saving.load_model(tmp_path / "whole.keras")
        else:
            model.save_weights(tmp_path / "model.weights.h5")
            loaded = self.model()
            loaded.load_weights(tmp_path / "model.weights.h5")
        for each in (model, loaded):
            each.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
        for left, right in zip(loaded.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_allclose(left, right, atol=1e-6)


class TestEvaluationState:
    def test_attack_moves_nothing(self):
        class Counted(keras.layers.Layer):
            def __init__(self):
                super().__init__()
                self.passes = self.add_weight(
                    shape=(), dtype="int32", initializer="zeros", trainable=False
                )
                self.seeds = keras.random.SeedGenerator(3)

            def call(self, inputs):
                self.passes.assign_add(1)
                noise = keras.random.uniform(keras.ops.shape(inputs), seed=self.seeds)
                return inputs + 1e-3 * noise

        layer = Counted()
        model = wrapped(mlp(layer), pgd_iterations=3, pgd_epsilon=0.2)
        model.train_on_batch(X, Y)
        assert int(layer.passes) == 2
        model.test_on_batch(X, Y)
        assert int(layer.passes) == 3
        assert int(layer.seeds.state[1]) == 3
        model.perturb_on_batch(X, Y)
        assert int(layer.passes) == 3


class TestRefused:
    def test_second_term_of_the_same_name(self):
        with pytest.raises(ValueError, match="'adversarial' already"):
            nsl.keras.AdversarialRegularization(wrapped())

    def test_no_compiled_loss(self):
        model = nsl.keras.AdversarialRegularization(
            mlp(keras.layers.ActivityRegularization(0.1))
        )
        model.compile("sgd")
        with pytest.raises(ValueError, match="received no loss"):
            model.fit(X, verbose=0)

    def test_unknown_field_of_the_config(self):
        with pytest.raises(TypeError, match=r"\['adv_step'\].*adv_step_size"):
            fresh().perturb_on_batch(X, Y, adv_step=0.1)


class TestAsAModel:
    def test_copies(self):
        model = wrapped()
        model.fit(X, Y, verbose=0)
        expected = model.predict(X, verbose=0)
        for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            np.testing.assert_allclose(again.predict(X, verbose=0), expected, rtol=1e-6)

    def test_inside_another_model(self, tmp_path):
        inputs = keras.Input((4,))
        outer = keras.Model(inputs, keras.layers.Softmax()(wrapped()(inputs)))
        outer.save(tmp_path / "outer.keras")
        loaded = keras.saving.load_model(tmp_path / "outer.keras")
        np.testing.assert_allclose(loaded(X), outer(X), rtol=1e-6)

    def test_normal_use_warns_of_nothing(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = wrapped()
            model.fit(X, Y, validation_split=0.5, verbose=0)
            model.fit({"x": X, "label": Y}, verbose=0)
            model.predict(X, verbose=0)
            model.perturb_on_batch(X, Y)

    def test_metrics_of_the_base_model(self):
        @keras.saving.register_keras_serializable()
        class Own(keras.Model):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self.out = keras.layers.Dense(3)
                self.own = keras.metrics.Mean(name="own")

            def call(self, inputs):
                return self.out(inputs)

            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
                self.own.update_state(keras.ops.ones(()))
                return super().compute_loss(x, y, y_pred, sample_weight)

        base = Own()
        history = wrapped(base).fit(X, Y, batch_size=8, epochs=2, verbose=0).history
        assert history["own"] == [1.0, 1.0]
        assert float(base.own.count) == 3


class TestDirectImplementation:
    """Against a loop written by hand, with batch normalization."""

    def test_pgd(self):
        def base():
            keras.utils.set_random_seed(1)
            return keras.Sequential(
                [
                    keras.Input((6, 6, 1)),
                    keras.layers.Conv2D(3, 3, activation="relu"),
                    keras.layers.BatchNormalization(),
                    keras.layers.Flatten(),
                    keras.layers.Dense(3),
                ]
            )

        random = np.random.default_rng(0)
        images = random.normal(size=(SAMPLES, 6, 6, 1)).astype("float32")
        config = {"adv_grad_norm": "l2", "adv_step_size": 0.1}
        config |= {"pgd_iterations": 3, "pgd_epsilon": 0.2}
        model = wrapped(base(), **config)
        model.fit(images, Y, batch_size=8, shuffle=False, verbose=0)
        by_hand = base()
        loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = keras.optimizers.SGD(0.1)
        for start in range(0, SAMPLES, 8):
            x, y = tf.constant(images[start : start + 8]), Y[start : start + 8]
            weights = by_hand.trainable_weights
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(x)
                loss = loss_fn(y, by_hand(x, training=True))
            clean, gradient = tape.gradient(loss, weights), tape.gradient(loss, x)
            z = x
            for step in range(3):
                if step:
                    with tf.GradientTape() as tape:
                        tape.watch(z)
                        inner = loss_fn(y, by_hand(z, training=False))
                    gradient = tape.gradient(inner, z)
                length = tf.norm(tf.reshape(gradient, [8, -1]), axis=1)
                z += 0.1 * gradient / length[:, None, None, None]
                radius = tf.norm(tf.reshape(z - x, [8, -1]), axis=1)
                shrink = tf.minimum(1.0, 0.2 / radius)[:, None, None, None]
                z = x + shrink * (z - x)
            with tf.GradientTape() as tape:
                adversarial = 0.5 * loss_fn(y, by_hand(z, training=True))
            further = tape.gradient(adversarial, weights)
            total = [a + b for a, b in zip(clean, further, strict=True)]
            optimizer.apply_gradients(zip(total, weights, strict=True))
        for left, right in zip(model.get_weights(), by_hand.get_weights(), strict=True):
            np.testing.assert_allclose(left, right, atol=1e-5)
