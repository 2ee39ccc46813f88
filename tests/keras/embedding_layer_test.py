"""Adversarial neighbors at the outputs of layers: tokens, categories, hidden layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import nsl
from tests.keras.contract import TermWeightsContract
from tests.keras.contract.base import X, Y, assert_weights_equal, mlp

VOCABULARY, LENGTH, WIDTH = 12, 6, 4
_RANDOM = np.random.default_rng(3)
TOKENS = _RANDOM.integers(1, VOCABULARY, (16, LENGTH)).astype("int32")
TOKENS[:8, 4:] = 0
ANSWERS = _RANDOM.integers(0, 2, 16).astype("float32")
KINDS = ("functional", "sequential", "subclassed", "nested")
DUAL = {"infinity": 1, "l2": 2, "l1": np.inf}


def adversarial(base, loss=None, metrics=None, jit_compile=False, **config):
    settings = {"multiplier": 0.5, "adv_step_size": 0.3}
    config = nsl.configs.make_adv_reg_config(**{**settings, **config})
    model = nsl.keras.AdversarialRegularization(base, adv_config=config)
    model.compile(
        keras.optimizers.SGD(0.1),
        loss or keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=metrics,
        jit_compile=jit_compile,
    )
    return model


def reader(*above, mask_zero=False, seed=2, nested=False):
    """Tokens to one logit: linear above the embedding unless layers are given."""
    keras.utils.set_random_seed(seed)
    embedding = keras.layers.Embedding(
        VOCABULARY, WIDTH, mask_zero=mask_zero, name="embedding"
    )
    tokens = keras.Input((LENGTH,), dtype="int32", name="tokens")
    if nested:
        inner = keras.Input((LENGTH,), dtype="int32")
        embedding = keras.Model(inner, embedding(inner), name="backbone")
    hidden = embedding(tokens)
    for layer in above or (keras.layers.Flatten(),):
        hidden = layer(hidden)
    return keras.Model(tokens, keras.layers.Dense(1, name="logit")(hidden))


class SubclassedReader(keras.Model):
    def __init__(self):
        super().__init__()
        self.embedding = keras.layers.Embedding(VOCABULARY, WIDTH, name="embedding")
        self.flatten = keras.layers.Flatten()
        self.logit = keras.layers.Dense(1, name="logit")

    def call(self, tokens):
        return self.logit(self.flatten(self.embedding(tokens)))


def readers(kind):
    if kind == "subclassed":
        keras.utils.set_random_seed(2)
        model = SubclassedReader()
        model(TOKENS)
        return model
    if kind == "sequential":
        keras.utils.set_random_seed(2)
        return keras.Sequential(
            [
                keras.Input((LENGTH,), dtype="int32"),
                keras.layers.Embedding(VOCABULARY, WIDTH, name="embedding"),
                keras.layers.Flatten(),
                keras.layers.Dense(1, name="logit"),
            ]
        )
    return reader(nested=kind == "nested")


def logit_weights(base):
    return np.asarray(base.get_layer("logit").kernel)[:, 0]


def losses_of(logits, labels=ANSWERS):
    return np.log1p(np.exp(-(2 * labels - 1) * logits))


class TestClosedForm:
    """Above a linear model's layer, the worst case in a ball is known."""

    @pytest.mark.parametrize(
        ("kind", "norm"),
        [
            *((kind, "l2") for kind in KINDS),
            *(("functional", n) for n in ("l1", "infinity")),
        ],
    )
    def test_evaluation_is_the_worst_case(self, kind, norm):
        base = readers(kind)
        model = adversarial(base, embedding_layer="embedding", adv_grad_norm=norm)
        logs = model.evaluate(TOKENS, ANSWERS, verbose=0, return_dict=True)
        logits = np.asarray(base(TOKENS))[:, 0]
        length = np.linalg.norm(logit_weights(base), DUAL[norm])
        worst = logits - (2 * ANSWERS - 1) * 0.3 * length
        np.testing.assert_allclose(
            logs["scaled_adversarial_loss"], 0.5 * np.mean(losses_of(worst)), rtol=1e-5
        )

    @pytest.mark.parametrize("norm", DUAL)
    def test_per_position_each_token_has_a_ball(self, norm):
        base = reader()
        found = adversarial(
            base,
            embedding_layer="embedding",
            adv_grad_norm=norm,
            norm_per_position=True,
            pgd_iterations=3,
            pgd_epsilon=0.4,
        ).perturb_on_batch(TOKENS, ANSWERS)["embedding"]
        moves = found - np.asarray(base.get_layer("embedding")(TOKENS))
        order = {"infinity": np.inf, "l2": 2, "l1": 1}[norm]
        lengths = np.linalg.norm(moves, order, axis=-1)
        np.testing.assert_allclose(lengths, 0.4, rtol=1e-5)
        gains = moves.reshape(len(TOKENS), -1) @ logit_weights(base)
        of_tokens = logit_weights(base).reshape(LENGTH, WIDTH)
        best = 0.4 * np.sum(np.linalg.norm(of_tokens, DUAL[norm], axis=-1))
        np.testing.assert_allclose(gains, -(2 * ANSWERS - 1) * best, rtol=1e-5)

    @pytest.mark.parametrize("scale", [1.0, 20.0])
    def test_standard_units_fit_any_scale(self, scale):
        base = reader()
        table = base.get_layer("embedding")
        table.set_weights([scale * w + 5.0 for w in table.get_weights()])
        found = adversarial(
            base, embedding_layer="embedding", standardize_layers=True
        ).perturb_on_batch(TOKENS, ANSWERS)["embedding"]
        vectors = np.asarray(table(TOKENS))
        deviation = vectors.reshape(-1, WIDTH).std(axis=0)
        moves = ((found - vectors) / deviation).reshape(len(TOKENS), -1)
        np.testing.assert_allclose(np.linalg.norm(moves, axis=1), 0.3, rtol=1e-4)
        # The steepest direction of what is divided by its deviation.
        weights = (logit_weights(base).reshape(LENGTH, WIDTH) * deviation).ravel()
        gains = moves @ weights
        best = 0.3 * np.linalg.norm(weights)
        np.testing.assert_allclose(gains, -(2 * ANSWERS - 1) * best, rtol=1e-3)

    @pytest.mark.parametrize("mask_zero", [False, True])
    def test_range_of_an_embedding_is_that_of_its_entries(self, mask_zero):
        base = reader(keras.layers.GlobalAveragePooling1D(), mask_zero=mask_zero)
        table = np.asarray(base.get_layer("embedding").embeddings)[int(mask_zero) :]
        found = adversarial(
            base,
            embedding_layer="embedding",
            adv_step_size=100.0,
            adv_grad_norm="infinity",
            clip_to_layer_range=True,
        ).perturb_on_batch(TOKENS, ANSWERS)["embedding"]
        kept = TOKENS > 0 if mask_zero else np.ones_like(TOKENS, bool)
        falls = (logit_weights(base) < 0) ^ (ANSWERS[:, None] > 0)
        worst = np.where(falls, table.min(0), table.max(0))
        expected = np.broadcast_to(worst[:, None], found.shape)
        np.testing.assert_allclose(found[kept], expected[kept], rtol=1e-5)

    def test_range_of_an_embedding_is_of_what_it_returns(self):
        class Scaled(keras.layers.Embedding):
            def call(self, inputs):
                return 9.0 * super().call(inputs)

        keras.utils.set_random_seed(2)
        base = keras.Sequential(
            [
                keras.Input((LENGTH,), dtype="int32"),
                Scaled(VOCABULARY, WIDTH, name="embedding"),
                keras.layers.Flatten(),
                keras.layers.Dense(1),
            ]
        )
        found = adversarial(
            base,
            embedding_layer="embedding",
            adv_step_size=100.0,
            adv_grad_norm="infinity",
            clip_to_layer_range=True,
        ).perturb_on_batch(TOKENS, ANSWERS)["embedding"]
        table = 9.0 * np.asarray(base.layers[0].embeddings)
        np.testing.assert_allclose(found.max((0, 1)), table.max(0), rtol=1e-5)
        np.testing.assert_allclose(found.min((0, 1)), table.min(0), rtol=1e-5)

    def test_range_of_one_hot_is_known_of_a_batch_of_one(self):
        keras.utils.set_random_seed(2)
        base = keras.Sequential(
            [
                keras.Input((), dtype="int32"),
                keras.layers.CategoryEncoding(3, output_mode="one_hot", name="job"),
                keras.layers.Dense(1, name="logit"),
            ]
        )
        found = adversarial(
            base,
            embedding_layer="job",
            adv_step_size=100.0,
            adv_grad_norm="infinity",
            clip_to_layer_range=True,
        ).perturb_on_batch(TOKENS[:1, 0] % 3, ANSWERS[:1])["job"]
        falls = (logit_weights(base) < 0) ^ (ANSWERS[0] > 0)
        np.testing.assert_allclose(found, [np.where(falls, 0.0, 1.0)], atol=1e-6)

    def test_range_of_another_layer_is_that_of_the_batch(self):
        base = mlp()
        model = adversarial(
            base,
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            embedding_layer=base.layers[0].name,
            adv_step_size=100.0,
            clip_to_layer_range=True,
        )
        [found] = model.perturb_on_batch(X, Y).values()
        hidden = np.asarray(base.layers[0](X))
        assert np.all(found <= hidden.max(0) + 1e-6)
        assert np.all(found >= hidden.min(0) - 1e-6)
        assert np.any(np.isclose(found, hidden.max(0)))


