"""Attacks at the outputs of layers: closed forms, padding, reports."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import nsl

VOCABULARY, LENGTH, WIDTH = 12, 5, 3
_RANDOM = np.random.default_rng(3)
TOKENS = _RANDOM.integers(1, VOCABULARY, (40, LENGTH)).astype("int32")
TOKENS[:20, 3:] = 0
LABELS = _RANDOM.integers(0, 2, 40)
DUAL = {"infinity": 1, "l2": 2, "l1": np.inf}


@pytest.fixture(scope="module")
def reader():
    """Tokens to one logit, linear above the embedding."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((LENGTH,), dtype="int32"),
            keras.layers.Embedding(VOCABULARY, WIDTH, name="embedding"),
            keras.layers.Flatten(),
            keras.layers.Dense(1, name="logit"),
        ]
    )
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    return model


def margins(model, length):
    """How far each example is from the boundary of a linear score, in a norm."""
    scores = model.predict(TOKENS, verbose=0)[:, 0]
    return (2 * LABELS - 1) * scores / length


@pytest.mark.parametrize("norm", DUAL)
def test_accuracy_is_that_of_the_closed_form(reader, norm):
    weights = np.asarray(reader.get_layer("logit").kernel)[:, 0]
    distances = margins(reader, np.linalg.norm(weights, DUAL[norm]))
    epsilons = [float(np.quantile(distances[distances > 0], q)) for q in (0.3, 0.7)]
    report = nsl.evaluate_robustness(
        reader,
        TOKENS,
        LABELS,
        epsilons,
        norm,
        attacks=[nsl.attacks.PGD(norm=norm, steps=10)],
        layer="embedding",
        check=False,
    )
    for epsilon in epsilons:
        expected = np.mean(distances > epsilon)
        assert report.robust_accuracy[epsilon] == pytest.approx(expected, abs=1e-6)
    assert any("no input, such as a text" in one for one in report.assumptions)


def test_attack_returns_outputs_of_the_layer(reader):
    attack = nsl.attacks.PGD(norm="l2", steps=5)
    found = attack(reader, TOKENS, LABELS, epsilon=0.2, layer="embedding")
    clean = np.asarray(reader.get_layer("embedding")(TOKENS))
    assert found.shape == clean.shape
    assert found.dtype == np.float32
    moves = (found - clean).reshape(len(TOKENS), -1)
    np.testing.assert_allclose(np.linalg.norm(moves, axis=1), 0.2, rtol=1e-4)
    weights = np.asarray(reader.get_layer("logit").kernel)[:, 0]
    best = -(2 * LABELS - 1) * 0.2 * np.linalg.norm(weights)
    np.testing.assert_allclose(moves @ weights, best, rtol=0.05)


def test_several_radii_bounds_and_predict(reader):
    clean = np.asarray(reader.get_layer("embedding")(TOKENS))
    found = nsl.attacks.FGSM()(
        reader.predict,
        tf.data.Dataset.from_tensor_slices((TOKENS, LABELS)).batch(16),
        epsilon=[0.02, 10.0],
        bounds=(-0.1, {"embedding": 0.1}),
        layer="embedding",
    )
    near, far = (one - clean for one in found)
    assert np.abs(near).max() == pytest.approx(0.02, rel=1e-3)
    assert np.all(np.abs(found[1]) <= 0.1 + 1e-6)
    assert np.abs(far).max() > 0


def test_padding_is_not_perturbed():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((LENGTH,), dtype="int32"),
            keras.layers.Embedding(VOCABULARY, WIDTH, mask_zero=True, name="embedding"),
            keras.layers.LSTM(4),
            keras.layers.Dense(2),
        ]
    )
    state = [np.asarray(v) for v in model.variables]
    found = nsl.attacks.PGD(steps=3)(
        model, TOKENS, LABELS, epsilon=0.5, layer="embedding"
    )
    moves = np.abs(found - np.asarray(model.layers[0](TOKENS))).max(axis=-1)
    assert np.all(moves[TOKENS == 0] == 0)
    assert np.all(moves[TOKENS > 0] > 0)
    for before, now in zip(state, model.variables, strict=True):
        np.testing.assert_array_equal(before, now)
    assert "call" not in vars(model.layers[0])


