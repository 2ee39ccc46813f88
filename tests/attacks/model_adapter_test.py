"""How models of all kinds are called, and that their state is left alone."""

import collections
import gc
import threading
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression

import nsl
from nsl import attacks
from nsl.attacks.model_adapter import ModelAdapter, adapt
from nsl.keras.shared_pass import recurrent_states
from tests.attacks.linear import Linear, inputs

PGD = attacks.PGD(steps=4)


def state(model):
    return [tf.identity(v).numpy() for v in model.variables + recurrent_states(model)]


def unchanged(model, before):
    after = state(model)
    assert len(after) == len(before)
    return all(np.array_equal(a, b) for a, b in zip(after, before, strict=True))


def test_batch_statistics_dropout_and_seeds_are_left_alone():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input([12]),
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3),
        ]
    )
    before = state(model)
    x = inputs()
    found = PGD(model, x, epsilon=0.3)
    assert unchanged(model, before)
    # Dropout is off: the attack is as good as can be in spite of it.
    np.testing.assert_array_equal(found, PGD(model, x, epsilon=0.3))


class Noisy(keras.Model):
    """Adds noise even when it predicts."""

    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(1)
        self.dense = keras.layers.Dense(3)

    def call(self, x):
        noise = keras.random.normal(keras.ops.shape(x), seed=self.seeds)
        return self.dense(x + 0.1 * noise)


def test_a_model_that_is_random_by_itself_goes_on_where_it_was():
    keras.utils.set_random_seed(0)
    model, x = Noisy(), inputs()
    model(x)
    before = state(model)
    PGD(model, x, epsilon=0.3)
    assert unchanged(model, before)


def test_a_stateful_layer_starts_each_pass_where_it_was():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input(batch_shape=[3, 4, 2]),
            keras.layers.LSTM(5, stateful=True),
            keras.layers.Dense(3),
        ]
    )
    x = np.random.default_rng(0).normal(size=[7, 4, 2]).astype(np.float32)
    model.predict(x[:3], verbose=0)
    before = state(model)
    assert adapt(model).batch_size == 3
    attack = attacks.PGD(steps=4, random_start=False)
    found = attack(model, x, epsilon=0.3, batch_size=64)
    assert unchanged(model, before)
    # No batch and no step leaves its state to another one.
    alone = attack(model, x[3:6], epsilon=0.3)
    np.testing.assert_allclose(found[3:6], alone, atol=1e-6)


def test_state_is_left_alone_when_the_attack_fails():
    model = keras.Sequential([keras.Input([12]), keras.layers.BatchNormalization()])
    mean = model.layers[0].moving_mean
    before = state(model)

    class Fails:
        variables = model.variables

        def __call__(self, x):
            mean.assign(mean + 1.0)
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        PGD(Fails(), inputs(), epsilon=0.1)
    assert unchanged(model, before)


def test_state_kept_restores_and_takes_what_has_no_variables():
    class Model(tf.Module):
        def __call__(self, x):
            return x

    variable, model = tf.Variable(1.0, trainable=False), Model()
    model.v = variable  # type: ignore[attr-defined]
    with ModelAdapter(model).state_kept():
        variable.assign(5.0)
    assert variable.numpy() == 1.0

    def function(x):
        return x

    with ModelAdapter(function).state_kept():
        pass


def test_training_is_false_where_it_is_taken():
    seen = []

    def model(x, training=None):
        seen.append(training)
        return x

    PGD(model, inputs(), epsilon=0.1)
    assert set(seen) == {False}


def test_a_model_that_is_not_built_is_built():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(3)])
    found = PGD(model, inputs(), epsilon=0.2)
    assert np.abs(found - inputs()).max() > 0.1


def softmax(logits):
    shares = tf.exp(logits - tf.reduce_max(logits, axis=1, keepdims=True))
    return shares / tf.reduce_sum(shares, axis=1, keepdims=True)


@pytest.mark.parametrize("from_logits", [None, False])
def test_probabilities_become_logits(from_logits):
    logits, x = Linear(), inputs()
    found = PGD(lambda x: softmax(logits(x)), x, epsilon=0.2, from_logits=from_logits)
    np.testing.assert_allclose(found, PGD(logits, x, epsilon=0.2), atol=1e-5)