class TestPadding:
    @pytest.mark.parametrize(
        "config",
        [
            {},
            {"norm_per_position": True},
            {"standardize_layers": True},
            {"random_init": True, "pgd_iterations": 2, "pgd_epsilon": 0.5},
            {"objective": "virtual"},
            {"clip_to_layer_range": True},
            {"clip_value_max": -0.02},
        ],
        ids=str,
    )
    def test_is_not_moved_and_does_not_count(self, config):
        keras.utils.set_random_seed(2)
        base = keras.Sequential(
            [
                keras.Input((None,), dtype="int32"),
                keras.layers.Embedding(
                    VOCABULARY, WIDTH, mask_zero=True, name="embedding"
                ),
                keras.layers.LSTM(5),
                keras.layers.Dense(1),
            ]
        )
        model = adversarial(base, embedding_layer="embedding", **config)
        expected = None
        for padding in (0, 3, 20):
            tokens = np.pad(TOKENS, [(0, 0), (0, padding)])
            found = model.perturb_on_batch(tokens, ANSWERS)["embedding"]
            moves = found - np.asarray(base.layers[0](tokens))
            assert np.all(moves[tokens == 0] == 0)
            assert np.all(np.abs(moves[tokens > 0]).max(-1) > 0)
            if config:
                continue
            lengths = np.linalg.norm(moves.reshape(len(tokens), -1), axis=1)
            np.testing.assert_allclose(lengths, 0.3, rtol=1e-4)
            expected = found if expected is None else expected
            np.testing.assert_allclose(found[:, :LENGTH], expected, atol=1e-5)

    @pytest.mark.parametrize("random_init", [False, True])
    def test_attention_does_not_take_the_mask_away(self, random_init):
        keras.utils.set_random_seed(2)
        tokens = keras.Input((LENGTH,), dtype="int32")
        vectors = keras.layers.Embedding(
            VOCABULARY, WIDTH, mask_zero=True, name="embedding"
        )(tokens)
        hidden = keras.layers.MultiHeadAttention(1, 2)(vectors, vectors)
        hidden = keras.layers.Add()([hidden, vectors])
        hidden = keras.layers.GlobalAveragePooling1D()(hidden)
        base = keras.Model(tokens, keras.layers.Dense(1)(hidden))
        model = adversarial(
            base,
            embedding_layer="embedding",
            standardize_layers=True,
            random_init=random_init,
        )
        expected = base.predict(TOKENS, verbose=0)
        found = model.perturb_on_batch(TOKENS, ANSWERS)["embedding"]
        vectors = np.asarray(base.get_layer("embedding")(TOKENS))
        assert np.all((found == vectors)[TOKENS == 0])
        if not random_init:
            deviation = vectors[TOKENS > 0].std(axis=0)
            moves = ((found - vectors) / deviation).reshape(16, -1)
            np.testing.assert_allclose(np.linalg.norm(moves, axis=1), 0.3, rtol=1e-4)
        np.testing.assert_array_equal(model.predict(TOKENS, verbose=0), expected)


class Backbone(keras.Model):
    """A functional model with a class of its own, as those of keras-hub."""

    def __init__(self, **kwargs):
        words, kinds, kept = (
            keras.Input((None,), dtype="int32", name=name)
            for name in ("token_ids", "segment_ids", "padding_mask")
        )
        tokens = keras.layers.Embedding(VOCABULARY, WIDTH, name="token_embedding")(
            words
        )
        segments = keras.layers.Embedding(2, WIDTH, name="segment_embedding")(kinds)
        hidden = keras.layers.Add()([tokens, segments])
        hidden = keras.layers.LayerNormalization(name="normalized")(hidden)
        attended = keras.layers.MultiHeadAttention(1, 2)(
            hidden, hidden, attention_mask=keras.ops.expand_dims(kept, 1) > 0
        )
        hidden = keras.layers.LayerNormalization()(hidden + attended)
        super().__init__(
            {"token_ids": words, "segment_ids": kinds, "padding_mask": kept},
            {"sequence": hidden, "pooled": hidden[:, 0]},
            **kwargs,
        )


