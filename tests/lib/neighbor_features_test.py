"""Tests of samples and neighbors in one dict."""

import numpy as np
import pytest
import tensorflow as tf

from nsl import configs, lib
from nsl.lib.neighbor_features import unpack_features
from tests.conftest import golden

TWO = configs.GraphNeighborConfig(max_neighbors=2)


@pytest.fixture
def features():
    return {
        "x": tf.constant([[1.0, 2.0], [3.0, 4.0]]),
        "NL_nbr_0_x": tf.constant([[5.0, 6.0], [7.0, 8.0]]),
        "NL_nbr_0_weight": tf.constant([[0.5], [0.25]]),
        "NL_nbr_1_x": tf.constant([[9.0, 10.0], [11.0, 12.0]]),
        "NL_nbr_1_weight": tf.constant([[0.75], [0.0]]),
    }


def with_feature(features, name, values):
    keys = [name, f"NL_nbr_0_{name}", f"NL_nbr_1_{name}"]
    return features | dict(zip(keys, values, strict=True))


@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_neighbors_are_merged_sample_by_sample(features, jit_compile):
    run = lib.unpack_neighbor_features
    if jit_compile is not None:
        run = tf.function(run, jit_compile=jit_compile)
    samples, neighbors, weights = run(features, TWO)
    assert list(samples) == list(neighbors) == ["x"]
    np.testing.assert_array_equal(samples["x"], features["x"])
    np.testing.assert_array_equal(neighbors["x"], [[5, 6], [9, 10], [7, 8], [11, 12]])
    np.testing.assert_array_equal(weights, [[0.5], [0.75], [0.25], [0.0]])


def test_neighbors_get_an_axis(features):
    _, neighbors, weights = lib.unpack_neighbor_features(features, TWO, keep_rank=False)
    np.testing.assert_array_equal(
        neighbors["x"], [[[5, 6], [9, 10]], [[7, 8], [11, 12]]]
    )
    np.testing.assert_array_equal(weights, [[[0.5], [0.75]], [[0.25], [0.0]]])


def test_fewer_neighbors_than_there_are(features):
    one = configs.GraphNeighborConfig(max_neighbors=1)
    _, neighbors, weights = lib.unpack_neighbor_features(features, one)
    np.testing.assert_array_equal(neighbors["x"], features["NL_nbr_0_x"])
    np.testing.assert_array_equal(weights, features["NL_nbr_0_weight"])


def test_no_neighbors(features):
    samples, neighbors, weights = lib.unpack_neighbor_features(
        features, configs.GraphNeighborConfig()
    )
    assert list(samples) == ["x"]
    assert neighbors == {}
    assert weights is None


def test_other_names():
    config = configs.GraphNeighborConfig("n", ":w", 1)
    features = {"x": tf.ones([1, 1]), "n0_x": tf.zeros([1, 1]), "n0:w": tf.ones([1, 1])}
    samples, neighbors, weights = lib.unpack_neighbor_features(features, config)
    assert list(samples) == ["x"]
    np.testing.assert_array_equal(neighbors["x"], [[0]])
    np.testing.assert_array_equal(weights, [[1]])


def test_numpy_arrays(features):
    arrays = {name: value.numpy() for name, value in features.items()}
    _, neighbors, _ = lib.unpack_neighbor_features(arrays, TWO)
    np.testing.assert_array_equal(neighbors["x"][1], [9, 10])


def test_strings_and_integers(features):
    words = [tf.constant([[a], [b]]) for a, b in ("ab", "cd", "ef")]
    features = with_feature(features, "word", words)
    _, neighbors, _ = lib.unpack_neighbor_features(features, TWO)
    assert neighbors["word"].numpy()[:, 0].tolist() == [b"c", b"e", b"d", b"f"]


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("keep_rank", [False, True])
def test_sparse_features(features, keep_rank, graph):
    dense = [np.arange(4).reshape(2, 2) + 4 * i for i in range(3)]
    sparse = with_feature(features, "s", [tf.sparse.from_dense(d) for d in dense])
    run = (
        tf.function(lib.unpack_neighbor_features)
        if graph
        else (lib.unpack_neighbor_features)
    )
    _, neighbors, _ = run(sparse, TWO, keep_rank)
    expected = np.stack(dense[1:], axis=1)
    if keep_rank:
        expected = expected.reshape(4, 2)
    assert isinstance(neighbors["s"], tf.SparseTensor)
    assert neighbors["s"].shape == expected.shape
    np.testing.assert_array_equal(tf.sparse.to_dense(neighbors["s"]), expected)


@pytest.mark.parametrize("keep_rank", [False, True])
@pytest.mark.parametrize("shape", [(None, 2), None])
def test_what_is_known_of_a_sparse_shape_stays_known(shape, keep_rank):
    names = ["x", "NL_nbr_0_x", "NL_nbr_1_x"]
    weights = [f"NL_nbr_{k}_weight" for k in range(2)]
    known = {}

    @tf.function(
        input_signature=[
            {name: tf.SparseTensorSpec(shape) for name in names}
            | {name: tf.TensorSpec((None, 1)) for name in weights}
        ]
    )
    def run(batch):
        neighbors = unpack_features(batch, TWO, keep_rank)[1]
        known["shape"] = neighbors["x"].shape

    run.get_concrete_function()
    expected = tf.TensorShape(shape)
    if not keep_rank:
        expected = expected[:1].concatenate([2]).concatenate(expected[1:])
    assert str(known["shape"]) == str(expected)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("keep_rank", [False, True])