def test_what_keras_put_into_its_softmax_is_taken():
    """Probabilities that are rounded to 0 and 1 have no gradient of their own."""
    keras.utils.set_random_seed(0)
    x = inputs()
    dense = keras.layers.Dense(
        3, kernel_initializer=keras.initializers.RandomNormal(0, 90)
    )
    logits = keras.Sequential([keras.Input([12]), dense])
    model = keras.Sequential([logits, keras.layers.Activation("softmax")])
    assert model.predict(x, verbose=0).max(axis=1).min() > 1 - 1e-6
    found = PGD(model, x, epsilon=0.5)
    np.testing.assert_allclose(found, PGD(logits, x, epsilon=0.5), atol=1e-6)
    # Without them, nothing leads away from where an example starts.
    stuck = PGD(lambda x: tf.identity(model(x)), x, epsilon=0.5)
    assert not np.allclose(found, stuck)


@pytest.mark.parametrize("kind", ["logit", "probability", "flat"])
def test_one_output_for_two_classes(kind):
    weights, x = tf.constant(np.linspace(-1, 1, 12)[:, None], tf.float32), inputs()

    def model(x):
        logit = x @ weights - 0.2
        return {
            "logit": logit,
            "probability": tf.sigmoid(logit),
            "flat": tf.sigmoid(logit)[:, 0],
        }[kind]

    y = (x @ weights.numpy() > 0.2).astype(np.float32)
    found = attacks.FGSM()(
        model,
        x,
        y if kind != "flat" else y[:, 0],
        epsilon=0.1,
        from_logits=kind == "logit",
    )
    expected = x + 0.1 * np.where(y, -1, 1) * np.sign(np.linspace(-1, 1, 12))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("outputs", "from_logits"),
    [
        ([[0.25, 0.75], [0.9, 0.1]], False),
        ([[0.25, 0.7], [1.0, 0.0]], True),
        ([[-0.5, 1.5], [0.5, 0.5]], True),
        ([[0.2], [0.9]], False),
        ([[0.2], [1.1]], True),
    ],
)
def test_probabilities_are_detected(outputs, from_logits):

    def function(x):
        return tf.constant(outputs)

    model, x = ModelAdapter(function), tf.zeros([2, 1])
    model.examine(x)
    assert model.from_logits is from_logits
    np.testing.assert_allclose(
        tf.nn.softmax(model.logits(x))[:, -1],
        np.array(outputs)[:, -1]
        if not from_logits
        else tf.nn.softmax(
            tf.constant(outputs)
            if len(outputs[0]) == 2
            else [[0, o[0]] for o in outputs]
        )[:, -1],
        rtol=1e-5,
    )


def test_several_outputs_are_refused():
    with pytest.raises(ValueError, match=r"outputs are \[0, 1\].*output=.*loss_fn"):
        PGD(lambda x: [x, x], inputs(), epsilon=0.1)


# What goes through the model.


def test_counts_examples_in_eager_and_compiled_calls():
    def model(x):
        return x["a"] * 2.0

    adapter = ModelAdapter(model)
    x = {"a": tf.ones([3, 2]), "b": tf.zeros([3, 1])}
    np.testing.assert_array_equal(adapter(x), 2 * np.ones((3, 2)))
    assert adapter.passes == 3

    @tf.function
    def thrice(x):
        for _ in tf.range(3):  # type: ignore[attr-defined]
            adapter(x)

    thrice(x)
    assert adapter.passes == 12


@pytest.mark.parametrize("jit_compile", [False, True])
def test_counts_in_loops_under_xla(jit_compile):
    def model(x):
        return x + 1.0

    adapter = ModelAdapter(model)

    @tf.function(jit_compile=jit_compile)
    def run(x):
        return tf.while_loop(
            lambda i, _: i < 4, lambda i, x: (i + 1, adapter(x)), (0, x)
        )

    np.testing.assert_array_equal(run(tf.zeros([5, 1]))[1], 4 * np.ones((5, 1)))
    assert adapter.passes == 20


def test_an_adapter_shows_what_attacks_look_at():
    model = keras.Sequential([keras.Input((2,), batch_size=7), keras.layers.Dense(3)])
    adapter = ModelAdapter(model)
    assert adapter.call.__func__ is type(model).call
    assert adapter.variables == model.variables
    assert adapter.inputs is model.inputs
    assert adapter.batch_size == 7
    np.testing.assert_array_equal(
        adapter(tf.ones([7, 2]), training=True), model(tf.ones([7, 2]))
    )
    assert adapt(adapter) is adapter