def classifier():
    """A backbone in a model of the same dict of inputs, padded by one of them."""
    keras.utils.set_random_seed(2)
    backbone = Backbone(name="backbone")
    hidden = keras.layers.Dropout(0.1)(backbone(backbone.input)["pooled"])
    return keras.Model(backbone.input, keras.layers.Dense(1)(hidden))


def padded(padding, rows=slice(None)):
    tokens = np.pad(TOKENS, [(0, 0), (0, padding)])[rows]
    mask = (tokens > 0).astype("int32")
    return {"token_ids": tokens, "segment_ids": 0 * mask, "padding_mask": mask}


class TestPaddingOfAFeature:
    @pytest.mark.parametrize(
        ("config", "axes"),
        [
            ({"random_init": True, "adv_step_size": 0.0, "pgd_epsilon": 0.3}, (1, 2)),
            ({"standardize_layers": True, "pgd_iterations": 2}, (1, 2)),
            ({"norm_per_position": True, "objective": "virtual"}, 2),
        ],
        ids=str,
    )
    def test_is_not_moved_and_does_not_count(self, config, axes):
        base = classifier()
        table = base.get_layer("backbone").get_layer("token_embedding")
        settings = {"embedding_layer": "token_embedding", "pgd_epsilon": 0.3, **config}
        model = adversarial(base, **settings)
        expected = None
        for padding in (0, 3, 20):
            x = padded(padding)
            found = model.perturb_on_batch(x, ANSWERS)["token_embedding"]
            moves = found - np.asarray(table(x["token_ids"]))
            kept = x["padding_mask"] > 0
            assert np.all(moves[~kept] == 0)
            assert np.all(np.abs(moves[kept]).max(-1) > 0)
            if config.get("standardize_layers"):
                moves /= np.asarray(table(x["token_ids"]))[kept].std(axis=0)
            lengths = np.sqrt(np.sum(moves**2, axes))
            assert np.all(lengths <= 0.3 * (1 + 1e-5))
            if "random_init" not in config:
                lengths = lengths[kept] if axes == 2 else lengths
                np.testing.assert_allclose(lengths, 0.3, rtol=1e-4)
            if "pgd_iterations" in config:
                expected = found[kept] if expected is None else expected
                np.testing.assert_allclose(found[kept], expected, atol=1e-4)

    def test_attacks_leave_it_out(self):
        base, x = classifier(), padded(3)
        base.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
        attack = nsl.attacks.PGD(norm="l2", steps=2)
        found = attack(
            base, x, ANSWERS[:, None], epsilon=0.3, layer="token_embedding", seed=0
        )
        table = base.get_layer("backbone").get_layer("token_embedding")
        moves = found - np.asarray(table(x["token_ids"]))
        assert np.all(moves[x["padding_mask"] == 0] == 0)
        assert np.all(np.abs(moves[x["padding_mask"] > 0]).max(-1) > 0)

    def test_graph_distances_leave_it_out(self):
        base = classifier()
        config = nsl.configs.make_graph_reg_config(
            max_neighbors=1, multiplier=1.0, embedding_layer="token_embedding"
        )
        model = nsl.keras.GraphRegularization(base, config)
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile("sgd", loss)

        def graph_loss(padding):
            x = padded(padding, slice(8))
            rolled = {f"NL_nbr_0_{k}": np.roll(v, 1, 0) for k, v in x.items()}
            x |= rolled | {"NL_nbr_0_weight": np.ones((8, 1), "float32")}
            base.set_weights(start)
            return model.train_on_batch(x, ANSWERS[:8, None], return_dict=True)[
                "scaled_graph_loss"
            ]

        start = base.get_weights()
        alone = graph_loss(0)
        assert alone > 0
        np.testing.assert_allclose(graph_loss(5), alone, rtol=1e-5)

    def test_labels_of_tokens_count_as_without_a_term(self):
        def losses(layer):
            keras.utils.set_random_seed(2)
            backbone = Backbone(name="backbone")
            outputs = keras.layers.Dense(1, name="tags")(
                backbone(backbone.input)["sequence"]
            )
            base = keras.Model(backbone.input, outputs)
            model = adversarial(base, embedding_layer=layer, multiplier=0.0)
            y = np.ones((16, LENGTH, 1), "float32")
            return model.test_on_batch(padded(0), y, return_dict=True)["loss"]

        np.testing.assert_allclose(losses("tags"), losses("normalized"), rtol=1e-6)


class Translator(keras.Model):
    """An encoder and a decoder with one embedding, as sequence models of keras-hub."""

    def __init__(self, **kwargs):
        names = [
            f"{part}_{name}"
            for part in ("encoder", "decoder")
            for name in ("token_ids", "padding_mask")
        ]
        inputs = {
            name: keras.Input((None,), dtype="int32", name=name) for name in names
        }
        embedding = keras.layers.Embedding(VOCABULARY, WIDTH, name="token_embedding")
        vectors, kept = {}, {}
        for part in ("encoder", "decoder"):
            tokens = embedding(inputs[f"{part}_token_ids"])
            vectors[part] = keras.layers.LayerNormalization(name=part)(tokens)
            mask = inputs[f"{part}_padding_mask"]
            kept[part] = keras.ops.expand_dims(mask, 1) > 0
        memory = keras.layers.MultiHeadAttention(1, 2, name="encoded")(
            vectors["encoder"], vectors["encoder"], attention_mask=kept["encoder"]
        )
        decoded = keras.layers.MultiHeadAttention(1, 2, name="decoded")(
            vectors["decoder"], memory, attention_mask=kept["encoder"]
        )
        decoded = keras.layers.MultiHeadAttention(1, 2)(
            decoded, decoded, attention_mask=kept["decoder"]
        )
        super().__init__(inputs, {"decoder_sequence": decoded}, **kwargs)


def translator():
    keras.utils.set_random_seed(2)
    backbone = Translator(name="backbone")
    first = backbone(backbone.input)["decoder_sequence"][:, 0]
    return keras.Model(backbone.input, keras.layers.Dense(1)(first))


