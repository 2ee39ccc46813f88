"""The objectives of graph regularization, in the wrapper."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import nsl
from nsl.keras.passes import Passes
from tests.keras.contract.base import SAMPLES, X, Y, assert_weights_equal, mlp
from tests.keras.graph_regularization_test import neighbors_of

BATCH = neighbors_of({"x": X}, 2)
WEIGHTS = np.concatenate([BATCH["NL_nbr_0_weight"], BATCH["NL_nbr_1_weight"]], 1)
OBJECTIVES = ["distance", "contrastive", "consistency", "propagation"]
OF_PREDICTIONS = OBJECTIVES[2:]
LOGITS_LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def classifier(kind, last="linear"):
    """A classifier of X with a layer 'embedding', of each kind of model."""
    keras.utils.set_random_seed(1)
    embedding = keras.layers.Dense(5, activation="tanh", name="embedding")
    out = keras.layers.Dense(3, activation=last)
    if kind == "sequential":
        return keras.Sequential([keras.Input((4,), name="x"), embedding, out])
    inputs = keras.Input((4,), name="x")
    if kind == "functional":
        return keras.Model(inputs, out(embedding(inputs)))
    if kind == "nested":
        tower = keras.Sequential([embedding], name="tower")
        return keras.Model(inputs, out(tower(inputs)))

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.embedding, self.out = embedding, out

        def call(self, inputs):
            x = inputs["x"] if isinstance(inputs, dict) else inputs
            return self.out(self.embedding(x))

    return Subclassed()


def wrapped(base=None, loss=LOGITS_LOSS, optimizer=None, mode=None, **config):
    settings = {"max_neighbors": 2, "multiplier": 0.3, **config}
    config = nsl.configs.make_graph_reg_config(**settings)
    model = nsl.keras.GraphRegularization(base or classifier("sequential"), config)
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss, **(mode or {}))
    return model


def expected_loss(objective, outputs, **settings):
    """The loss from the outputs of samples and neighbors, a function of features."""
    own = outputs(X)
    neighbors = np.stack([outputs(BATCH[f"NL_nbr_{i}_x"]) for i in range(2)], 1)
    if objective == "distance":
        squares = np.square(own[:, None] - neighbors) * WEIGHTS[..., None]
        return squares.sum() / (WEIGHTS != 0).sum() / own.shape[-1]
    there = (WEIGHTS != 0).any(1)
    labeled = 0.0
    if objective == "propagation":
        objective = "consistency"
        mean = nsl.lib.neighbor_mean_prediction(neighbors, WEIGHTS, **settings)
        of_label = keras.losses.sparse_categorical_crossentropy(Y, mean, **settings)
        labeled = np.average(of_label, weights=there)
    of = getattr(nsl.lib, f"neighbor_{objective}_loss")
    values = of(own, neighbors, WEIGHTS, **settings).numpy()
    return labeled + values.sum() / there.sum()


def graph_loss(model, batch=BATCH, y=Y):
    logs = model.train_on_batch(batch, y, return_dict=True)
    return logs["scaled_graph_loss"] / 0.3


@pytest.mark.parametrize("objective", OF_PREDICTIONS)
def test_modes_agree(objective):
    weights = []
    for mode in ({}, {"run_eagerly": True}, {"jit_compile": True}):
        model = wrapped(mode=mode, objective=objective)
        model.fit(BATCH, Y, verbose=0, shuffle=False, batch_size=8)
        weights.append(model.get_weights())
    assert_weights_equal(weights[1], weights[0], 1e-5)
    assert_weights_equal(weights[2], weights[0], 1e-5)


class TestAgainstTheFunctions:
    @pytest.mark.parametrize("kind", ["sequential", "subclassed"])
    @pytest.mark.parametrize("objective", OBJECTIVES)
    def test_outputs(self, objective, kind):
        base = classifier(kind)
        base(X)
        of = {"from_logits": True} if objective in OF_PREDICTIONS else {}
        expected = expected_loss(objective, lambda x: base(x).numpy(), **of)
        actual = graph_loss(wrapped(base, objective=objective))
        assert actual == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize(
        ("objective", "kind"),
        [
            ("distance", "functional"),
            ("distance", "nested"),
            ("distance", "subclassed"),
            ("contrastive", "sequential"),
            ("contrastive", "subclassed"),
            ("consistency", "nested"),
        ],
    )
    def test_a_layer(self, objective, kind):
        base = classifier(kind)
        base(X)
        layers = base._flatten_layers()
        [layer] = [layer for layer in layers if layer.name == "embedding"]
        of, config = {}, {}
        if objective == "consistency":
            of, config = {"from_logits": True}, {"transform_fn": "softmax"}
        expected = expected_loss(objective, lambda x: layer(x).numpy(), **of)
        model = wrapped(
            base, objective=objective, embedding_layer="embedding", **config
        )
        assert graph_loss(model) == pytest.approx(expected, rel=1e-4)


class TestEmbeddingLayer:
    @pytest.mark.parametrize("objective", ["distance", "contrastive"])
    def test_the_layers_behind_it_get_no_gradient(self, objective):
        model = wrapped(objective=objective, embedding_layer="embedding")
        labeled = wrapped(max_neighbors=0)
        for each in (model, labeled):
            each.train_on_batch(BATCH, Y)
        own, plain = model.get_weights(), labeled.get_weights()
        assert_weights_equal(own[2:], plain[2:])
        assert not np.allclose(own[0], plain[0])

    @pytest.mark.parametrize(
        "mode", [{"run_eagerly": True}, {"jit_compile": True}], ids=str
    )
    def test_modes(self, mode):
        weights = []
        for settings in ({}, mode):
            model = wrapped(
                classifier("subclassed"),
                mode=settings,
                objective="contrastive",
                embedding_layer="embedding",
            )
            model.fit(BATCH, Y, verbose=0, shuffle=False, batch_size=8)
            weights.append(model.get_weights())
        assert_weights_equal(*weights, 1e-5)

    @pytest.mark.parametrize("objective", OBJECTIVES[:3])
    def test_mixed_precision(self, objective):
        config = {"objective": objective, "transform_fn": "softmax"}
        config["embedding_layer"] = "embedding"
        full = graph_loss(wrapped(**config))
        keras.config.set_dtype_policy("mixed_float16")
        try:
            half = graph_loss(wrapped(**config))
        finally:
            keras.config.set_dtype_policy("float32")
        assert half == pytest.approx(full, rel=0.02)

    def test_wrong_name_of_a_built_model(self):
        with pytest.raises(ValueError, match=r"'embeding'.*'embedding'"):
            wrapped(embedding_layer="embeding")

    def test_wrong_name_of_a_model_that_is_not_built(self):
        model = wrapped(classifier("subclassed"), embedding_layer="embeding")
        with pytest.raises(ValueError, match=r"'embeding'.*'embedding'"):
            model.fit(BATCH, Y, verbose=0)

    def test_an_input_is_no_layer(self):
        with pytest.raises(ValueError, match="'x' is an input"):
            wrapped(embedding_layer="x")

    def test_not_together_with_an_output(self):
        with pytest.raises(ValueError, match="output_name='a' and embedding_layer='b'"):
            wrapped(output_name="a", embedding_layer="b")

    def test_saved_wrapper(self, tmp_path):
        config = {"objective": "contrastive", "embedding_layer": "embedding"}
        model = wrapped(**config, temperature=0.2)
        model.fit(BATCH, Y, verbose=0, shuffle=False)
        keras.saving.save_model(model, tmp_path / "whole.keras")
        loaded = keras.saving.load_model(tmp_path / "whole.keras")
        assert loaded.graph_reg_config == model.graph_reg_config
        for each in (model, loaded):
            each.fit(BATCH, Y, verbose=0, shuffle=False)
        assert_weights_equal(loaded.get_weights(), model.get_weights())


class BackwardPasses(keras.layers.Layer):
    """Notes the batch size of each forward and each backward pass."""

    def __init__(self):
        super().__init__()
        self.notes = {"forward": [], "backward": []}
        self.forward = self.notes["forward"].append
        self.backward = self.notes["backward"].append

    def call(self, inputs, training=None):
        self.forward((inputs.shape[0], training))

        @tf.custom_gradient
        def noted(x):
            def gradient(upstream):
                self.backward(upstream.shape[0])
                return upstream

            return tf.identity(x), gradient

        return noted(inputs)


class TestCost:
    @pytest.mark.parametrize("shared", [True, False])
    @pytest.mark.parametrize(
        ("objective", "layer"),
        [*((each, None) for each in OBJECTIVES), ("distance", "embedding")],
    )
    def test_passes_of_a_training_step(self, objective, shared, layer, monkeypatch):
        passes = []
        run_base = Passes.run_base

        def counted(self, x, training):
            passes.append((len(x["x"]), training))
            return run_base(self, x, training)

        monkeypatch.setattr(Passes, "run_base", counted)
        base = classifier("sequential" if shared else "subclassed", "softmax")
        model = wrapped(
            base,
            "sparse_categorical_crossentropy",
            mode={"run_eagerly": True},
            objective=objective,
            embedding_layer=layer,
            transform_fn="softmax",
        )
        model.train_on_batch(BATCH, Y)
        passes.clear()
        model.train_on_batch(BATCH, Y)
        if objective == "consistency":
            assert passes == [(SAMPLES, True), (2 * SAMPLES, False)]
        elif shared:
            assert passes == [(3 * SAMPLES, True)]
        else:
            assert passes == [(SAMPLES, True), (2 * SAMPLES, True)]

    def test_consistency_goes_back_through_the_samples_alone(self):
        passes = BackwardPasses()
        model = wrapped(
            mlp(passes), mode={"run_eagerly": True}, objective="consistency"
        )
        for notes in passes.notes.values():
            notes.clear()
        model.train_on_batch(BATCH, Y)
        assert passes.notes["forward"] == [(SAMPLES, True), (2 * SAMPLES, False)]
        assert set(passes.notes["backward"]) == {SAMPLES}


class TestPropagation:
    def test_labels_and_weights_of_samples_count(self):
        """The labeled part is a weighted mean over the samples that have neighbors."""
        weight = np.where(np.arange(SAMPLES) % 3 == 0, 0.0, 1.0 + np.arange(SAMPLES))
        weights = np.where(np.arange(SAMPLES)[:, None] % 5 == 1, 0.0, WEIGHTS)
        batch = {**BATCH}
        for i in range(2):
            batch[f"NL_nbr_{i}_weight"] = weights[:, i : i + 1]
        base = classifier("sequential")
        own = base(X).numpy()
        near = np.stack([base(BATCH[f"NL_nbr_{i}_x"]).numpy() for i in range(2)], 1)
        mean = nsl.lib.neighbor_mean_prediction(near, weights, from_logits=True)
        of_label = keras.losses.sparse_categorical_crossentropy(Y, mean, True)
        there = (weights != 0).any(1)
        expected = np.average(of_label, weights=weight * there)
        parts = nsl.lib.neighbor_consistency_loss(own, near, weights, from_logits=True)
        expected += parts.numpy()[there].mean()
        for reduction in ("sum_over_batch_size", "sum", "mean_with_sample_weight"):
            loss = keras.losses.SparseCategoricalCrossentropy(True, reduction=reduction)
            model = wrapped(classifier("sequential"), loss, objective="propagation")
            logs = model.train_on_batch(batch, Y, weight, return_dict=True)
            actual = logs["scaled_graph_loss"] / 0.3
            assert actual == pytest.approx(expected, rel=1e-4), reduction

    def test_a_batch_without_labels(self):
        model = wrapped(objective="propagation")
        logs = model.train_on_batch(BATCH, Y, np.zeros(SAMPLES), return_dict=True)
        other = wrapped(objective="consistency").train_on_batch(
            BATCH, Y, return_dict=True
        )
        term = "scaled_graph_loss"
        assert logs[term] == pytest.approx(other[term], rel=1e-5)

    @pytest.mark.arithmetic
    def test_neighbors_learn_the_labels(self):
        """From samples whose own features tell nothing."""
        weight = np.ones((SAMPLES, 1))
        y = (X[:, 0] > 0).astype(int)
        # No sample is so close to the boundary that rounding could decide on it.
        apart = X + np.where(y, 2, -2)[:, None] * [1, 0, 0, 0]
        x = {"x": 0 * X, "NL_nbr_0_x": apart, "NL_nbr_0_weight": weight}
        model = wrapped(
            max_neighbors=1,
            objective="propagation",
            multiplier=1.0,
            optimizer=keras.optimizers.Adam(0.1),
        )
        model.fit(x, y, epochs=20, verbose=0)
        predicted = model.predict(apart, verbose=0).argmax(-1)
        assert np.mean(predicted == y) > 0.9

    def test_distribution_alignment_holds_a_class_back_that_all_samples_have(self):
        def share_of_the_first(alignment):
            base = classifier("sequential", "softmax")
            kernel, _ = base.layers[-1].get_weights()
            base.layers[-1].set_weights([kernel, np.array([3.0, 0.0, 0.0])])
            loss = "sparse_categorical_crossentropy"
            config = {"objective": "propagation", "multiplier": 3.0}
            model = wrapped(base, loss, distribution_alignment=alignment, **config)
            model.train_on_batch(BATCH, Y, np.arange(SAMPLES) == 0)
            return base(X).numpy()[:, 0].mean()

        assert share_of_the_first(1.0) < share_of_the_first(0.0) - 0.02

    def test_replicas_align_the_whole_batch(self):
        def weights(strategy):
            with strategy.scope():
                model = wrapped(objective="propagation", distribution_alignment=1.0)
            model.train_on_batch(BATCH, Y)
            return model.get_weights()

        devices = [device.name for device in tf.config.list_logical_devices("CPU")]
        assert len(devices) > 1
        mirrored = tf.distribute.MirroredStrategy(
            devices, cross_device_ops=tf.distribute.ReductionToOneDevice()
        )
        assert_weights_equal(
            weights(mirrored), weights(tf.distribute.get_strategy()), 1e-5
        )

    def test_it_needs_a_loss_of_the_output(self):
        model = wrapped(
            objective="propagation", embedding_layer="embedding", transform_fn="softmax"
        )
        with pytest.raises(ValueError, match=r"needs an output .* a loss for"):
            model.fit(BATCH, Y, verbose=0)


class TestConsistency:
    """Logits or probabilities, as the loss or the transform tells."""

    @pytest.mark.parametrize(
        ("last", "loss", "config"),
        [
            ("linear", LOGITS_LOSS, {}),
            ("linear", "mse", {"transform_fn": "softmax"}),
            ("softmax", "sparse_categorical_crossentropy", {}),
            ("softmax", "mse", {}),
        ],
        ids=["logits", "transform", "probabilities", "unknown"],
    )
    def test_kinds_of_outputs(self, last, loss, config):
        base = classifier("sequential", last)
        y = X[:, :3] if loss == "mse" else Y
        expected = expected_loss(
            "consistency",
            lambda x: base(x).numpy(),
            from_logits=last == "linear",
        )
        model = wrapped(base, loss, objective="consistency", **config)
        assert graph_loss(model, y=y) == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("from_logits", [True, False])
    def test_one_output_of_yes_or_no(self, from_logits):
        def base():
            keras.utils.set_random_seed(1)
            last = "linear" if from_logits else "sigmoid"
            layers = [keras.layers.Dense(1, last), keras.layers.Reshape(())]
            return keras.Sequential([keras.Input((4,), name="x"), *layers])

        loss = keras.losses.BinaryCrossentropy(from_logits=from_logits)
        y = Y.astype("float32") % 2
        model = base()
        expected = expected_loss(
            "consistency",
            lambda x: model(x).numpy()[:, None],
            from_logits=from_logits,
            binary=True,
        )
        assert expected > 1e-3
        actual = graph_loss(wrapped(base(), loss, objective="consistency"), y=y)
        assert actual == pytest.approx(expected, rel=1e-4)

    def test_outputs_that_are_no_distribution(self):
        model = wrapped(loss="mse", objective="consistency")
        with pytest.raises(tf.errors.InvalidArgumentError, match="If they are logits"):
            model.fit(BATCH, X[:, :3], verbose=0)


class TestNewLoss:
    """A further graph loss is one class."""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def farthest(cls):
        class Farthest(nsl.keras.GraphLoss, objective="most_distant"):
            """The distance to the farthest neighbor."""

            def __call__(self, outputs, config):
                away = [
                    tf.norm(outputs.samples - n, axis=-1) for n in outputs.neighbors
                ]
                away = tf.where(outputs.weights > 0, tf.stack(away, 1), 0.0)
                return self.mean_over_samples(tf.reduce_max(away, 1), outputs.weights)

    def test_it_trains_and_is_saved(self, tmp_path):
        base = classifier("sequential")
        own = base(X).numpy()
        neighbors = [base(BATCH[f"NL_nbr_{i}_x"]).numpy() for i in range(2)]
        away = [np.linalg.norm(own - other, axis=-1) for other in neighbors]
        away = np.where(WEIGHTS > 0, np.stack(away, 1), 0).max(1)
        model = wrapped(base, objective="most_distant")
        assert graph_loss(model) == pytest.approx(away.mean(), rel=1e-4)
        keras.saving.save_model(model, tmp_path / "whole.keras")
        loaded = keras.saving.load_model(tmp_path / "whole.keras")
        assert loaded.graph_reg_config.objective == "most_distant"

    def test_unknown_loss(self):
        with pytest.raises(ValueError, match=r"'nearest'.*'contrastive', 'distance'"):
            wrapped(objective="nearest")


def accuracy_on_blobs(objective, multiplier, **config):
    """Three classes of four blobs each; a graph joins samples of a class.

    All labels are in one blob of each class, so that nothing but the graph tells the
    class of the others: a gap of a quarter of the samples, whatever the rounding.
    """
    rng = np.random.default_rng(0)
    blobs = np.arange(480) % 12
    labels, is_labeled = blobs // 4, blobs % 4 == 0
    x = rng.normal(size=(12, 16))[blobs] + 0.3 * rng.normal(size=(480, 16))
    of_class = [np.flatnonzero(labels == label) for label in range(3)]
    targets = np.concatenate([rng.choice(of_class[label], 3) for label in labels])
    edges = np.repeat(np.arange(480), 3), targets
    keras.utils.set_random_seed(0)
    base = keras.Sequential(
        [
            keras.Input((16,), name="x"),
            keras.layers.Dense(64, "relu", name="hidden"),
            keras.layers.Dense(3),
        ]
    )
    config = nsl.configs.make_graph_reg_config(
        max_neighbors=3, multiplier=multiplier, objective=objective, **config
    )
    data = nsl.data.neighbor_dataset(
        nsl.data.Graph(edges, ids=range(480)),
        x.astype("float32"),
        labels,
        is_labeled,
        neighbor_config=config.neighbor_config,  # type: ignore[attr-defined]
        batch_size=120,
        sampling="uniform",
        seed=0,
    )
    model = nsl.keras.GraphRegularization(base, config)
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="mean_with_sample_weight"
    )
    model.compile(keras.optimizers.Adam(0.01), loss)
    # One epoch, for each makes the pipeline of the data anew.
    model.fit(data.repeat(), steps_per_epoch=40, verbose=0, shuffle=False)
    predicted = model.predict(x[~is_labeled], verbose=0).argmax(-1)
    return np.mean(predicted == labels[~is_labeled])


@pytest.fixture(scope="module")
def plain_accuracy():
    return accuracy_on_blobs("distance", 0.0)


@pytest.mark.arithmetic
@pytest.mark.parametrize(
    ("objective", "multiplier", "config"),
    [
        ("distance", 3.0, {"sum_over_axis": -1, "transform_fn": "softmax"}),
        ("contrastive", 1.0, {"embedding_layer": "hidden"}),
        ("consistency", 0.3, {}),
        ("propagation", 1.0, {}),
    ],
    ids=OBJECTIVES,
)
def test_few_labels_and_a_graph_beat_few_labels(
    objective, multiplier, config, plain_accuracy
):
    accuracy = accuracy_on_blobs(objective, multiplier, **config)
    assert accuracy > plain_accuracy + 0.1