def test_of_a_function_an_adapter_shows_nothing():
    def model(x, training=False):
        return x

    assert not hasattr(ModelAdapter(model), "variables")
    assert not hasattr(ModelAdapter(model), "_private")


def test_of_a_method_an_adapter_has_not_the_owner():
    class Owner:
        def answer(self, x):
            return x

    owner = Owner()
    assert not hasattr(ModelAdapter(owner.answer), "__self__")


# Kinds of models.


WEIGHTS = np.random.default_rng(5).normal(size=(12, 3)).astype(np.float32)


def dense(name=None, **settings):
    layer = keras.layers.Dense(3, use_bias=False, name=name, **settings)
    layer.build((None, 12))
    layer.set_weights([WEIGHTS])
    return layer


def expected():
    return attacks.FGSM()(dense(), inputs(), epsilon=0.2)


def named_outputs(kind):
    first = keras.Input((12,))
    hidden, chosen = dense("hidden"), dense("chosen")
    outputs = {"list": [-hidden(first), chosen(first)]}.get(kind)
    if kind == "dict":
        outputs = {"hidden": -hidden(first), "chosen": chosen(first)}
    return keras.Model(first, outputs)


@pytest.mark.parametrize(
    ("make", "output"),
    [
        (lambda z: {"a": -z, "b": z}, "b"),
        (lambda z: {"a": z, "b": {"c": z}}, "a"),
        (lambda z: (-z, z), 1),
        (lambda z: [z, -z], 0),
        (lambda z: [-z, z], -1),
        (lambda z: {"a": [-z, z]}, lambda outputs: outputs["a"][1]),
        (lambda z: tf.stack([z, -z], axis=1), lambda outputs: outputs[:, 0]),
        (lambda z: [z], None),
        (lambda z: {"a": z}, None),
    ],
)
def test_the_output_that_counts(make, output):
    layer = dense()

    def model(x):
        return make(layer(x))

    found = attacks.FGSM()(model, inputs(), epsilon=0.2, output=output)
    np.testing.assert_array_equal(found, expected())


@pytest.mark.parametrize(
    ("kind", "output"), [("list", "chosen"), ("list", 1), ("dict", "chosen")]
)
def test_outputs_that_keras_names(kind, output):
    model = named_outputs(kind)
    found = attacks.FGSM()(model, inputs(), epsilon=0.2, output=output)
    np.testing.assert_array_equal(found, expected())


@pytest.mark.parametrize("output", ["c", 2, ("a",), None])
def test_an_output_that_there_is_not_is_refused_with_those_there_are(output):
    def model(x):
        return {"a": x, "b": x}

    with pytest.raises(ValueError, match=r"\['a', 'b'\]"):
        PGD(model, inputs(), epsilon=0.1, output=output)


@pytest.mark.parametrize("name", ["predict", "predict_on_batch", "call", "__call__"])
def test_methods_of_a_keras_model_stand_for_it(name):
    model = keras.Sequential([keras.Input((12,)), dense()])
    found = attacks.FGSM()(getattr(model, name), inputs(), epsilon=0.2)
    np.testing.assert_array_equal(found, expected())
    assert adapt(getattr(model, name)).is_native


@pytest.fixture(scope="module")
def forest():
    x, y = inputs(200), np.arange(200) % 3
    x[:, 0] += y
    return RandomForestClassifier(10, random_state=0).fit(x, y)


def test_probabilities_of_a_function_of_arrays(forest):
    adapter, x = adapt(forest.predict_proba), inputs()
    adapter.examine(tf.constant(x))
    assert not adapter.is_native
    assert not adapter.decisions
    assert adapter.classes == 3
    assert not adapter.from_logits
    np.testing.assert_allclose(
        adapter.predict(x, 4), forest.predict_proba(x), atol=1e-6
    )
    before = adapter.passes
    attack = attacks.Square(steps=30, early_stop=False)
    found = attack(forest.predict_proba, x, epsilon=0.5)
    assert adapter.passes - before >= 9 * 31
    rows, y = np.arange(9), forest.predict(x)
    own = [forest.predict_proba(one)[rows, y] for one in (x, found)]
    assert np.all(own[1] <= own[0] + 1e-6)
    assert np.mean(own[1]) < np.mean(own[0]) - 0.1
    with pytest.raises(ValueError, match=r"no gradient.*Square"):
        PGD(forest.predict_proba, x, epsilon=0.5)