def pairs_of_texts(encoder_padding, decoder_padding):
    """The texts, and as their translations the same in another order."""
    order = np.roll(np.arange(len(TOKENS)), 1)
    parts = {
        "encoder": padded(encoder_padding),
        "decoder": padded(decoder_padding, order),
    }
    return {
        f"{part}_{name}": x[name]
        for part, x in parts.items()
        for name in ("token_ids", "padding_mask")
    }


class TestPaddingOfEncoderAndDecoder:
    @pytest.mark.parametrize("eagerly", [False, True])
    def test_is_not_moved_and_does_not_count(self, eagerly):
        base = translator()
        table = base.get_layer("backbone").get_layer("token_embedding")
        config = {"random_init": True, "pgd_epsilon": 0.3, "adv_step_size": 0.1}
        config |= {"embedding_layer": "token_embedding", "pgd_iterations": 2}
        started = adversarial(base, **config)
        stepped = adversarial(
            base, embedding_layer="token_embedding", adv_step_size=0.3
        )
        for model in (started, stepped):
            model.compile("sgd", model.loss, run_eagerly=eagerly)
        # At equal lengths only the data flow tells the two texts apart.
        for paddings in ((0, 0), (3, 3), (3, 20)):
            x, lengths = pairs_of_texts(*paddings), 0.0
            for model in (started, stepped):
                found = model.perturb_on_batch(x, ANSWERS)["token_embedding"]
                lengths = 0.0
                for part, moved in zip(("encoder", "decoder"), found, strict=True):
                    moves = moved - np.asarray(table(x[f"{part}_token_ids"]))
                    kept = x[f"{part}_padding_mask"] > 0
                    assert np.all(moves[~kept] == 0)
                    assert np.all(np.abs(moves[kept]).max(-1) > 0)
                    lengths = lengths + np.sum(moves**2, (1, 2))
            np.testing.assert_allclose(np.sqrt(lengths), 0.3, rtol=1e-4)

    @pytest.mark.parametrize(
        ("layer", "part"),
        [("encoder", "encoder"), ("encoded", "encoder"), ("decoded", "decoder")],
    )
    def test_of_layers_above(self, layer, part):
        base = translator()
        model = adversarial(base, embedding_layer=layer, random_init=True)
        x = pairs_of_texts(3, 3)
        found = model.perturb_on_batch(x, ANSWERS)[layer]
        backbone = base.get_layer("backbone")
        outputs = keras.Model(backbone.input, backbone.get_layer(layer).output)
        moves = found - outputs.predict(x, verbose=0)
        kept = x[f"{part}_padding_mask"] > 0
        np.testing.assert_allclose(moves[~kept], 0, atol=1e-6)
        assert np.all(np.abs(moves[kept]).max(-1) > 1e-4)

    def test_attacks_leave_it_out(self):
        base, x = translator(), pairs_of_texts(3, 3)
        base.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
        attack = nsl.attacks.PGD(norm="l2", steps=2)
        found = attack(
            base, x, ANSWERS[:, None], epsilon=0.3, layer="token_embedding", seed=0
        )
        table = base.get_layer("backbone").get_layer("token_embedding")
        for part, moved in zip(("encoder", "decoder"), found, strict=True):
            moves = moved - np.asarray(table(x[f"{part}_token_ids"]))
            assert np.all(moves[x[f"{part}_padding_mask"] == 0] == 0)


class TestAgainstACutModel:
    """What users did by hand: the model above the layer, on the layer's outputs."""

    def cut(self, base):
        vectors = keras.Input((LENGTH, WIDTH))
        hidden = vectors
        for layer in base.layers[2:]:
            hidden = layer(hidden)
        return keras.Model(vectors, hidden)

    @pytest.mark.parametrize(
        "config",
        [
            {"pgd_iterations": 3, "pgd_epsilon": 0.5},
            {"mode": "replace", "pgd_iterations": 2},
            {"objective": "logit_pairing"},
            {"objective": "mart"},
            {"multiplier": lambda step: 0.25 * tf.cast(step, tf.float32)},
            {"start_epoch": 1},
        ],
        ids=",".join,
    )
    def test_same_weights_above_a_frozen_layer(self, config):
        base = reader(keras.layers.Flatten(), keras.layers.Dense(5, "tanh"))
        base.get_layer("embedding").trainable = False
        vectors = np.asarray(base.get_layer("embedding")(TOKENS))
        head = keras.models.clone_model(self.cut(base))
        head.set_weights(self.cut(base).get_weights())
        arguments = {"epochs": 3, "batch_size": 8, "shuffle": False, "verbose": 0}
        whole = adversarial(base, embedding_layer="embedding", **config)
        whole.fit(TOKENS, ANSWERS[:, None], **arguments)
        cut = adversarial(head, **config)
        cut.fit(vectors, ANSWERS[:, None], **arguments)
        assert_weights_equal(self.cut(base).get_weights(), head.get_weights(), 1e-5)

    @pytest.mark.parametrize("jit_compile", [False, True])
    def test_gradients_reach_the_layer_through_both_passes(self, jit_compile):
        base = reader(keras.layers.Flatten(), keras.layers.Dense(5, "tanh"))
        start = base.get_weights()
        model = adversarial(base, embedding_layer="embedding", jit_compile=jit_compile)
        model.train_on_batch(TOKENS, ANSWERS[:, None])
        found = base.get_weights()
        base.set_weights(start)
        embedding, head = base.get_layer("embedding"), self.cut(base)
        loss_fn = keras.losses.BinaryCrossentropy(from_logits=True)
        with tf.GradientTape() as tape:
            vectors = embedding(TOKENS)
            with tf.GradientTape() as inner:
                inner.watch(vectors)
                labeled = loss_fn(ANSWERS[:, None], head(vectors))
            gradient = inner.gradient(labeled, vectors)
            length = tf.norm(tf.reshape(gradient, [len(TOKENS), -1]), axis=1)
            move = tf.stop_gradient(0.3 * gradient / length[:, None, None])
            shifted = loss_fn(ANSWERS[:, None], head(embedding(TOKENS) + move))
            total = labeled + 0.5 * shifted
        for weight, gradient in zip(
            base.trainable_weights,
            tape.gradient(total, base.trainable_weights),
            strict=True,
        ):
            weight.assign_sub(0.1 * tf.convert_to_tensor(gradient))
        assert_weights_equal(found, base.get_weights(), 1e-5)


