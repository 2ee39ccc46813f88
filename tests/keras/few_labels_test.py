"""nsl.keras.few_labels: stages, rules, features of all kinds, errors."""

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.neighbors import kneighbors_graph

import nsl
from nsl.data.walks import teleport_of_size
from nsl.keras import few_labels
from nsl.keras.node_labels import NodeLabels

SHORT = few_labels.Settings(
    teleport=0.3,
    teacher_steps=4,
    steps=4,
    batch_size=16,
    walks=2,
    hops=3,
    input_dropout=0.0,
    consistency=0.0,
)
CONSISTENT = dataclasses.replace(SHORT, consistency=1.0)
NODES, CLASSES, WORDS = 60, 3, 8


@dataclasses.dataclass
class Data:
    """A made-up graph whose edges join equal classes."""

    graph: nsl.data.Graph
    x: np.ndarray
    y: np.ndarray
    labeled: np.ndarray


@pytest.fixture(scope="module")
def data() -> Data:
    rng = np.random.default_rng(0)
    y = np.arange(NODES) % CLASSES
    sources = rng.integers(0, NODES, 200)
    targets = (sources + CLASSES * rng.integers(1, NODES // CLASSES, 200)) % NODES
    graph = nsl.data.Graph((sources, targets), ids=range(NODES), undirected=True)
    x = rng.normal(size=(NODES, WORDS)) * (rng.random((NODES, WORDS)) < 0.5)
    return Data(graph, x.astype(np.float32), y, np.arange(NODES) < 12)


def make_model(activation: str | None = "softmax") -> keras.Model:
    initializer = keras.initializers.GlorotUniform(seed=1)
    return keras.Sequential(
        [
            keras.Input((WORDS,)),
            keras.layers.Dense(CLASSES, activation, kernel_initializer=initializer),
        ]
    )


def fitted(data: Data, **changes: Any) -> np.ndarray:
    """Returns the weights of the one layer after training."""
    arguments = {
        "model": make_model(),
        "graph": data.graph,
        "x": data.x,
        "y": data.y,
        "sample_weight": data.labeled,
        "settings": SHORT,
        "seed": 0,
    } | changes
    model = few_labels.fit(**arguments)
    assert model is arguments["model"]
    return np.concatenate([part.ravel() for part in model.get_weights()])


@pytest.fixture(scope="module")
def weights(data: Data) -> np.ndarray:
    return fitted(data)


class TestSoften:
    def test_the_mean_confidence_is_met_by_a_temperature(self) -> None:
        answers = np.random.default_rng(0).dirichlet(np.ones(4), 50)
        soft = few_labels.soften(answers, 0.7)
        assert soft.dtype == np.float32
        assert soft.max(axis=1).mean() == pytest.approx(0.7, abs=1e-4)
        np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-5)
        before = np.log(answers[:, 1:] / answers[:, :1])
        after = np.log(soft[:, 1:] / soft[:, :1])
        likely = answers.min(axis=1) > 1e-5
        factor = np.sum(before * after) / np.sum(before**2)
        np.testing.assert_allclose(after[likely], factor * before[likely], rtol=1e-3)

    def test_two_classes_alone(self) -> None:
        soft = few_labels.soften([[0.9, 0.1], [0.1, 0.9]], 0.8)
        np.testing.assert_allclose(soft, [[0.8, 0.2], [0.2, 0.8]], atol=1e-4)

    def test_sure_answers_do_not_overflow(self) -> None:
        with np.errstate(all="raise"):
            soft = few_labels.soften(np.eye(3), 0.7)
        np.testing.assert_allclose(soft, 0.55 * np.eye(3) + 0.15, atol=1e-4)

    def test_rows_of_zeros_become_uniform_and_do_not_count(self) -> None:
        soft = few_labels.soften([[0.9, 0.1], [0, 0]], 0.8)
        np.testing.assert_allclose(soft, [[0.8, 0.2], [0.5, 0.5]], atol=1e-4)


class TestBalance:
    def test_classes_get_the_wanted_shares_of_the_weight(self) -> None:
        rng = np.random.default_rng(0)
        soft = rng.dirichlet([9, 3, 1], 50)
        weight = few_labels.balance(soft, [0.2, 0.3, 0.5], 1.0)
        assert weight.dtype == np.float32
        assert weight.mean() == pytest.approx(1, rel=1e-5)
        factors = np.array([0.2, 0.3, 0.5]) / soft.mean(axis=0)
        np.testing.assert_allclose(weight, soft @ factors, rtol=1e-4)
        sure = np.eye(3)[[0] * 6 + [1] * 3 + [2]]
        weight = few_labels.balance(sure, np.ones(3) / 3, 1.0)
        np.testing.assert_allclose(weight @ sure, 10 / 3, rtol=1e-5)

    def test_a_power_of_half_goes_half_way(self) -> None:
        sure = np.eye(2)[[0] * 9 + [1]]
        weight = few_labels.balance(sure, [0.5, 0.5], 0.5)
        assert weight[-1] / weight[0] == pytest.approx(3, rel=1e-5)
        assert weight.mean() == pytest.approx(1, rel=1e-5)

    def test_classes_that_nobody_predicts(self) -> None:
        sure = np.eye(3)[[0, 0, 1, 1]]
        weight = few_labels.balance(sure, [0.8, 0.0, 0.2], 1.0)
        np.testing.assert_allclose(weight, [2, 2, 0, 0], rtol=1e-5)
        assert not few_labels.balance(sure, [0, 0, 1], 1.0).any()

    def test_in_the_first_stage(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The loss of unlabeled nodes alone moves the rows of two kinds of nodes."""
        monkeypatch.setattr(keras.optimizers, "Adam", keras.optimizers.SGD)
        kind = np.where(np.arange(NODES) % 6 == 0, 1, 0)
        kind[:2] = 2
        settings = dataclasses.replace(CONSISTENT, teacher_steps=2, learning_rate=1.0)
        kernel = np.array([[1, 0], [0, 2], [0, 0]], np.float32)

        def moved(power: float) -> np.ndarray:
            layer = keras.layers.Dense(2, use_bias=False)
            model = keras.Sequential([keras.Input((3,)), layer])
            model.set_weights([kernel])
            few_labels.teach(
                model,
                None,
                np.eye(3, dtype=np.float32)[kind],
                np.arange(NODES) % 2,
                np.arange(NODES) < 2,
                settings=dataclasses.replace(settings, balance=power),
                from_logits=True,
                seed=0,
            )
            return model.get_weights()[0] - kernel

        answers = np.exp(kernel) / np.exp(kernel).sum(axis=1, keepdims=True)
        targets = answers**2 / (answers**2).sum(axis=1, keepdims=True)
        # At the second of two steps the learning rate is half of that at the start.
        slopes = 0.5 * (targets - answers)
        unbalanced = moved(0.0)
        shares = unbalanced[:2, 0] / slopes[:2, 0]
        shares = np.append(shares, 1 - shares.sum())
        weights = targets @ np.sqrt(0.5 / (shares @ targets))
        weights /= shares @ weights
        assert weights[1] > 1.2 * weights[0]
        expected = unbalanced * weights[:, np.newaxis]
        np.testing.assert_allclose(moved(0.5), expected, rtol=1e-3, atol=1e-6)

    def test_wrong_shapes_are_named(self) -> None:
        with pytest.raises(ValueError, match=r"\(5, 3\) and \(2,\)"):
            few_labels.balance(np.ones((5, 3)), [0.5, 0.5])


class TestFit:
    @pytest.mark.arithmetic
    def test_digits_with_twenty_labels(self) -> None:
        images, y = load_digits(return_X_y=True)
        x = (images / 16).astype(np.float32)
        train, test = np.arange(600), np.arange(600, 1797)
        rng = np.random.default_rng(0)
        labeled = np.concatenate(
            [rng.choice(np.flatnonzero(y[train] == c), 2, False) for c in range(10)]
        )
        graph = nsl.data.Graph(kneighbors_graph(x[train], 5), undirected=True)

        settings = few_labels.Settings(
            hops=5, teacher_steps=60, steps=100, batch_size=128, learning_rate=0.02
        )

        def accuracy(used: nsl.data.Graph | None, **switches: bool) -> float:
            keras.utils.set_random_seed(0)
            model = keras.Sequential(
                [
                    keras.Input((64,)),
                    keras.layers.Dense(32, "relu"),
                    keras.layers.Dense(10, "softmax"),
                ]
            )
            few_labels.fit(
                model,
                used,
                x[train],
                y[train],
                np.isin(train, labeled),
                settings=settings,
                seed=0,
                **switches,
            )
            answers = np.asarray(model(x[test])).argmax(axis=1)
            return float(np.mean(answers == y[test]))

        whole = accuracy(graph)
        assert whole > accuracy(None) + 0.05
        assert whole > 0.7
        assert accuracy(graph, teacher=False) > 0.75

    def test_the_stages_one_by_one_give_the_same(self, data: Data) -> None:
        model = make_model()
        start = model.get_weights()
        answers = few_labels.teach(
            model, data.graph, data.x, data.y, data.labeled, settings=CONSISTENT, seed=0
        )
        np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-5)
        taught = np.concatenate([part.ravel() for part in model.get_weights()])
        model.set_weights(start)
        soft = few_labels.soften(answers, SHORT.confidence)
        soft[data.labeled] = np.eye(CLASSES)[data.y[data.labeled]]
        shares = np.bincount(data.y[data.labeled]) / data.labeled.sum()
        weight = few_labels.balance(soft, shares, SHORT.balance)
        few_labels.distill(model, data.x, soft, weight, settings=SHORT, seed=0)
        distilled = np.concatenate([part.ravel() for part in model.get_weights()])
        chosen = {"settings": CONSISTENT}
        np.testing.assert_array_equal(fitted(data, **chosen), distilled)
        np.testing.assert_array_equal(
            fitted(data, distillation=False, **chosen), taught
        )

    def test_one_step_of_distillation_by_hand(self, data: Data) -> None:
        model = make_model()
        kernel, bias = model.get_weights()
        soft = np.random.default_rng(0).dirichlet(np.ones(CLASSES), NODES)
        weight = np.linspace(0.5, 2, NODES)
        settings = dataclasses.replace(SHORT, batch_size=NODES, steps=1)
        few_labels.distill(model, data.x, soft, weight, settings=settings, seed=0)
        logits = data.x @ kernel + bias
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        slope = weight[:, np.newaxis] * (shares - soft) / weight.sum()
        # The first step of Adam is as long as the learning rate.
        expected = kernel - 0.01 * np.sign(data.x.T @ slope)
        np.testing.assert_allclose(model.get_weights()[0], expected, atol=1e-5)

    def test_teleport_0_is_not_the_default(
        self, data: Data, weights: np.ndarray
    ) -> None:
        settings = dataclasses.replace(SHORT, teleport=0.0)
        assert (fitted(data, settings=settings) != weights).any()

    def test_seeds(self, data: Data, weights: np.ndarray) -> None:
        np.testing.assert_array_equal(fitted(data), weights)
        assert (fitted(data, seed=1) != weights).any()

    def test_labels_that_are_not_known_are_not_read(
        self, data: Data, weights: np.ndarray
    ) -> None:
        wrong = np.where(data.labeled, data.y, -7)
        np.testing.assert_array_equal(fitted(data, y=wrong), weights)

    def test_equal_sample_weights_of_any_size_are_the_same(self, data: Data) -> None:
        twice = fitted(data, sample_weight=2 * data.labeled, distillation=False)
        once = fitted(data, distillation=False)
        np.testing.assert_allclose(twice, once, atol=1e-6)
        more = np.where(np.arange(NODES) == 0, 9, data.labeled)
        other = fitted(data, sample_weight=more, distillation=False)
        assert np.abs(other - once).max() > 1e-4

    @pytest.mark.parametrize("loss", ["sparse_categorical", "categorical"])
    def test_logits_as_compiled(
        self, loss: str, data: Data, weights: np.ndarray
    ) -> None:
        model = make_model(None)
        classes = {
            "sparse_categorical": keras.losses.SparseCategoricalCrossentropy,
            "categorical": keras.losses.CategoricalCrossentropy,
        }
        model.compile("sgd", classes[loss](from_logits=True))
        optimizer = model.optimizer
        np.testing.assert_allclose(fitted(data, model=model), weights, atol=1e-5)
        assert model.optimizer is optimizer
        assert model.optimizer.iterations == 0


class TestRules:
    def test_a_graph_of_unlike_neighbors_is_left_alone(self, data: Data) -> None:
        sources = np.arange(NODES)
        unlike = nsl.data.Graph((sources, (sources + 1) % NODES), undirected=True)
        known = {"validation": ~data.labeled}
        alone = fitted(data, graph=None, **known)
        np.testing.assert_array_equal(fitted(data, graph=unlike, **known), alone)
        assert (fitted(data, **known) != alone).any()
        # Without validation nodes too few edges are known.
        few = fitted(data, graph=unlike)
        assert (few != fitted(data, graph=None)).any()

    def test_the_graph_chooses_how_far_walks_lead(self, data: Data) -> None:
        teleport = teleport_of_size(data.graph, SHORT.hops)
        by_rule, by_hand = (
            fitted(data, settings=dataclasses.replace(SHORT, teleport=each))
            for each in (None, teleport)
        )
        np.testing.assert_array_equal(by_rule, by_hand)

    def test_without_validation_nodes_the_trainings_are_averaged(
        self, data: Data
    ) -> None:
        def taught(settings: few_labels.Settings) -> tuple[np.ndarray, np.ndarray]:
            model = make_model()
            known = data.y, data.labeled
            answers = few_labels.teach(
                model, data.graph, data.x, *known, settings=settings, seed=0
            )
            logs = np.log(model.predict(data.x, verbose=0))
            logs = nsl.data.propagate(data.graph, logs, teleport=0.3, hops=3)
            probabilities = np.exp(logs) / np.exp(logs).sum(axis=1, keepdims=True)
            return answers, np.log(few_labels.soften(probabilities))

        (_, first), (answers, last) = taught(SHORT), taught(CONSISTENT)
        assert np.abs(first - last).max() > 1e-3
        mean = np.exp((first + last) / 2)
        mean /= mean.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(answers, mean, rtol=1e-3, atol=1e-6)

    def test_a_misleading_graph_is_not_used(self, data: Data) -> None:
        x = np.eye(CLASSES, WORDS, dtype=np.float32)[data.y]
        sources = np.arange(NODES)
        unlike = nsl.data.Graph((sources, (sources + 1) % NODES), undirected=True)
        settings = dataclasses.replace(SHORT, teacher_steps=40, learning_rate=0.1)
        # Too few edges join known labels to measure homophily.
        validation = (np.arange(NODES) >= 20) & (np.arange(NODES) % 10 == 0)
        alone, misled = (
            few_labels.teach(
                make_model(),
                graph,
                x,
                data.y,
                data.labeled,
                validation=validation,
                settings=settings,
                seed=0,
            )
            for graph in (None, unlike)
        )
        assert (misled.argmax(axis=1) == data.y).all()
        assert (alone.argmax(axis=1) == data.y).all()

    def test_predictions_that_are_clearly_worse_are_left_out(self) -> None:
        y = np.arange(40) % 2
        validation = np.arange(40) >= 4
        labels = NodeLabels.of(y, ~validation, validation, 40, 2)
        logs = np.where(np.arange(2) == y[:, np.newaxis], 2.0, 0.0).astype(np.float32)

        def wrong_for(count: int) -> np.ndarray:
            changed = logs.copy()
            changed[40 - count :] *= -1
            return changed

        # The standard error of three wrong nodes is 1.7 nodes.
        candidates = [wrong_for(count) for count in (1, 0, 3, 36)]
        shares = np.array([0.5, 0.5], np.float32)
        kept = few_labels._reliable(candidates, shares, labels)
        assert [id(each) for each in kept] == [id(each) for each in candidates[:2]]

    def test_classes_count_by_their_share(self) -> None:
        """Nineteen validation nodes are of class 0, two of class 1, none of class 2."""
        y = np.array([0] * 19 + [1] * 2 + [0, 1, 2])
        weight = np.arange(24) >= 21
        labels = NodeLabels.of(y, weight, ~weight, 24, 3)
        logs = np.eye(3, dtype=np.float32)[y]
        first, second = logs.copy(), logs.copy()
        first[y == 1] = [1, 0, 0]
        second[:8] = [0, 1, 0]
        for shares, best in (([0.8, 0.1, 0.1], first), ([0.1, 0.8, 0.1], second)):
            wanted = np.array(shares, np.float32)
            (kept,) = few_labels._reliable([first, second], wanted, labels)
            assert kept is best

    @pytest.mark.parametrize("right", [True, False])
    def test_validation_nodes_choose_the_stage(
        self, right: bool, data: Data, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        x = np.eye(CLASSES, WORDS, dtype=np.float32)[data.y]

        def distill(network: Any, *_: Any) -> None:
            kernel = np.eye(WORDS, CLASSES, dtype=np.float32)
            kernel = kernel if right else -kernel
            network.model.set_weights([9 * kernel, np.zeros(CLASSES, np.float32)])

        monkeypatch.setattr(few_labels, "_distill", distill)
        settings = dataclasses.replace(SHORT, teacher_steps=40, learning_rate=0.1)
        arguments = {"x": x, "settings": settings, "validation": ~data.labeled}
        weights = fitted(data, **arguments)
        assert (weights[0] == 9) == right
        if not right:
            taught = fitted(data, distillation=False, **arguments)
            np.testing.assert_array_equal(weights, taught)


class TestFeatures:
    def test_sparse_features_of_a_dense_model(
        self, data: Data, weights: np.ndarray
    ) -> None:
        for x in (
            sparse.csr_matrix(data.x),
            tf.sparse.from_dense(data.x),
            tf.data.Dataset.from_tensor_slices((data.x, data.y)).batch(7),
        ):
            np.testing.assert_allclose(fitted(data, x=x), weights, atol=1e-6)

    def test_sparse_inputs(self, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
        """The features of a model with sparse inputs are not averaged."""
        inputs = keras.Input((WORDS,), sparse=True)
        model = keras.Model(inputs, make_model().layers[0](inputs))
        found = fitted(data, model=model, x=sparse.csr_matrix(data.x))
        monkeypatch.setattr(few_labels, "_FEATURE_HOPS", ())
        np.testing.assert_allclose(found, fitted(data), atol=1e-6)

    @pytest.mark.parametrize("kind", [dict, list])
    def test_several_inputs_of_different_kinds(self, kind: type, data: Data) -> None:
        inputs = {
            "place": keras.Input((), name="place", dtype="int32"),
            "words": keras.Input((WORDS,), name="words"),
        }
        place = keras.layers.Embedding(NODES, 2)(inputs["place"])
        joined = keras.layers.Concatenate()([place, inputs["words"]])
        outputs = keras.layers.Dense(CLASSES, "softmax")(joined)
        x: Any = {"words": data.x, "place": np.arange(NODES)}
        if kind is list:
            inputs, x = list(inputs.values()), [x["place"], x["words"]]
        settings = dataclasses.replace(SHORT, input_dropout=0.5)
        model = keras.Model(inputs, outputs)
        before = model.get_weights()
        fitted(data, model=model, x=x, settings=settings)
        assert all(
            (a != b).any() for a, b in zip(before, model.get_weights(), strict=True)
        )

    def test_a_subclass_that_is_not_built(
        self, data: Data, weights: np.ndarray
    ) -> None:
        class Own(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.layer = make_model().layers[0]

            def call(self, x: Any) -> Any:
                return self.layer(x)

        np.testing.assert_allclose(fitted(data, model=Own()), weights, atol=1e-6)

    def test_half_precision_and_regularizers(self, data: Data) -> None:
        regularizer = keras.regularizers.L2(1.0)
        layer = keras.layers.Dense(
            CLASSES, "softmax", kernel_regularizer=regularizer, dtype="mixed_float16"
        )
        model = keras.Sequential([keras.Input((WORDS,)), layer])
        settings = dataclasses.replace(SHORT, learning_rate=0.1, steps=40)
        fitted(data, model=model, settings=settings)
        assert np.abs(model.get_weights()[0]).max() < 0.2

    def test_dropout_of_bags_of_words_alone(self, data: Data) -> None:
        words = data.x * (np.random.default_rng(0).random(data.x.shape) < 0.1)
        for x, drops in ((words, True), (data.x, False)):
            by_rule, by_hand = (
                few_labels.distill(
                    make_model(),
                    x,
                    np.eye(CLASSES)[data.y],
                    settings=dataclasses.replace(SHORT, input_dropout=dropout),
                    seed=0,
                ).get_weights()[0]
                for dropout in (None, 0.5 if drops else 0.0)
            )
            np.testing.assert_array_equal(by_rule, by_hand)


def two_outputs() -> keras.Model:
    inputs = keras.Input((WORDS,))
    return keras.Model(inputs, [keras.layers.Dense(2)(inputs) for _ in range(2)])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": two_outputs}, ValueError, r"one output.*\(2, 2\), \(2, 2\)"),
        ({"model": lambda: make_model().layers[0]}, TypeError, "keras.Model"),
        ({"model": lambda: make_model(None)}, ValueError, "pass from_logits=True"),
        (
            {"y": np.full(NODES, 3)},
            ValueError,
            "3 classes, 0 to 2, but y of node 0 is 3",
        ),
        ({"y": np.zeros(5, int)}, ValueError, r"\(60,\).*\(5,\)"),
        ({"y": np.zeros(NODES)}, ValueError, "integers.*float64"),
        ({"sample_weight": np.zeros(NODES)}, ValueError, "No node is labeled"),
        ({"sample_weight": -np.ones(NODES)}, ValueError, "not negative"),
        ({"sample_weight": np.ones(7)}, ValueError, r"\(60,\).*\(7,\)"),
        (
            {"validation": np.ones(NODES, bool)},
            ValueError,
            "Node 0 is a validation node, but has",
        ),
        ({"validation": np.arange(5)}, ValueError, "booleans of shape"),
        ({"x": np.ones((59, WORDS))}, ValueError, "59"),
        ({"teacher": False, "distillation": False}, ValueError, "With teacher=False"),
        ({"teacher": False, "graph": None}, ValueError, "must be a graph"),
        (
            {"graph": nsl.data.Graph({}, ids=range(3))},
            ValueError,
            "graph has 3 nodes, but x has 60",
        ),
    ],
)
def test_wrong_arguments_are_named(
    changes: dict[str, Any], error: type[Exception], message: str, data: Data
) -> None:
    if "model" in changes:
        changes = {"model": changes["model"]()}
    with pytest.raises(error, match=message):
        fitted(data, **changes)


def test_soft_labels_of_another_shape_are_refused(data: Data) -> None:
    with pytest.raises(ValueError, match=r"\(60, 3\).*\(60, 2\)"):
        few_labels.distill(make_model(), data.x, np.ones((NODES, 2)))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"teleport": 2.0}, r"teleport must be in \[0, 1.0\], but is 2.0"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"input_dropout": 1.0}, "input_dropout"),
    ],
)
def test_wrong_settings_are_named(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        few_labels.Settings(**setting)
