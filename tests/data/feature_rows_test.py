"""Features of every kind, in batches and in what models learn from them."""

import functools
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

import nsl
from nsl.data import Graph, neighbor_dataset

NODES = 10
CONFIG = nsl.configs.make_graph_reg_config(max_neighbors=2, multiplier=0.5)
RNG = np.random.default_rng(0)
DENSE = RNG.random((NODES, 4)) * (RNG.random((NODES, 4)) < 0.4)
PAIRS = RNG.integers(0, NODES, (6, 2))
TEXTS = [f"é{i}" for i in range(NODES)]
GRAPH = Graph(
    (*RNG.integers(0, NODES, (2, 25)), RNG.random(25)),
    ids=range(NODES),
    undirected=True,
)


def batches(features: Any, *targets: Any, **options: Any) -> list[Any]:
    options = {"batch_size": 4, "shuffle": False} | options
    config = CONFIG.neighbor_config
    return list(
        neighbor_dataset(GRAPH, features, *targets, neighbor_config=config, **options)
    )


def column(values: Any) -> Any:
    """Puts rows into an array of objects, as the column of a table holds them."""
    array = np.empty(len(values), object)
    for i, value in enumerate(values):
        array[i] = value
    return array


def repeated() -> Any:
    """Every value in two halves, which SciPy adds."""
    places = tuple(np.tile(places, 2) for places in np.nonzero(DENSE))
    return np.tile(DENSE[DENSE != 0] / 2, 2), places


SPARSE = {
    **{
        name: getattr(scipy.sparse, name)(DENSE)
        for name in (
            *("csr_array", "csc_array", "coo_array", "lil_array", "dok_array"),
            *("bsr_array", "dia_array", "csr_matrix", "coo_matrix", "dok_matrix"),
        )
    },
    "repeated_coo": scipy.sparse.coo_array(repeated(), shape=DENSE.shape),
    "tensor": tf.sparse.from_dense(DENSE),
    "unordered_tensor": tf.SparseTensor(
        np.argwhere(DENSE)[::-1].copy(), DENSE[DENSE != 0][::-1].copy(), DENSE.shape
    ),
}


@functools.cache
def dense_batches(pairs: bool) -> list[Any]:
    return batches(DENSE, sample_ids=PAIRS if pairs else None)


@pytest.mark.parametrize(
    ("kind", "pairs"),
    [*((kind, False) for kind in SPARSE), ("csr_array", True), ("tensor", True)],
)
def test_sparse_features(kind: str, pairs: bool) -> None:
    found = batches(SPARSE[kind], sample_ids=PAIRS if pairs else None)
    for batch, dense in zip(found, dense_batches(pairs), strict=True):
        for name, values in dense.items():
            feature = batch[name]
            if not name.endswith("weight"):
                assert isinstance(feature, tf.SparseTensor)
                assert feature.dtype == tf.float64
                feature = tf.sparse.to_dense(feature)
            np.testing.assert_array_equal(feature, values)


def test_sparse_features_of_other_ranks() -> None:
    for dense in (DENSE[:, 0], np.stack([DENSE, 2 * DENSE], axis=2)):
        kinds = [tf.sparse.from_dense(dense)]
        # Older SciPy has no arrays of three axes.
        if dense.ndim < 3 or np.lib.NumpyVersion(scipy.__version__) >= "1.15.0":
            kinds.append(scipy.sparse.coo_array(dense))
        for sparse in kinds:
            for batch, expected in zip(batches(sparse), batches(dense), strict=True):
                found = tf.sparse.to_dense(batch["NL_nbr_0_x"])
                np.testing.assert_array_equal(found, expected["NL_nbr_0_x"])


def test_sparse_shapes_are_static() -> None:
    dataset = neighbor_dataset(
        GRAPH,
        scipy.sparse.csr_array(DENSE),
        neighbor_config=CONFIG.neighbor_config,
        batch_size=5,
    )
    assert dataset.element_spec["NL_nbr_1_x"] == tf.SparseTensorSpec([5, 4], tf.float64)