def two_columns():
    keras.utils.set_random_seed(4)
    numbers = keras.Input((3,), name="numbers")
    city = keras.Input((), dtype="int32", name="city")
    job = keras.Input((), dtype="int32", name="job")
    cities = keras.layers.Embedding(5, 2, name="cities")(city)
    jobs = keras.layers.Embedding(4, 3, name="jobs")(job)
    joined = keras.layers.Concatenate(name="joined")([numbers, cities, jobs])
    outputs = keras.layers.Dense(1, name="logit")(joined)
    model = keras.Model({"numbers": numbers, "city": city, "job": job}, outputs)
    return model, {
        "numbers": _RANDOM.normal(size=(16, 3)).astype("float32"),
        "city": _RANDOM.integers(0, 5, 16).astype("int32"),
        "job": _RANDOM.integers(0, 4, 16).astype("int32"),
    }


def encoded_columns():
    """Numbers beside encodings, and the layers of both encodings."""
    keras.utils.set_random_seed(4)
    numbers = keras.Input((3,), name="numbers")
    city = keras.Input((1,), dtype="string", name="city")
    jobs = keras.Input((2,), dtype="string", name="jobs")
    parts = [
        keras.layers.StringLookup(vocabulary=["a", "b"], output_mode=mode, name=name)(x)
        for mode, name, x in (("one_hot", "cities", city), ("multi_hot", "all", jobs))
    ]
    joined = keras.layers.Concatenate()([numbers, *parts])
    outputs = keras.layers.Dense(1, name="logit")(joined)
    x = {
        "numbers": _RANDOM.normal(size=(16, 3)).astype("float32"),
        "city": _RANDOM.choice(["a", "b"], (16, 1)),
        "jobs": _RANDOM.choice(["a", "b", "c"], (16, 2)),
    }
    model = keras.Model({"numbers": numbers, "city": city, "jobs": jobs}, outputs)
    return model, {name: tf.constant(column) for name, column in x.items()}


def feature_space(output_mode):
    keras.utils.set_random_seed(4)
    space = keras.utils.FeatureSpace(
        {"job": keras.utils.FeatureSpace.integer_hashed(3), "age": "float"},
        output_mode=output_mode,
    )
    records = {"job": TOKENS[:, 0], "age": X[:16, 0]}
    records = {name: tf.constant(c)[:, None] for name, c in records.items()}
    space(records)
    return space, records


class FromSpace(keras.Model):
    def __init__(self, space):
        super().__init__()
        self.space = space
        self.logit = keras.layers.Dense(1, name="logit")

    def call(self, records):
        parts = keras.tree.flatten(self.space(records))
        return self.logit(keras.ops.concatenate(parts, -1))


class TestEncodings:
    def test_of_lookups_share_a_norm_with_numbers(self):
        base, records = encoded_columns()
        model = adversarial(
            base, embedding_layer=["cities", "all"], perturb_features=True
        )
        found = model.perturb_on_batch(records, ANSWERS)
        cities, jobs = (
            base.get_layer(name)(records[column])
            for name, column in (("cities", "city"), ("all", "jobs"))
        )
        clean = np.concatenate([records["numbers"], cities, jobs], axis=1)
        moves = np.concatenate([found[n] for n in ("numbers", "cities", "all")], 1)
        moves -= clean
        direction = logit_weights(base) / np.linalg.norm(logit_weights(base))
        expected = -0.3 * np.outer(2 * ANSWERS - 1, direction)
        np.testing.assert_allclose(moves, expected, atol=1e-5)

    def test_of_words_in_a_bag(self):
        keras.utils.set_random_seed(2)
        words = keras.layers.TextVectorization(
            output_mode="multi_hot", vocabulary=["good", "bad", "film"], name="words"
        )
        base = keras.Sequential(
            [
                keras.Input((1,), dtype="string"),
                words,
                keras.layers.Dense(1, name="logit"),
            ]
        )
        found = adversarial(
            base,
            embedding_layer="words",
            adv_step_size=100.0,
            adv_grad_norm="infinity",
            clip_to_layer_range=True,
        ).perturb_on_batch(tf.constant([["good film"], ["bad"]]), ANSWERS[:2])
        falls = (logit_weights(base) < 0) ^ (ANSWERS[:2, None] > 0)
        np.testing.assert_array_equal(found["words"], np.where(falls, 0.0, 1.0))

    def test_of_a_feature_space(self):
        space, records = feature_space("concat")
        base = FromSpace(space)
        base(records)
        model = adversarial(base, embedding_layer=space.name)
        found = model.perturb_on_batch(records, ANSWERS)[space.name]
        weights = np.asarray(base.logit.kernel)[:, 0]
        expected = -0.3 * np.outer(2 * ANSWERS - 1, weights) / np.linalg.norm(weights)
        np.testing.assert_allclose(found - space(records), expected, atol=1e-5)