def test_ragged_features(features, keep_rank, graph):
    lists = [[[1], [2, 3]], [[], [4]], [[5, 6, 7], [8]]]
    ragged = with_feature(
        features, "r", [tf.ragged.constant(x, dtype=tf.int32) for x in lists]
    )
    run = (
        tf.function(lib.unpack_neighbor_features)
        if graph
        else (lib.unpack_neighbor_features)
    )
    _, neighbors, _ = run(ragged, TWO, keep_rank)
    expected = [[[], [5, 6, 7]], [[4], [8]]]
    if keep_rank:
        expected = [row for sample in expected for row in sample]
    assert neighbors["r"].to_list() == expected


def test_unknown_batch_size(features):
    names = sorted(features)

    @tf.function(
        input_signature=[
            {n: tf.TensorSpec([None, 1 if "weight" in n else 2]) for n in names}
        ]
    )
    def run(features):
        _, neighbors, weights = lib.unpack_neighbor_features(features, TWO)
        assert neighbors["x"].shape.as_list() == [None, 2]
        assert weights.shape.as_list() == [None, 1]
        return neighbors["x"]

    assert run(features).shape == (4, 2)
    assert run({n: v[:0] for n, v in features.items()}).shape == (0, 2)


def test_unknown_rank(features):
    names = sorted(features)

    @tf.function(input_signature=[{n: tf.TensorSpec(None) for n in names}])
    def run(features):
        return lib.unpack_neighbor_features(features, TWO)[1]["x"]

    expected = lib.unpack_neighbor_features(features, TWO)[1]["x"]
    np.testing.assert_array_equal(run(features), expected)


class TestErrors:
    @pytest.mark.parametrize("missing", ["NL_nbr_1_x", "NL_nbr_1_weight"])
    def test_missing(self, features, missing):
        del features[missing]
        with pytest.raises(KeyError, match=f"'{missing}' is missing.*'NL_nbr_0_x'"):
            lib.unpack_neighbor_features(features, TWO)

    def test_rank(self, features):
        features["x"] = tf.zeros([2])
        with pytest.raises(ValueError, match=r"'x' must be of rank 2.*\(2,\)"):
            lib.unpack_neighbor_features(features, TWO)

    @pytest.mark.parametrize("shape", [(2, 3), (2, 1, 1)])
    def test_weight_shape(self, features, shape):
        features["NL_nbr_1_weight"] = tf.ones(shape)
        with pytest.raises(ValueError, match=r"'NL_nbr_1_weight' must be of shape"):
            lib.unpack_neighbor_features(features, TWO)
        with pytest.raises(ValueError, match=r"'NL_nbr_1_weight' must be of shape"):
            unpack_features(features, TWO)

    def test_weight_of_rank_one(self, features):
        features["NL_nbr_1_weight"] = tf.ones([2])
        with pytest.raises(ValueError, match="rank 2 or more"):
            lib.unpack_neighbor_features(features, TWO)

    def test_neighbor_shape(self, features):
        features["NL_nbr_1_x"] = tf.ones([2, 3])
        with pytest.raises(
            ValueError, match=r"'x' of neighbor 1 has shape \(2, 3\).*\(2, 2\)"
        ):
            lib.unpack_neighbor_features(features, TWO)


def test_features_of_rank_one(features):
    features = with_feature(
        features, "y", [tf.constant([1.0, 2.0]) + 2 * i for i in range(3)]
    )
    features["NL_nbr_0_weight"] = tf.constant([0.5, 0.25])
    _, neighbors, weights = unpack_features(features, TWO)
    np.testing.assert_array_equal(neighbors["y"], [3, 5, 4, 6])
    np.testing.assert_array_equal(weights, [[0.5], [0.75], [0.25], [0.0]])
    _, neighbors, weights = unpack_features(features, TWO, keep_rank=False)
    np.testing.assert_array_equal(neighbors["y"], [[3, 5], [4, 6]])
    assert weights.shape == (2, 2, 1)


def test_strip(features):
    assert list(lib.strip_neighbor_features(features, TWO)) == ["x"]
    stripped = lib.strip_neighbor_features({"x": 1, "y": "z"}, TWO)
    assert stripped == {"x": 1, "y": "z"}


CASES = [c for c in golden("misc") if c["config"]["op"] == "replicate_embeddings"]


@pytest.mark.parametrize("case", CASES)
def test_replicate_golden(case):
    (embeddings,) = case["inputs"]
    times = case["config"]["replicate_times"]
    for given in (times, tf.constant(times), np.array(times)):
        result = lib.replicate_embeddings(embeddings, given)
        np.testing.assert_allclose(result, case["expected"])


@pytest.mark.parametrize("jit_compile", [False, True])
def test_replicate_by_a_number_in_a_graph(jit_compile):
    run = tf.function(
        lambda x: lib.replicate_embeddings(x, 2),
        jit_compile=jit_compile,
        input_signature=[tf.TensorSpec([None, 2, 1])],
    )
    x = tf.reshape(tf.range(6.0), [3, 2, 1])
    np.testing.assert_array_equal(run(x), np.repeat(x, 2, axis=0))


@pytest.mark.parametrize("times", [-1, [1, -1]])
def test_replicate_negative_times(times):
    with pytest.raises(tf.errors.InvalidArgumentError, match="must not be negative"):
        lib.replicate_embeddings(tf.ones([2, 1]), times)
