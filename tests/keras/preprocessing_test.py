"""A base model that preprocesses what it is given, as tasks of keras-hub do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import nsl
from tests.keras.contract.base import assert_weights_equal

WORDS = np.array(["good", "bad", "dull", "fine"])
TEXTS = np.array(["good", "bad", "fine", "dull", "bad", "good", "fine", "good"])
Y = np.array([1, 0, 1, 0, 0, 1, 1, 1])
ONE_HOT = (TEXTS[:, None] == WORDS).astype("float32")
WEIGHT = np.linspace(0.5, 2.0, 8).astype("float32")
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Classifier(keras.Model):
    """Takes words, and is called with one-hot rows."""

    def __init__(self):
        super().__init__()
        keras.utils.set_random_seed(0)
        self.hidden, self.out = keras.layers.Dense(3, "tanh"), keras.layers.Dense(2)

    def preprocess_samples(self, x, y=None, sample_weight=None):
        x = tf.cast(tf.equal(tf.convert_to_tensor(x)[:, None], WORDS), tf.float32)
        return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)

    def call(self, inputs):
        if isinstance(inputs, dict):
            [inputs] = inputs.values()
        return self.out(self.hidden(inputs))


class Plain(Classifier):
    """Takes the one-hot rows themselves."""

    preprocess_samples = property()


def assert_same_logs(found, expected):
    assert found.keys() == expected.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5)


CONFIG = nsl.configs.make_adv_reg_config(multiplier=0.3, adv_step_size=0.1)


def wrapped(base):
    model = nsl.keras.AdversarialRegularization(base, adv_config=CONFIG)
    model.compile(keras.optimizers.SGD(0.1), LOSS, metrics=["accuracy"])
    return model


@pytest.mark.parametrize(
    "data",
    [
        lambda x: {"x": x, "y": Y, "batch_size": 4},
        lambda x: {"x": list(x), "y": list(Y), "batch_size": 4},
        lambda x: {"x": x, "y": Y, "sample_weight": WEIGHT, "batch_size": 4},
        lambda x: {"x": tf.data.Dataset.from_tensor_slices((x, Y)).batch(4)},
        lambda x: {"x": ((x, Y) for _ in range(2)), "steps_per_epoch": 1},
    ],
    ids=["arrays", "lists", "weights", "dataset", "generator"],
)
def test_fit_preprocesses_as_the_task_does(data):
    model, plain = wrapped(Classifier()), wrapped(Plain())
    validation = {"validation_data": (TEXTS, Y)}, {"validation_data": (ONE_HOT, Y)}
    settings = {"epochs": 1, "shuffle": False, "verbose": 0}
    logs = model.fit(**data(TEXTS), **validation[0], **settings).history
    rows = data(ONE_HOT)
    if isinstance(rows["x"], list):
        rows |= {"x": ONE_HOT, "y": Y}
    expected = plain.fit(**rows, **validation[1], **settings).history
    assert_same_logs(logs, expected)
    assert_weights_equal(model.get_weights(), plain.get_weights())


def test_all_other_methods():
    model, plain = wrapped(Classifier()), wrapped(Plain())
    np.testing.assert_allclose(
        model.predict_on_batch(TEXTS), plain.predict_on_batch(ONE_HOT), rtol=1e-5
    )
    for method in ("train_on_batch", "test_on_batch", "evaluate"):
        settings = {"return_dict": True} | (
            {"verbose": 0} if method == "evaluate" else {}
        )
        found = getattr(model, method)(TEXTS, Y, **settings)
        expected = getattr(plain, method)(ONE_HOT, Y, **settings)
        assert_same_logs(found, expected)
    np.testing.assert_allclose(
        model.predict(TEXTS, verbose=0), plain.predict(ONE_HOT, verbose=0), rtol=1e-5
    )


def test_perturb_on_batch():
    model, plain = wrapped(Classifier()), wrapped(Plain())
    expected = plain.perturb_on_batch(ONE_HOT, Y)
    assert np.abs(expected - ONE_HOT).max() > 0
    for batch in ([TEXTS, Y], [list(TEXTS), list(Y)], [(TEXTS, Y)]):
        found = model.perturb_on_batch(*batch)
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_perturb_on_batch_of_a_dict():
    class Named(Classifier):
        def preprocess_samples(self, x, y=None, sample_weight=None):
            data = super().preprocess_samples(x["text"], y, sample_weight)
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
            return keras.utils.pack_x_y_sample_weight({"rows": x}, y, sample_weight)

    found = wrapped(Named()).perturb_on_batch({"text": TEXTS, "label": Y})
    assert found.keys() == {"rows", "label"}
    expected = wrapped(Plain()).perturb_on_batch(ONE_HOT, Y)
    np.testing.assert_allclose(found["rows"], expected, rtol=1e-5)


def test_validation_split():
    model, plain = wrapped(Classifier()), wrapped(Plain())
    settings = {"validation_split": 0.25, "shuffle": False, "verbose": 0}
    found = model.fit(TEXTS, Y, batch_size=3, **settings).history
    expected = plain.fit(ONE_HOT, Y, batch_size=3, **settings).history
    assert_same_logs(found, expected)


def test_arrays_are_shuffled_unless_told_otherwise():
    seen = []

    class Watching(Classifier):
        def preprocess_samples(self, x, y=None, sample_weight=None):
            tf.py_function(lambda words: seen.append(words.numpy().tolist()), [x], [])
            return super().preprocess_samples(x, y, sample_weight)

    wrapped(Watching()).fit(TEXTS, Y, batch_size=8, epochs=4, verbose=0)
    assert len({tuple(words) for words in seen}) > 1
    assert all(sorted(words) == sorted(TEXTS.astype(bytes)) for words in seen)


@pytest.mark.parametrize("stacked", [False, True])
def test_neighbors_are_preprocessed_like_samples(stacked):
    config = nsl.configs.make_graph_reg_config(max_neighbors=2, multiplier=0.5)

    def model_of(base):
        model = nsl.keras.GraphRegularization(base, config)
        if stacked:
            model = nsl.keras.AdversarialRegularization(model, adv_config=CONFIG)
        model.compile(keras.optimizers.SGD(0.1), LOSS)
        return model

    def batch(x):
        weights = np.linspace(0.1, 1, 8).astype("float32")[:, None]
        neighbors = {f"NL_nbr_{k}_x": np.roll(x, k + 1, axis=0) for k in range(2)}
        return {
            "x": x,
            **neighbors,
            **{f"NL_nbr_{k}_weight": weights for k in range(2)},
        }

    model, plain = model_of(Classifier()), model_of(Plain())
    settings = {"batch_size": 4, "shuffle": False, "verbose": 0}
    logs = model.fit(batch(TEXTS), Y, **settings).history
    assert_same_logs(logs, plain.fit(batch(ONE_HOT), Y, **settings).history)
    assert logs["scaled_graph_loss"][0] > 0
    assert_weights_equal(model.get_weights(), plain.get_weights())
    np.testing.assert_allclose(
        model.predict(TEXTS, verbose=0), plain.predict(ONE_HOT, verbose=0), rtol=1e-5
    )