class TestSeveral:
    def expected(self, base, records, used, length):
        weights = logit_weights(base)
        parts = {"numbers": weights[:3], "cities": weights[3:5], "jobs": weights[5:]}
        joint = np.linalg.norm(np.concatenate([parts[name] for name in used]))
        logits = np.asarray(base(records))[:, 0]
        return 0.5 * np.mean(losses_of(logits - (2 * ANSWERS - 1) * length * joint))

    @pytest.mark.parametrize("iterations", [1, 3])
    @pytest.mark.parametrize("features", [False, True])
    def test_share_one_joint_norm(self, features, iterations):
        base, records = two_columns()
        model = adversarial(
            base,
            embedding_layer=["cities", "jobs"],
            perturb_features=features,
            pgd_iterations=iterations,
            pgd_epsilon=0.3,
        )
        logs = model.evaluate(records, ANSWERS, verbose=0, return_dict=True)
        used = ["cities", "jobs", *(["numbers"] if features else [])]
        expected = self.expected(base, records, used, 0.3)
        np.testing.assert_allclose(logs["scaled_adversarial_loss"], expected, 1e-5)
        found = model.perturb_on_batch(records, ANSWERS)
        assert found.keys() == {*used, *(("city", "job") if features else ())}
        model.fit(records, ANSWERS[:, None], verbose=0)

    def test_settings_are_keyed_by_layer_and_feature(self):
        base, records = two_columns()
        model = adversarial(
            base,
            embedding_layer="cities",
            perturb_features=True,
            adv_step_size={"cities": 0.2, "numbers": 0.1},
            feature_mask={"numbers": np.array([1.0, 0.0, 1.0])},
            adv_grad_norm="infinity",
        )
        found = model.perturb_on_batch(records, ANSWERS)
        moved = found["numbers"] - records["numbers"]
        np.testing.assert_allclose(np.abs(moved), [[0.1, 0, 0.1]] * 16, rtol=1e-4)
        before = np.asarray(base.get_layer("cities")(records["city"]))
        np.testing.assert_allclose(np.abs(found["cities"] - before), 0.2, rtol=1e-4)

    def test_one_above_another_counts_with_what_moves_it(self):
        keras.utils.set_random_seed(1)
        base = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(3, name="low"),
                keras.layers.Dense(2, name="high"),
                keras.layers.Dense(1, name="logit"),
            ]
        )
        model = adversarial(
            base,
            embedding_layer=["low", "high"],
            pgd_iterations=3,
            pgd_epsilon=0.3,
        )
        logs = model.evaluate(X[:16], ANSWERS, verbose=0, return_dict=True)
        top = logit_weights(base)
        both = [np.asarray(base.get_layer("high").kernel) @ top, top]
        logits = np.asarray(base(X[:16]))[:, 0]
        worst = logits - (2 * ANSWERS - 1) * 0.3 * np.linalg.norm(np.concatenate(both))
        np.testing.assert_allclose(
            logs["scaled_adversarial_loss"], 0.5 * np.mean(losses_of(worst)), 1e-5
        )

    def test_a_layer_that_runs_twice(self):
        keras.utils.set_random_seed(1)
        left, right = (keras.Input((), dtype="int32", name=n) for n in ("a", "b"))
        shared = keras.layers.Embedding(VOCABULARY, WIDTH, name="embedding")
        joined = keras.layers.Concatenate()([shared(left), shared(right)])
        base = keras.Model([left, right], keras.layers.Dense(1, name="logit")(joined))
        model = adversarial(base, embedding_layer="embedding", pgd_iterations=2)
        pairs = [TOKENS[:, 0], TOKENS[:, 1]]
        found = model.perturb_on_batch(pairs, ANSWERS)["embedding"]
        assert [part.shape for part in found] == [(16, WIDTH)] * 2
        moves = np.concatenate(
            [f - np.asarray(shared(t)) for f, t in zip(found, pairs, strict=True)], 1
        )
        np.testing.assert_allclose(np.linalg.norm(moves, axis=1), 0.6, rtol=1e-4)
        model.fit(pairs, ANSWERS[:, None], verbose=0)

    def test_layers_of_one_name_in_nested_models(self):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((LENGTH,), dtype="int32")

        def tower(name):
            vectors = keras.layers.Embedding(VOCABULARY, WIDTH, name="embedding")
            return keras.Sequential([vectors, keras.layers.Flatten()], name=name)

        towers = [tower("left"), tower("right")]
        joined = keras.layers.Concatenate()([one(inputs) for one in towers])
        base = keras.Model(inputs, keras.layers.Dense(1, name="logit")(joined))
        with pytest.raises(ValueError, match="Prefix it with the name"):
            adversarial(base, embedding_layer="embedding")
        names = ["left/embedding", "right/embedding"]
        model = adversarial(base, embedding_layer=names, pgd_iterations=2)
        found = model.perturb_on_batch(TOKENS, ANSWERS)
        moves = np.concatenate(
            [
                (found[name] - np.asarray(one.layers[0](TOKENS))).reshape(16, -1)
                for name, one in zip(names, towers, strict=True)
            ],
            axis=1,
        )
        np.testing.assert_allclose(np.linalg.norm(moves, axis=1), 0.6, rtol=1e-4)
        gains = moves @ logit_weights(base)
        best = 0.6 * np.linalg.norm(logit_weights(base))
        np.testing.assert_allclose(gains, -(2 * ANSWERS - 1) * best, rtol=1e-4)
        model.fit(TOKENS, ANSWERS[:, None], verbose=0)


class TestModes:
    @pytest.mark.parametrize(
        ("way", "config"),
        [
            (
                "xla",
                {
                    "objective": "mart",
                    "standardize_layers": True,
                    "norm_per_position": True,
                },
            ),
            ("eager", {"mode": "replace", "clip_to_layer_range": True}),
            ("loaded", {"objective": "virtual"}),
            (
                "loaded",
                {"random_init": True, "pgd_epsilon": 0.4, "start_epoch": 1},
            ),
        ],
        ids=str,
    )
    def test_train_alike(self, way, config, tmp_path):
        def trained(way):
            # Layers draw the seeds of their weights as they are made.
            keras.utils.set_random_seed(5)
            pooling = keras.layers.GlobalAveragePooling1D()
            model = adversarial(
                reader(pooling, keras.layers.Dense(4, "tanh"), mask_zero=True),
                embedding_layer="embedding",
                pgd_iterations=2,
                jit_compile=way == "xla",
                **config,
            )
            model.run_eagerly = way == "eager"
            if way == "loaded":
                keras.saving.save_model(model, tmp_path / "model.keras")
                model = keras.saving.load_model(tmp_path / "model.keras")
            history = model.fit(
                TOKENS,
                ANSWERS[:, None],
                epochs=2,
                batch_size=8,
                shuffle=False,
                verbose=0,
            )
            return model.get_weights(), history.history

        weights, history = trained(way)
        expected, expected_history = trained("graph")
        assert_weights_equal(weights, expected, 1e-4)
        for name, values in expected_history.items():
            np.testing.assert_allclose(history[name], values, rtol=1e-4)

    def test_half_precision_perturbs_in_float32(self):
        with_policy = keras.Sequential(
            [
                keras.Input((LENGTH,), dtype="int32"),
                keras.layers.Embedding(
                    VOCABULARY, WIDTH, name="embedding", dtype="mixed_float16"
                ),
                keras.layers.SimpleRNN(4, dtype="mixed_float16"),
                keras.layers.Dense(1, dtype="float32"),
            ]
        )
        model = adversarial(
            with_policy,
            embedding_layer="embedding",
            pgd_iterations=2,
            adv_step_size=0.01,
        )
        model.compile(
            keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)),
            keras.losses.BinaryCrossentropy(from_logits=True),
        )
        found = model.perturb_on_batch(TOKENS, ANSWERS)["embedding"]
        assert found.dtype == np.float32
        vectors = np.asarray(with_policy.layers[0](TOKENS), np.float32)
        lengths = np.linalg.norm((found - vectors).reshape(len(TOKENS), -1), axis=1)
        np.testing.assert_allclose(lengths, 0.02, rtol=1e-3)
        losses = model.fit(TOKENS, ANSWERS[:, None], epochs=3, verbose=0).history[
            "loss"
        ]
        assert np.all(np.isfinite(losses))

    def test_stacked_on_a_graph_term_at_the_same_layer(self):
        base = reader(keras.layers.LSTM(4))
        graph_config = nsl.configs.make_graph_reg_config(
            max_neighbors=2, multiplier=0.1, embedding_layer="embedding"
        )
        neighbors = {f"NL_nbr_{i}_tokens": np.roll(TOKENS, i + 1, 0) for i in (0, 1)}
        weights = {f"NL_nbr_{i}_weight": np.ones((16, 1), "float32") for i in (0, 1)}
        batch = {"tokens": TOKENS, **neighbors, **weights}

        def losses(iterations):
            model = adversarial(
                nsl.keras.GraphRegularization(base, graph_config),
                embedding_layer="embedding",
                pgd_iterations=iterations,
                pgd_epsilon=0.3,
            )
            return model.test_on_batch(batch, ANSWERS[:, None], return_dict=True), model

        alone = adversarial(base, embedding_layer="embedding").test_on_batch(
            TOKENS, ANSWERS[:, None], return_dict=True
        )
        together, model = losses(1)
        np.testing.assert_allclose(
            together["scaled_adversarial_loss"],
            alone["scaled_adversarial_loss"],
            rtol=1e-5,
        )
        start = base.get_weights()
        logs = model.train_on_batch(batch, ANSWERS[:, None], return_dict=True)
        assert logs["scaled_graph_loss"] > 0
        np.testing.assert_allclose(
            logs["scaled_adversarial_loss"],
            alone["scaled_adversarial_loss"],
            rtol=1e-5,
        )
        assert not np.allclose(start[0], base.get_weights()[0])

    @pytest.mark.parametrize(
        "kind", ["functional", "sequential", "subclassed", "nested"]
    )
    def test_the_search_goes_on_from_the_layer(self, kind):
        base = readers(kind)
        model = adversarial(base, embedding_layer="embedding", pgd_iterations=5)
        batch = (tf.constant(TOKENS), tf.constant(ANSWERS[:, None]))
        model.train_on_batch(*batch)
        graph = tf.function(model.train_step).get_concrete_function(batch).graph
        library = graph.as_graph_def().library.function
        needed = {
            kind
            for f in library
            if "while_body" in f.signature.name
            for kind in used(f)
        }
        assert "MatMul" in needed
        assert not {"ResourceGather", "GatherV2"} & needed