def test_several_layers_share_one_norm_and_one_above_another_counts():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, name="low"),
            keras.layers.Dense(2, name="high"),
            keras.layers.Dense(1, name="logit"),
        ]
    )
    x = _RANDOM.normal(size=(40, 4)).astype("float32")
    high, top = (np.asarray(model.get_layer(n).kernel) for n in ("high", "logit"))
    length = np.linalg.norm(np.concatenate([(high @ top)[:, 0], top[:, 0]]))
    distances = (2 * LABELS - 1) * model.predict(x, verbose=0)[:, 0] / length
    epsilon = float(np.median(distances[distances > 0]))
    report = nsl.evaluate_robustness(
        model,
        x,
        LABELS,
        epsilon,
        "l2",
        attacks=[nsl.attacks.PGD(norm="l2", steps=20)],
        from_logits=True,
        layer=["low", "high"],
        check=False,
    )
    expected = np.mean(distances > epsilon)
    assert report.robust_accuracy[epsilon] == pytest.approx(expected, abs=1e-6)


def images_model():
    """Images to three classes by way of a hidden image, and the part above it."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 6, 1))
    hidden = keras.layers.Conv2D(2, 3, activation="relu", name="hidden")(inputs)
    above = keras.Sequential(
        [keras.Input((4, 4, 2)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    return keras.Model(inputs, above(hidden)), above


@pytest.mark.parametrize(
    "attack",
    [
        nsl.attacks.PGD(norm="l2", steps=2, random_start=True),
        nsl.attacks.AutoPGD(norm="l1", steps=4),
        nsl.attacks.FAB(steps=4),
        nsl.attacks.Square(steps=8),
        nsl.attacks.Square(norm="l2", steps=8),
        nsl.attacks.HopSkipJump(steps=2),
    ],
    ids=lambda attack: f"{type(attack).__name__}-{attack.norm.value}",
)
def test_every_attack_is_that_on_the_cut_model(attack):
    model, above = images_model()
    x = _RANDOM.normal(size=(8, 6, 6, 1)).astype("float32")
    hidden = np.asarray(model.get_layer("hidden")(x))
    settings = {"y": LABELS[:8], "epsilon": 0.3, "from_logits": True}
    found = attack(model, x, layer="hidden", **settings)
    np.testing.assert_allclose(found, attack(above, hidden, **settings), atol=1e-5)


def test_radii_by_layer_and_by_coordinate(reader):
    clean = np.asarray(reader.get_layer("embedding")(TOKENS))
    widths = np.linspace(0.0, 0.3, WIDTH) * np.ones((LENGTH, 1))
    for epsilon in (widths, {"embedding": widths}):
        found = nsl.attacks.FGSM()(
            reader, TOKENS, LABELS, epsilon=epsilon, layer="embedding"
        )
        expected = np.broadcast_to(widths, clean.shape)
        np.testing.assert_allclose(np.abs(found - clean), expected, atol=1e-5)
    report = nsl.evaluate_robustness(
        reader,
        TOKENS,
        LABELS,
        {"embedding": 0.1},
        attacks=["fgsm"],
        layer="embedding",
        check=False,
    )
    assert list(report.robust_accuracy) == ["embedding 0.1"]


def test_a_model_of_one_batch_size_that_keeps_a_state():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(16, LENGTH), dtype="int32"),
            keras.layers.Embedding(VOCABULARY, WIDTH, name="embedding"),
            keras.layers.SimpleRNN(3, stateful=True, name="rnn"),
            keras.layers.Dense(2),
        ]
    )
    model.layers[1].states[0].assign(np.ones((16, 3)))
    clean = np.asarray(model.layers[0](TOKENS))
    found = nsl.attacks.FGSM()(model, TOKENS, LABELS, epsilon=0.1, layer="embedding")
    np.testing.assert_allclose(np.abs(found - clean), 0.1, rtol=1e-4)
    np.testing.assert_array_equal(model.layers[1].states[0], np.ones((16, 3)))


class TestStrings:
    TEXTS = np.array(["good film", "a dull film", "good good plot", "dull"] * 4)

    def model(self, length):
        keras.utils.set_random_seed(1)
        words = ["good", "film", "a", "dull", "plot"]
        texts = keras.Input((), dtype="string")
        tokens = keras.layers.TextVectorization(
            vocabulary=words, output_sequence_length=length
        )(texts)
        vectors = keras.layers.Embedding(7, 3, mask_zero=True, name="words")(tokens)
        hidden = keras.layers.GlobalAveragePooling1D()(vectors)
        return keras.Model(texts, keras.layers.Dense(2)(hidden))

    def test_are_attacked_at_their_vectors(self):
        model, labels = self.model(3), LABELS[:16]
        found = nsl.attacks.FGSM()(
            model, self.TEXTS, labels, epsilon=0.1, layer="words", from_logits=True
        )
        tokens = np.asarray(model.layers[1](tf.constant(self.TEXTS)))
        moves = found - np.asarray(model.get_layer("words")(tokens))
        assert np.all(moves[tokens == 0] == 0)
        np.testing.assert_allclose(np.abs(moves[tokens > 0]), 0.1, rtol=1e-4)

    @pytest.mark.parametrize("batch_size", [4, None])
    def test_must_have_one_length(self, batch_size):
        model, texts = self.model(None), np.sort(self.TEXTS)
        # The longest have fallen already: the others are shorter on their own.
        right = model.predict(tf.constant(texts), verbose=0).argmax(axis=1)
        labels = np.where(np.char.count(texts, " ") == 2, 1 - right, right)
        with pytest.raises(
            (ValueError, tf.errors.InvalidArgumentError), match="output_sequence_length"
        ):
            nsl.evaluate_robustness(
                model,
                texts,
                labels,
                0.1,
                attacks=["fgsm"],
                layer="words",
                batch_size=batch_size,
                from_logits=True,
                check=False,
            )


def test_errors(reader):
    attack = nsl.attacks.FGSM()
    with pytest.raises(ValueError, match=r"'embeding'.*'embedding'"):
        attack(reader, TOKENS, LABELS, epsilon=0.1, layer="embeding")
    with pytest.raises(ValueError, match="name of one layer or several"):
        attack(reader, TOKENS, LABELS, epsilon=0.1, layer=[])
    with pytest.raises(ValueError, match="replaces columns"):
        nsl.evaluate_robustness(
            reader, TOKENS, LABELS, 1, "l0", attacks=[attack], layer="embedding"
        )
    with pytest.raises(TypeError, match="needs a Keras model"):
        attack(lambda x: x, TOKENS, LABELS, epsilon=0.1, layer="embedding")
    with pytest.raises(ValueError, match=r"layers \['embedding'\].*'logit'"):
        attack(
            reader,
            TOKENS,
            LABELS,
            epsilon=0.1,
            bounds=({"logit": 0}, 1),
            layer="embedding",
        )


class Cell(keras.layers.Layer):
    """Adds up a dense layer of the inputs over time."""

    state_size = 2

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(2, name="inner")

    def build(self, shape):
        self.dense.build(shape)
        super().build(shape)

    def call(self, inputs, states):
        total = states[0] + self.dense(inputs)
        return total, [total]


@pytest.mark.parametrize("unroll", [False, True])
def test_a_layer_in_the_cell_of_a_recurrent_layer(unroll):
    model = keras.Sequential(
        [
            keras.Input((4, 3)),
            keras.layers.RNN(Cell(), unroll=unroll, name="rnn"),
            keras.layers.Dense(2),
        ]
    )
    x = np.ones((8, 4, 3), "float32")
    attack = nsl.attacks.FGSM()
    settings = {"y": LABELS[:8], "layer": "inner", "from_logits": True}
    if unroll:
        found = attack(model, x, epsilon=0.1, **settings)
        assert [step.shape for step in found] == [(8, 2)] * 4
        return
    message = "cell of the recurrent layer 'rnn'.*Name 'rnn' or a layer before"
    with pytest.raises(ValueError, match=message):
        attack(model, x, epsilon=0.1, **settings)
    with pytest.raises(ValueError, match=message):
        nsl.evaluate_robustness(model, x, epsilons=0.1, **settings)
    callback = nsl.keras.callbacks.RobustAccuracy(x, LABELS[:8], 0.1, layer="inner")
    callback.set_model(model)
    with pytest.raises(ValueError, match=message):
        callback.on_train_begin()