def test_labels_of_a_function_of_arrays(forest):
    adapter, x = adapt(forest.predict), inputs()
    adapter.examine(tf.constant(x), np.array([0, 1, 3]))
    assert adapter.decisions
    assert adapter.assumptions == ["The outputs are class labels, not scores."]
    # As many as the labels say, and one for what was never seen.
    assert adapter.classes == 4
    rows = adapter.logits(tf.constant(x)).numpy()
    np.testing.assert_array_equal(rows, np.eye(5)[forest.predict(x)])


def test_a_model_of_arrays_that_fails_says_so_itself():
    def model(x):
        raise KeyError("my own mistake")

    with pytest.raises(KeyError, match="my own mistake"):
        PGD(model, inputs(), epsilon=0.1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (LogisticRegression(), "pass its method predict_proba"),
        (LinearRegression(), "pass its method predict"),
        (3, "received int"),
        (None, "received NoneType"),
    ],
)
def test_what_is_no_model(model, message):
    with pytest.raises(TypeError, match=message):
        PGD(model, inputs(), epsilon=0.1)


# Logits or probabilities.


def column(**settings):
    layer = keras.layers.Dense(1, **settings)
    model = keras.Sequential([keras.Input((12,)), layer])
    # Within [0.25, 0.75], as a logit or as a probability.
    values = [np.full((12, 1), 0.04), np.array([0.27])]
    model.set_weights(values)
    return model


def examined(model, x=None, **given):
    adapter = ModelAdapter(model, **given)
    adapter.examine(tf.constant(inputs() if x is None else x))
    return adapter


def test_a_single_output_between_0_and_1_is_settled_by_the_last_layer():
    logit = column()
    assert 0.25 < logit(inputs()).numpy().min() < logit(inputs()).numpy().max() < 0.75
    adapter = examined(logit)
    assert (adapter.from_logits, adapter.guessed) == (True, False)
    assert "last activation" in adapter.assumptions[0]
    nested = keras.Sequential([keras.Input((12,)), keras.Sequential([column()])])
    assert examined(nested).from_logits
    adapter = examined(column(activation="sigmoid"))
    assert (adapter.from_logits, adapter.guessed) == (False, False)
    hard = examined(column(activation="hard_sigmoid"))
    assert hard.guessed


@pytest.mark.parametrize("from_logits", [True, False])
def test_a_compiled_loss_settles_it_too(from_logits):
    model = column(activation="hard_sigmoid")
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=from_logits))
    adapter = examined(model)
    assert (adapter.from_logits, adapter.guessed) == (from_logits, False)


def test_where_nothing_settles_it_it_is_a_guess():
    def model(x):
        return 0.25 + 0.5 * x[:, :1]

    adapter = examined(model)
    assert (adapter.from_logits, adapter.guessed) == (False, True)
    assert "all 9 that were checked lie in [0, 1]" in adapter.assumptions[0]
    for given in (True, False):
        adapter = examined(model, from_logits=given)
        assert (adapter.from_logits, adapter.guessed) == (given, False)
        assert adapter.assumptions == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_outputs_of_any_dtype_become_logits(dtype):
    def model(x):
        return tf.cast(softmax(4 * tf.cast(x[:, :3], tf.float64)), dtype)

    adapter = examined(model)
    assert not adapter.from_logits
    logits = adapter.logits(tf.constant(inputs()))
    assert logits.dtype == (tf.float64 if dtype == "float64" else tf.float32)
    tolerance = 0.02 if dtype.endswith("16") else 1e-5
    np.testing.assert_allclose(tf.nn.softmax(logits), model(inputs()), atol=tolerance)


# State and what is compiled.


def test_a_recurrent_state_is_left_alone_by_every_way_to_call():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input(batch_shape=[3, 4, 2]),
            keras.layers.LSTM(5, stateful=True),
            keras.layers.Dense(3),
        ]
    )
    x = np.random.default_rng(0).normal(size=[7, 4, 2]).astype(np.float32)
    clean = model(x[:3]).numpy()
    for layer in model.layers[:1]:
        layer.reset_states()
    before = state(model)
    adapter = ModelAdapter(model)
    adapter.examine(tf.constant(x[:3]))
    assert len(adapter.memory()) == 2
    assert unchanged(model, before)
    found = adapter.predict(x, 64)
    assert unchanged(model, before)
    assert found.shape == (7, 3)
    np.testing.assert_allclose(found[:3], clean, atol=1e-6)
    np.testing.assert_array_equal(adapter.predict(x, 64), found)