def used(function):
    """The kinds of operations that the results of a function depend on."""
    nodes = {node.name: node for node in function.node_def}
    found, waiting = set(), list(function.ret.values())
    while waiting:
        name = waiting.pop().split(":")[0].lstrip("^")
        if name in nodes and name not in found:
            found.add(name)
            waiting += nodes[name].input
    return {nodes[name].op for name in found}


IMAGES = _RANDOM.normal(size=(16, 4, 4, 1)).astype("float32")


class Towers(keras.Model):
    """A functional model with a class of its own."""


def two_towers(nested=False, dropout=0.5):
    """A text and an image, whose tower does not depend on the words."""
    keras.utils.set_random_seed(3)
    tokens = keras.Input((LENGTH,), dtype="int32", name="tokens")
    image = keras.Input((4, 4, 1), name="image")
    shared = keras.layers.Dense(4, "tanh", name="shared")
    words = keras.layers.Embedding(VOCABULARY, WIDTH, mask_zero=True, name="embedding")
    text = shared(keras.layers.GlobalAveragePooling1D(name="reads")(words(tokens)))
    seen = keras.layers.Conv2D(2, 2, name="sees")(image)
    seen = keras.layers.BatchNormalization()(seen)
    seen = keras.layers.Dropout(dropout)(keras.layers.Flatten()(seen))
    seen = shared(keras.layers.Dense(WIDTH)(seen))
    joined = keras.layers.Concatenate()([text, seen, keras.ops.tanh(text * seen)])
    logit = keras.layers.Dense(1)
    if not nested:
        return keras.Model([tokens, image], logit(joined))
    inputs = {"image": image, "tokens": tokens}
    backbone = Towers(inputs, {"joined": joined, "text": text})
    text = {
        "image": keras.Input((4, 4, 1)),
        "tokens": keras.Input((LENGTH,), None, "int32"),
    }
    return keras.Model([text["tokens"], text["image"]], logit(backbone(text)["joined"]))


