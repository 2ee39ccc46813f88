"""GraphRegularization: the contract of wrappers, NSL 1.4's figures, its own errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import nsl
from tests.keras.contract import TermWeightsContract
from tests.keras.contract.base import SAMPLES, X, Y, mlp, renewed
from tests.keras.contract.data import DataContract
from tests.keras.contract.inference import InferenceContract
from tests.keras.contract.losses import LossesContract
from tests.keras.contract.models import FeaturesContract
from tests.keras.contract.state import PassesContract


def neighbors_of(x, count):
    """Adds `count` neighbors a sample: the rows after it, the last ones masked."""
    batch = dict(x)
    for i in range(count):
        rows = (np.arange(SAMPLES) + i + 1) % SAMPLES
        weight = np.where(np.arange(SAMPLES) % 4 == i, 0.0, 0.5 + i)
        batch[f"NL_nbr_{i}_weight"] = weight[:, None].astype("float32")
        for name, value in x.items():
            batch[f"NL_nbr_{i}_{name}"] = rows_of(value, rows)
    return batch


def rows_of(value, rows):
    if isinstance(value, tf.SparseTensor):
        return tf.sparse.from_dense(tf.gather(tf.sparse.to_dense(value), rows))
    return tf.gather(value, rows) if tf.is_tensor(value) else value[rows]


class TestContract(
    DataContract,
    FeaturesContract,
    InferenceContract,
    LossesContract,
    PassesContract,
    TermWeightsContract,
):
    """What depends on the neighbors in the batch.

    stacked_regularization_test runs the rest of the contract on a model with this term.
    """

    term_metric = "scaled_graph_loss"
    term_in_evaluation = False
    term_is_weighted = False

    def wrap(self, base):
        config = nsl.configs.make_graph_reg_config(max_neighbors=2, multiplier=0.3)
        return nsl.keras.GraphRegularization(base, config)

    def training_x(self, x):
        return neighbors_of(x, 2)


class TestContrastiveContract(TermWeightsContract, PassesContract):
    term_metric = "scaled_graph_loss"
    term_is_weighted = False
    objective = "contrastive"

    def wrap(self, base):
        config = nsl.configs.make_graph_reg_config(
            max_neighbors=2, multiplier=0.3, objective=self.objective
        )
        return nsl.keras.GraphRegularization(base, config)

    def training_x(self, x):
        return neighbors_of(x, 2)


class TestConsistencyContract(TestContrastiveContract):
    objective = "consistency"
    training_passes = 1


def wrapped(base=None, max_neighbors=2, **config):
    settings = {"multiplier": 0.3, "max_neighbors": max_neighbors, **config}
    config = nsl.configs.make_graph_reg_config(**settings)
    model = nsl.keras.GraphRegularization(base or mlp(), config)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


class TestGraphLoss:
    def test_against_the_distance(self):
        model = wrapped(distance_type="l1", sum_over_axis=-1)
        batch = neighbors_of({"x": X}, 2)
        outputs = model.base_model(X).numpy()
        total = count = 0.0
        for i in range(2):
            neighbor = model.base_model(batch[f"NL_nbr_{i}_x"]).numpy()
            weight = batch[f"NL_nbr_{i}_weight"][:, 0]
            total += (weight * np.abs(outputs - neighbor).sum(-1)).sum()
            count += (weight != 0).sum()
        logs = model.train_on_batch(batch, Y, return_dict=True)
        assert logs["scaled_graph_loss"] == pytest.approx(0.3 * total / count, rel=1e-5)

    def test_all_outputs_or_one_by_name(self):
        def graph_loss(output_name, structure):
            keras.utils.set_random_seed(1)
            inputs = keras.Input((4,), name="x")
            outputs = {
                name: keras.layers.Dense(2, name=name)(inputs) for name in ("a", "b")
            }
            if structure == "list":
                outputs = list(outputs.values())
            model = wrapped(keras.Model(inputs, outputs), output_name=output_name)
            model.compile(
                loss=["mse", "mse"] if structure == "list" else {"a": "mse"},
                run_eagerly=output_name is not None or structure == "list",
            )
            batch = neighbors_of({"x": X}, 2)
            y = {"a": X[:, :2], "b": X[:, :2]}
            y = list(y.values()) if structure == "list" else y
            return model.train_on_batch(batch, y, return_dict=True)["scaled_graph_loss"]

        for structure in ("list", "dict"):
            a, b = graph_loss("a", structure), graph_loss("b", structure)
            assert a != pytest.approx(b)
            assert graph_loss(None, structure) == pytest.approx(a + b, rel=1e-5)
        with pytest.raises(ValueError, match=r"'c'.*\['a', 'b'\]"):
            graph_loss("c", "dict")

    def test_neighbors_without_weight_do_not_count(self):
        batch = neighbors_of({"x": X}, 2)
        garbage = dict(batch)
        for i in range(2):
            masked = batch[f"NL_nbr_{i}_weight"] == 0
            garbage[f"NL_nbr_{i}_x"] = np.where(masked, 1e3, batch[f"NL_nbr_{i}_x"])
        weights = []
        for x in (batch, garbage):
            model = renewed(wrapped)
            model.fit(x, Y, verbose=0, shuffle=False)
            weights.append(model.get_weights())
        for left, right in zip(*weights, strict=True):
            np.testing.assert_allclose(left, right, atol=1e-6)

    def test_sample_without_any_neighbor(self):
        batch = neighbors_of({"x": X}, 1)
        batch["NL_nbr_0_weight"][:] = 0
        logs = wrapped(max_neighbors=1).train_on_batch(batch, Y, return_dict=True)
        assert logs["scaled_graph_loss"] == 0
        assert np.isfinite(logs["loss"])

    def test_no_neighbors_train_the_base_model(self):
        plain = mlp()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        plain.compile(keras.optimizers.SGD(0.1), loss)
        plain.fit(X, Y, verbose=0, shuffle=False)
        model = wrapped(max_neighbors=0)
        model.fit(X, Y, verbose=0, shuffle=False)
        for left, right in zip(model.get_weights(), plain.get_weights(), strict=True):
            np.testing.assert_allclose(left, right, atol=1e-6)

    @pytest.mark.parametrize("count", [1, 3])
    def test_passes_of_a_training_step(self, count):
        batches = []

        class Counted(keras.layers.Layer):
            def call(self, inputs, training=None):
                batches.append((inputs.shape[0], training))
                return inputs

        model = wrapped(mlp(Counted()), max_neighbors=count)
        model.run_eagerly = True
        batches.clear()
        model.train_on_batch(neighbors_of({"x": X}, count), Y)
        assert all(training for _, training in batches)
        assert sum(size for size, _ in batches) == SAMPLES * (1 + count)


class TestBadInput:
    def test_missing_neighbor_feature_is_named(self):
        batch = neighbors_of({"x": X}, 2)
        del batch["NL_nbr_1_x"]
        with pytest.raises(KeyError, match="NL_nbr_1_x"):
            wrapped().fit(batch, Y, verbose=0)

    def test_missing_weight_is_named(self):
        batch = neighbors_of({"x": X}, 2)
        del batch["NL_nbr_0_weight"]
        with pytest.raises(KeyError, match="NL_nbr_0_weight"):
            wrapped().fit(batch, Y, verbose=0)

    def test_shape_of_neighbor_differs(self):
        batch = neighbors_of({"x": X}, 2)
        batch["NL_nbr_1_x"] = batch["NL_nbr_1_x"][:, :3]
        with pytest.raises(ValueError, match=r"'x' of neighbor 1.*3.*4"):
            wrapped().fit(batch, Y, verbose=0)

    def test_features_that_are_no_dict(self):
        with pytest.raises(ValueError, match="NL_nbr_0_<feature>"):
            wrapped().fit(X, Y, verbose=0)

    def test_wrong_types(self):
        with pytest.raises(TypeError, match="GraphRegConfig"):
            nsl.keras.GraphRegularization(mlp(), nsl.configs.GraphNeighborConfig())
        with pytest.raises(TypeError, match=r"keras\.Model"):
            nsl.keras.GraphRegularization(None)

    def test_distance_that_is_no_number(self):
        config = nsl.configs.make_graph_reg_config(reduction="none", max_neighbors=1)
        with pytest.raises(ValueError, match="reduction='none'"):
            nsl.keras.GraphRegularization(mlp(), config)


class TestPackedRecords:
    """What `pack_nbrs` writes beside the features does no harm."""

    def test_number_of_neighbors_and_ids(self):
        batch = neighbors_of({"x": X}, 2)
        beside = {
            "NL_num_nbrs": np.full((SAMPLES, 1), 2),
            "id": np.arange(SAMPLES)[:, None],
        }
        plain = renewed(wrapped)
        plain.fit(batch, Y, shuffle=False, verbose=0)
        expected = plain.get_weights()
        full = wrapped()
        full.fit(batch | beside, Y, shuffle=False, verbose=0)
        for left, right in zip(full.get_weights(), expected, strict=True):
            np.testing.assert_allclose(left, right, atol=1e-6)
        np.testing.assert_allclose(
            full.predict(batch | beside, verbose=0), full.predict(X, verbose=0)
        )

    def test_number_of_neighbors_over_a_subclassed_model(self):
        class Base(keras.Model):
            def __init__(self):
                super().__init__()
                self.out = keras.layers.Dense(3)

            def call(self, inputs):
                [x] = inputs.values()
                return self.out(x)

        batch = neighbors_of({"x": X}, 2) | {"NL_num_nbrs": np.ones((SAMPLES, 1))}
        model = wrapped(Base())
        model.fit(batch, Y, verbose=0)
        assert model.predict(batch, verbose=0).shape == (SAMPLES, 3)

    def test_nested_features(self):
        keras.utils.set_random_seed(1)
        a = keras.Input((4,))
        base = keras.Model({"n": {"a": a}}, keras.layers.Dense(3)(a))
        batch = {"n": {"a": X}}
        for i, neighbors in enumerate((X[::-1].copy(), X[::-1].copy() + 1)):
            batch[f"NL_nbr_{i}_n"] = {"a": neighbors}
            batch[f"NL_nbr_{i}_weight"] = np.ones((SAMPLES, 1), "float32")
        logs = wrapped(base).train_on_batch(batch, Y, return_dict=True)
        assert logs["scaled_graph_loss"] > 0

    def test_weights_of_several_dtypes(self):
        batch = neighbors_of({"x": X}, 2)
        batch["NL_nbr_1_weight"] = batch["NL_nbr_1_weight"].astype("float64")
        dataset = tf.data.Dataset.from_tensor_slices((batch, Y)).batch(8)
        assert np.isfinite(wrapped().fit(dataset, verbose=0).history["loss"]).all()

    def test_outputs_without_names(self):
        model = wrapped(output_name="a")
        with pytest.raises(ValueError, match="have no names"):
            model.fit(neighbors_of({"x": X}, 2), Y, verbose=0)


class TestMasks:
    """Padded positions do not count, however many there are."""

    @staticmethod
    def logs(steps, objective="distance", recurrent=True, run_eagerly=False, **config):
        random = np.random.default_rng(0)
        samples, *neighbors = random.integers(1, 20, (3, 8, 6))
        samples[:4, 4:] = neighbors[0][::2, 3:] = 0
        labels, weights = random.integers(0, 3, (8, 6)), random.random((2, 8, 1))

        def padded(ids):
            return np.pad(ids, ((0, 0), (0, steps - 6)))

        keras.utils.set_random_seed(0)
        inputs = keras.Input((steps,), dtype="int32", name="x")
        wide = keras.initializers.RandomUniform(-4, 4)
        embedded = keras.layers.Embedding(20, 8, wide, mask_zero=True)(inputs)
        if recurrent:
            hidden = keras.layers.LSTM(5, return_sequences=True, name="lstm")(embedded)
        else:
            hidden = keras.layers.Dense(5, activation="tanh")(embedded)
        outputs = keras.layers.Dense(3, activation="softmax", name="out")(hidden)
        model = nsl.keras.GraphRegularization(
            keras.Model(inputs, outputs),
            nsl.configs.make_graph_reg_config(
                max_neighbors=2, multiplier=1.0, objective=objective, **config
            ),
        )
        model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=run_eagerly)
        x = {"x": padded(samples)}
        for k in range(2):
            x[f"NL_nbr_{k}_x"] = padded(neighbors[k])
            x[f"NL_nbr_{k}_weight"] = weights[k]
        logs = model.train_on_batch(x, padded(labels), return_dict=True)
        # Before 3.14, Keras gives arrays.
        return {name: float(value) for name, value in logs.items()}, model, x

    @pytest.mark.parametrize(
        "config",
        [
            {"objective": "distance"},
            {"objective": "distance", "embedding_layer": "lstm"},
            {"objective": "distance", "sum_over_axis": -1},
            {"objective": "distance", "reduction": "weighted_sum"},
            {"objective": "contrastive"},
            {"objective": "consistency"},
            {"objective": "propagation"},
        ],
        ids=lambda config: "-".join(map(str, config.values())),
    )
    def test_padding_changes_nothing(self, config):
        # A recurrent layer takes long to trace. Without it all padded positions are
        # alike, so that in a sum they would add nothing even if they counted.
        recurrent = "embedding_layer" in config or "reduction" in config
        # Of the short one at that: traced and eager must agree, too.
        short, long = (
            self.logs(steps, recurrent=recurrent, run_eagerly=eager, **config)[0]
            for steps, eager in ((6, recurrent), (20, True))
        )
        assert short["scaled_graph_loss"] > 1e-4
        assert long == pytest.approx(short, rel=1e-4)

    def test_distance_is_the_mean_over_positions_that_count(self):
        model, x = self.logs(8)[1:]
        base = model.base_model
        keras.utils.set_random_seed(0)
        fresh = keras.models.clone_model(base)
        fresh.set_weights(base.get_weights())
        model.reset_metrics()
        logs = model.train_on_batch(x, np.zeros((8, 8)), return_dict=True)
        p = fresh(x["x"]).numpy()
        total = count = 0.0
        for k in range(2):
            ids, weight = x[f"NL_nbr_{k}_x"], x[f"NL_nbr_{k}_weight"]
            there = (x["x"] > 0) & (ids > 0)
            square = (p - fresh(ids).numpy()) ** 2
            total += np.sum(square * (weight * there)[..., None])
            count += 3 * np.sum(there)
        actual = float(logs["scaled_graph_loss"])
        assert actual == pytest.approx(total / count, rel=1e-4)


def test_a_call_takes_sparse_tensors_beside_arrays():
    keras.utils.set_random_seed(0)
    x = keras.Input(X.shape[1:], sparse=True, name="x")
    base = keras.Model({"x": x}, keras.layers.Dense(3)(x))
    model = wrapped(base, max_neighbors=1)
    batch = neighbors_of({"x": tf.sparse.from_dense(X)}, 1)
    assert isinstance(batch["NL_nbr_0_weight"], np.ndarray)
    kernel, bias = base.get_weights()
    for training in (False, None, True):
        found = model(batch, training=training)
        np.testing.assert_allclose(found, X @ kernel + bias, rtol=1e-4, atol=1e-6)
    assert len(model.losses) == 1