def test_no_more_than_16_programs_are_kept():
    model = Linear()
    adapter, attack = adapt(model), attacks.FGSM()
    for i in range(20):
        loss = lambda y, outputs, i=i: outputs[:, i % 5]  # noqa: E731
        attack(model, inputs(2), epsilon=0.1, loss_fn=loss)
    assert len(adapter._programs) == 16
    # The last one is among them.
    calls = model.calls
    attack(model, inputs(2), epsilon=0.1, loss_fn=loss)
    assert model.calls == calls


def test_an_adapter_lives_as_long_as_its_model():
    model = Linear()
    adapter = adapt(model)
    assert adapt(model) is adapter
    assert adapt(model, from_logits=True) is not adapter
    assert adapt(model) is adapter
    gone = weakref.ref(adapter)
    del model, adapter
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("evaluated", [False, True])
def test_a_keras_model_is_let_go(evaluated):
    model = keras.Sequential([keras.Input((12,)), dense()])
    if evaluated:
        nsl.evaluate_robustness(
            model, inputs(), np.zeros(9), 0.1, attacks="quick", check=False
        )
    else:
        PGD(model, inputs(), epsilon=0.1)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


class Settings(keras.Model):
    def __init__(self):
        super().__init__()
        self.sign = 1.0
        self.options = {"scale": np.ones(2, np.float32)}

    def call(self, x):
        TRACES.append(1)
        logits = self.sign * keras.ops.concatenate([x[:, :1], -x[:, :1]], axis=1)
        return logits * self.options["scale"]


# Not a list: a function that names one is another when it grows.
TRACES = collections.deque()


def moved(model):
    """Returns the sign in which the first column is moved, to attack class 0."""
    x = inputs()
    found = attacks.FGSM()(model, x, np.zeros(9), epsilon=0.1)
    [sign] = set(np.sign(np.round((found - x)[:, 0], 3)))
    return -sign


def test_another_attribute_is_seen_and_the_same_is_not_traced_again():
    model = Settings()
    assert moved(model) == 1
    for change, expected in (
        (lambda: setattr(model, "sign", -1.0), -1),
        (lambda: model.options.update({"scale": -np.ones(2, np.float32)}), 1),
        (lambda: setattr(model, "sign", 1.0), -1),
    ):
        change()
        TRACES.clear()
        assert moved(model) == expected
        assert TRACES
        TRACES.clear()
        assert moved(model) == expected
        assert not TRACES


def test_an_attribute_of_a_layer_within_is_seen():
    class Flip(keras.layers.Layer):
        sign = 1.0

        def call(self, x):
            return self.sign * keras.ops.concatenate([x[:, :1], -x[:, :1]], axis=1)

    layer = Flip()
    model = keras.Sequential([keras.Input((12,)), keras.Sequential([layer])])
    assert moved(model) == 1
    layer.sign = -1.0
    assert moved(model) == -1


def test_a_layer_that_is_added_or_taken_away_is_seen():
    flip = keras.layers.Dense(2, use_bias=False)
    first = keras.layers.Dense(2, use_bias=False)
    model = keras.Sequential([keras.Input((12,)), first])
    kernel = np.zeros((12, 2), np.float32)
    kernel[0] = 1, -1
    first.set_weights([kernel])
    assert moved(model) == 1
    model.add(flip)
    flip.set_weights([np.eye(2, dtype=np.float32)[::-1]])
    assert moved(model) == -1
    model.pop()
    assert moved(model) == 1


def test_what_a_function_closes_over_is_seen():
    sign, scale = 1.0, np.ones(2, np.float32)

    def model(x):
        TRACES.append(1)
        return sign * scale * tf.concat([x[:, :1], -x[:, :1]], axis=1)

    assert moved(model) == 1
    sign = -1.0
    assert moved(model) == -1
    scale[:] = -1.0
    assert moved(model) == 1
    TRACES.clear()
    assert moved(model) == 1
    assert not TRACES