def test_training_on_sparse_features_equals_that_on_dense_ones() -> None:
    y = np.arange(NODES) % 3

    def train(features: Any, sparse: bool) -> Any:
        keras.utils.set_random_seed(1)
        inputs = {
            "a": keras.Input((4,), name="a", sparse=sparse),
            "b": keras.Input((4,), name="b"),
        }
        hidden = keras.layers.Dense(3)(inputs["a"]) + keras.layers.Dense(3)(inputs["b"])
        base = keras.Model(inputs, keras.layers.Softmax()(hidden))
        model = nsl.keras.GraphRegularization(base, CONFIG)
        model.compile("sgd", "sparse_categorical_crossentropy")
        config = CONFIG.neighbor_config
        data = neighbor_dataset(
            GRAPH, features, y, neighbor_config=config, batch_size=5, shuffle=False
        )
        history = model.fit(data, epochs=2, verbose=0).history
        assert min(history["scaled_graph_loss"]) > 0
        return [*base.get_weights(), history["scaled_graph_loss"]]

    dense = train({"a": DENSE, "b": DENSE}, sparse=False)
    mixed = train({"a": scipy.sparse.csr_array(DENSE), "b": DENSE}, sparse=True)
    for ours, theirs in zip(mixed, dense, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_ragged_features() -> None:
    words = [[f"w{i}"] * (i % 3) for i in range(NODES)]
    for samples in (np.arange(NODES), PAIRS):
        (batch,) = batches(
            tf.ragged.constant(words), sample_ids=samples, batch_size=len(samples)
        )
        numbered = batches(np.arange(NODES), sample_ids=samples, batch_size=NODES)[0]
        for name in ("x", "NL_nbr_0_x", "NL_nbr_1_x"):
            places = numbered[name].numpy()
            expected = column([words[i] for i in places.flat]).reshape(places.shape)
            found = tf.strings.reduce_join(batch[name], -1, separator=" ").numpy()
            assert found.astype(str).tolist() == [
                " ".join(row) if samples.ndim == 1 else [" ".join(part) for part in row]
                for row in expected
            ]


STRINGS = {
    "list": TEXTS,
    "unicode": np.array(TEXTS),
    "bytes": np.array([text.encode() for text in TEXTS]),
    "objects": np.array(TEXTS, object),
    "bytes_objects": np.array([text.encode() for text in TEXTS], object),
    "both": np.array([TEXTS[0].encode(), *TEXTS[1:]], object),
    "string_dtype": np.array(TEXTS, np.dtypes.StringDType()),
    "tensor": tf.constant(TEXTS),
}


@pytest.mark.parametrize("kind", STRINGS)
def test_strings(kind: str) -> None:
    second = batches(STRINGS[kind])[1]["x"]
    assert second.numpy().tolist() == [text.encode() for text in TEXTS[4:8]]
    # As labels too; that of an unlabeled sample is not shown.
    _, labels, _ = batches(DENSE, STRINGS[kind], np.arange(NODES) > 0)[0]
    assert labels.numpy().tolist() == [b"", *(text.encode() for text in TEXTS[1:4])]


def test_numbers_and_rows_that_are_objects() -> None:
    for values, dtype in (
        ([1, 2.5] * 5, tf.float64),
        ([True, False] * 5, tf.bool),
        ([np.int64(3)] * NODES, tf.int64),
    ):
        found = batches(np.array(values, object))[0]["x"]
        assert found.dtype == dtype
        assert found.numpy().tolist() == values[:4]
    for rows in (column(DENSE), column(DENSE.tolist()), tf.cast(DENSE, tf.bfloat16)):
        found = batches(rows)[0]["x"]
        np.testing.assert_allclose(found, DENSE[:4], rtol=0.01)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (["a"] * 9 + [None], TypeError, "Feature 'x' .* but row 9 holds None"),
        (["a", 1] * 5, TypeError, "row 1 holds 1 .int. among strings"),
        (column(["a"] * 9 + [np.nan]), TypeError, "row 9 holds nan .* among strings"),
        (column([["a", 1]] * 10), TypeError, "row 0 holds 1 .int. among strings"),
        ([[1]] * 9 + [[1, 2]], ValueError, r"Feature 'x' differ.*tf\.ragged\.constant"),
        (column([[1]] * 9 + [[1, 2]]), ValueError, "Feature 'x' differ in length"),
        (np.zeros(10, "M8[D]"), TypeError, r"datetime64\[D\]"),
        (scipy.sparse.csr_array((9, 2)), ValueError, r"10 nodes .* shape \(9, 2\)"),
        (tf.ragged.constant([[1]]), ValueError, r"10 nodes .* shape \(1, None\)"),
    ],
)
def test_wrong_features(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        batches(value)


def test_labels_are_dense() -> None:
    with pytest.raises(TypeError, match=r"labels must be a dense array.*csr_array"):
        batches(DENSE, scipy.sparse.csr_array(DENSE))
    with pytest.raises(TypeError, match=r"sample_weight must be .*row 0 holds None"):
        batches(DENSE, np.zeros(NODES), [None] * NODES)


def test_scipy_is_not_imported() -> None:
    for file in Path(nsl.data.__file__).parent.glob("*.py"):
        assert not re.search(r"^\s*(import|from) scipy", file.read_text(), re.MULTILINE)