class Opaque(keras.Model):
    """A model of which no layers are known."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, inputs, training=None):
        return self.inner(inputs, training=training)


class TestSideBranches:
    @pytest.mark.parametrize(
        ("way", "config"),
        [
            ("graph", {"random_init": True, "pgd_epsilon": 0.5}),
            (
                "nested",
                {"embedding_layer": ["embedding", "reads"], "pgd_epsilon": 0.5},
            ),
            ("graph", {"objective": "virtual", "start_epoch": 1}),
            ("eager", {"mode": "replace"}),
            ("xla", {"pgd_epsilon": 0.4}),
        ],
        ids=str,
    )
    def test_train_as_if_they_ran_in_each_iteration(self, way, config):
        settings = {"embedding_layer": "embedding", "pgd_iterations": 3, **config}

        def trained(wrap, way):
            # XLA drops other units.
            dropout = 0.0 if xla else 0.5
            base = wrap(two_towers(way == "nested", dropout))
            model = adversarial(base, jit_compile=way == "xla", **settings)
            model.run_eagerly = way == "eager"
            model.fit(
                [TOKENS, IMAGES],
                ANSWERS[:, None],
                epochs=2,
                batch_size=8,
                shuffle=False,
                verbose=0,
            )
            return model.get_weights()

        xla = way == "xla"
        # Compiling takes longest.
        expected = trained(Opaque, "graph" if xla else way)
        assert_weights_equal(trained(lambda base: base, way), expected, 1e-4)

    @pytest.mark.parametrize(
        ("shares", "nested"), [(True, False), (True, True), (False, False)]
    )
    def test_run_outside_of_the_loop(self, shares, nested):
        base = two_towers(nested)
        base = base if shares else Opaque(base)
        model = adversarial(base, embedding_layer="embedding", pgd_iterations=5)
        batch = ([tf.constant(TOKENS), tf.constant(IMAGES)], tf.constant(ANSWERS))
        model.train_on_batch(*batch)
        graph = tf.function(model.train_step).get_concrete_function(batch).graph
        needed = {
            kind
            for f in graph.as_graph_def().library.function
            if "while_body" in f.signature.name
            for kind in used(f)
        }
        assert "MatMul" in needed
        assert ("Conv2D" in needed) is not shares

    def test_a_graph_term_compares_one(self):
        base = two_towers()
        graph_config = nsl.configs.make_graph_reg_config(
            max_neighbors=1, multiplier=0.1, embedding_layer="sees"
        )
        model = adversarial(
            nsl.keras.GraphRegularization(base, graph_config),
            embedding_layer="embedding",
            pgd_iterations=3,
        )
        x = {"tokens": TOKENS, "image": IMAGES, "NL_nbr_0_weight": np.ones((16, 1))}
        x |= {"NL_nbr_0_tokens": TOKENS[::-1], "NL_nbr_0_image": IMAGES[::-1]}
        logs = model.train_on_batch(x, ANSWERS[:, None], return_dict=True)
        assert logs["scaled_graph_loss"] > 0


class TestHiddenLayerOfNumbersContract(TermWeightsContract):
    term_metric = "scaled_adversarial_loss"
    term_is_weighted = True

    def wrap(self, base):
        config = nsl.configs.make_adv_reg_config(
            multiplier=0.5,
            adv_step_size=0.1,
            pgd_iterations=2,
            pgd_epsilon=0.2,
            embedding_layer=base.layers[0].name,
        )
        return nsl.keras.AdversarialRegularization(base, adv_config=config)


class Cell(keras.layers.Layer):
    """Sums up what a layer makes of each step."""

    def __init__(self):
        super().__init__()
        self.state_size = self.output_size = 4
        self.step = keras.layers.Dense(4, name="step")

    def build(self, input_shape):
        self.step.build(input_shape)
        super().build(input_shape)

    def call(self, inputs, states, training=None):
        total = states[0] + self.step(inputs)
        return total, [total]


class TestErrors:
    def test_unknown_layer(self):
        layers = r"'embeding'.*Its layers are.*'embedding'"
        with pytest.raises(ValueError, match=layers):
            adversarial(reader(), embedding_layer="embeding")

    @pytest.mark.parametrize("build_first", [True, False])
    @pytest.mark.parametrize("name", ["step", "rnn/step"])
    def test_part_of_a_recurrent_cell(self, name, build_first):
        def made(terms):
            layers = [keras.layers.RNN(Cell(), name="rnn"), keras.layers.Dense(1)]
            inputs = [keras.Input((3, 2))] if build_first else []
            model = terms(keras.Sequential([*inputs, *layers]))
            model.compile("sgd", "mse")
            return model

        def graph(base):
            config = nsl.configs.make_graph_reg_config(
                max_neighbors=1, embedding_layer=name
            )
            return nsl.keras.GraphRegularization(base, config)

        x = np.ones((16, 3, 2), "float32")
        neighbors = {"x": x, "NL_nbr_0_x": x, "NL_nbr_0_weight": x[:, :1, 0]}
        message = "cell of the recurrent layer 'rnn'.*Name 'rnn' or a layer before"
        with pytest.raises(ValueError, match=message):
            made(lambda base: adversarial(base, embedding_layer=name)).fit(x, ANSWERS)
        with pytest.raises(ValueError, match=message):
            made(graph).fit(neighbors, ANSWERS)

    def test_part_of_an_unrolled_cell_is_perturbed_at_each_step(self):
        keras.utils.set_random_seed(0)
        base = keras.Sequential(
            [
                keras.Input((3, 2)),
                keras.layers.RNN(Cell(), unroll=True, name="rnn"),
                keras.layers.Dense(1, name="logit"),
            ]
        )
        x = _RANDOM.normal(size=(16, 3, 2)).astype("float32")
        model = adversarial(base, embedding_layer="step")
        found = model.perturb_on_batch(x, ANSWERS)["step"]
        moves = np.stack(found, 1) - np.asarray(base.layers[0].cell.step(x))
        np.testing.assert_allclose(
            np.linalg.norm(moves.reshape(16, -1), axis=1), 0.3, rtol=1e-4
        )

    def test_columns_of_a_feature_space_without_concatenation(self):
        space, records = feature_space("dict")
        model = adversarial(FromSpace(space), embedding_layer=space.name)
        names = r"dict of columns.*\{'job': 'category_encoding"
        with pytest.raises(ValueError, match=names):
            model.perturb_on_batch(records, ANSWERS)

    @pytest.mark.parametrize("eagerly", [False, True])
    def test_embeddings_of_positions_are_of_no_sample(self, eagerly):
        class Positions(keras.layers.Layer):
            def build(self, shape):
                self.embedding = keras.layers.Embedding(LENGTH, WIDTH, name="place")

            def call(self, inputs):
                return inputs + self.embedding(keras.ops.arange(LENGTH))

        base = reader(Positions(), keras.layers.Flatten())
        model = adversarial(base, embedding_layer=["embedding", "place"])
        model.compile("sgd", model.loss, run_eagerly=eagerly)
        with pytest.raises(ValueError, match="'place', whose outputs all samples"):
            model.fit(TOKENS, ANSWERS[:, None], verbose=0)
        attack = nsl.attacks.FGSM()
        with pytest.raises(ValueError, match=r"'place' must.*\[16, ...\].*\(6, 4\)"):
            attack(base, TOKENS, ANSWERS[:, None], epsilon=0.1, layer="place")

    def test_integers_cannot_be_perturbed(self):
        tokens = keras.Input((LENGTH,), dtype="int32")
        cast = keras.layers.Lambda(lambda t: t % 3, name="rest")(tokens)
        vectors = keras.layers.Embedding(3, 2)(cast)
        base = keras.Model(tokens, keras.layers.Dense(1)(keras.ops.mean(vectors, 1)))
        model = adversarial(base, embedding_layer="rest")
        with pytest.raises(ValueError, match=r"'rest'.*cannot be perturbed.*int32"):
            model.fit(TOKENS, ANSWERS[:, None], verbose=0)

    def test_a_name_of_both(self):
        class Sum(keras.Model):
            def __init__(self):
                super().__init__()
                self.logit = keras.layers.Dense(1, name="x")

            def call(self, inputs):
                return self.logit(inputs["x"])

        base = Sum()
        base({"x": X})
        model = adversarial(base, embedding_layer="x", perturb_features=True)
        with pytest.raises(ValueError, match=r"\['x'\] are names of both"):
            model.perturb_on_batch({"x": X[:16]}, ANSWERS)

    def test_gen_adv_neighbor_knows_no_layers(self):
        config = nsl.configs.AdvNeighborConfig(embedding_layer="embedding")
        with pytest.raises(ValueError, match="outputs as input"):
            nsl.lib.gen_adv_neighbor(tf.ones([2, 3]), tf.ones([]), config)


def test_tokens_without_a_layer_say_so():
    model = adversarial(reader())
    with pytest.raises(ValueError, match="embedding_layer"):
        model.fit(TOKENS, ANSWERS[:, None], verbose=0)