def test_an_attribute_of_an_owner_of_a_method_is_seen():
    class Owner:
        sign = 1.0

        def answer(self, x):
            return self.sign * tf.concat([x[:, :1], -x[:, :1]], axis=1)

        def __call__(self, x):
            return self.answer(x)

    for call in (lambda owner: owner, lambda owner: owner.answer):
        owner = Owner()
        assert moved(call(owner)) == 1
        owner.sign = -1.0
        assert moved(call(owner)) == -1


def test_weights_may_change_without_another_trace():
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(2)])
    kernel = np.zeros((12, 2), np.float32)
    kernel[0] = 1, -1
    model.set_weights([kernel, np.zeros(2)])
    model.compile("sgd", "mse")
    assert moved(model) == 1
    programs = dict(adapt(model)._programs)
    assert programs
    model.fit(inputs(), np.zeros((9, 2)), verbose=0)
    model.set_weights([-kernel, np.zeros(2)])
    assert moved(model) == -1
    assert dict(adapt(model)._programs) == programs


def test_a_model_that_becomes_one_of_probabilities_is_examined_anew():
    class Model:
        final = staticmethod(tf.identity)

        def __call__(self, x):
            return self.final(4 * x[:, :3])

    model = Model()
    PGD(model, inputs(), epsilon=0.1)
    assert adapt(model).from_logits
    model.final = softmax
    PGD(model, inputs(), epsilon=0.1)
    assert not adapt(model).from_logits


def test_a_model_that_changes_a_variable_of_its_own_starts_each_pass_from_it():
    """Whatever the number of examples in a batch."""

    class Model(tf.Module):
        def __init__(self):
            super().__init__()
            self.mean = tf.Variable(0.0, trainable=False)

        def __call__(self, x):
            self.mean.assign(0.5 * self.mean + 0.5 * tf.reduce_mean(x))
            return x[:, :3] - self.mean

    model, x = Model(), inputs()
    attack = attacks.PGD(steps=3, random_start=False)
    found = attack(model, x, epsilon=0.1, batch_size=4)
    assert model.mean.numpy() == 0.0
    again = attack(model, x, epsilon=0.1, batch_size=9)
    assert model.mean.numpy() == 0.0
    np.testing.assert_allclose(found, again, atol=1e-6)
    assert np.abs(found - x).max() > 0.09


@pytest.mark.parametrize("way", ["asarray", "numpy", "predict"])
def test_a_function_that_reads_values_has_no_gradients(way):
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(3)])
    weights = model.layers[0].kernel.numpy()
    function = {
        "asarray": lambda x: tf.constant(np.asarray(x) @ weights),
        "numpy": lambda x: tf.constant(x.numpy() @ weights),
        "predict": lambda x: tf.constant(model.predict(x, verbose=0)),
    }[way]
    adapter, x = adapt(function), inputs()
    adapter.examine(tf.constant(x))
    assert not adapter.is_native
    np.testing.assert_allclose(adapter.predict(x, 4), x @ weights, atol=1e-6)
    options = {"epsilon": 0.2, "seed": 0}
    found = attacks.Square(steps=3)(function, x, **options)
    expected = attacks.Square(steps=3)(model, x, **options)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"no gradient.*Square"):
        PGD(function, x, epsilon=0.2)


def test_a_function_that_waits_for_tensorflow_on_the_only_thread(monkeypatch):
    """A traced attack would hold the thread that `predict` needs, forever."""
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(3)])
    traced = attacks.Square(steps=3)(model.predict_on_batch, inputs(), epsilon=0.2)
    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", "1")
    called_in_graph = []

    def predict(x):
        called_in_graph.append(threading.current_thread() is not main)
        return model.predict(x, verbose=0)

    main = threading.current_thread()
    for attack in attacks.Square(steps=3), attacks.HopSkipJump(steps=2):
        found = attack(predict, inputs(), epsilon=0.2)
        if isinstance(attack, attacks.Square):
            np.testing.assert_allclose(found, traced, atol=1e-6)
    assert called_in_graph
    assert not any(called_in_graph)


def test_a_function_that_cannot_be_traced_for_another_reason_keeps_its_gradients():
    def model(x):
        return x @ np.eye(12, dtype="float32") if tf.reduce_sum(x) > 0 else x

    adapter = adapt(model)
    adapter.examine(tf.constant(inputs()))
    assert adapter.is_native
