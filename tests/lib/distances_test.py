"""Tests of distances."""

import numpy as np
import pytest
import tensorflow as tf

from nsl import configs, lib
from nsl.lib.distances import weighted_sum_and_normalizer
from tests.conftest import golden

REDUCTIONS = [
    "weighted_sum",
    "weighted_mean",
    "weighted_sum_over_batch_size",
    "weighted_sum_by_nonzero_weights",
]
TYPES = ["l1", "l2", "cosine", "jensen_shannon_divergence", "kl_divergence"]
P = np.array([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0]], np.float32)
Q = np.array([[0.4, 0.6], [0.5, 0.5], [0.25, 0.75]], np.float32)


def config_of(distance_type, **kwargs):
    transform = "softmax" if "divergence" in distance_type else "none"
    defaults = {"sum_over_axis": -1, "transform_fn": transform}
    return configs.DistanceConfig(distance_type, **(defaults | kwargs))


@pytest.mark.parametrize("case", golden("distances"))
def test_golden(case):
    config = configs.DistanceConfig(**case["config"])
    inputs = {k: tf.constant(v, tf.float32) for k, v in case["inputs"].items()}
    expected = np.array(case["expected"])
    result = lib.pairwise_distance_wrapper(**inputs, distance_config=config)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reduction", [*REDUCTIONS, "none"])
@pytest.mark.parametrize("distance_type", TYPES)
def test_xla_with_unknown_batch_agrees_with_eager(distance_type, reduction):
    config = config_of(distance_type, reduction=reduction)
    rng = np.random.default_rng(0)
    spec = tf.TensorSpec([None, 3])

    @tf.function(
        jit_compile=True,
        input_signature=[spec, spec, tf.TensorSpec([None, 1])],
    )
    def run(a, b, w):
        return lib.pairwise_distance_wrapper(a, b, w, config)

    for size in (2, 5):
        a, b = rng.normal(size=[2, size, 3]).astype(np.float32)
        w = rng.integers(0, 2, [size, 1]).astype(np.float32)
        expected = lib.pairwise_distance_wrapper(a, b, w, config)
        np.testing.assert_allclose(run(a, b, w), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("distance_type", TYPES)
def test_parts_of_a_batch_add_up(distance_type, reduction):
    config = config_of(distance_type, reduction=reduction)
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=[2, 6, 4])
    w = rng.uniform(size=[6, 1]) * (rng.uniform(size=[6, 1]) < 0.7)
    whole = lib.pairwise_distance_wrapper(a, b, w, config)
    parts = [
        weighted_sum_and_normalizer(a[i], b[i], w[i], config)
        for i in (slice(0, 2), slice(2, 6))
    ]
    total = parts[0][0] + parts[1][0]
    normalizer = parts[0][1] + parts[1][1]
    if reduction == "weighted_sum":
        assert float(parts[0][1]) == 1.0
        normalizer = 1.0
    np.testing.assert_allclose(total / normalizer, whole, rtol=1e-12)


def test_sum_and_normalizer_need_a_reduction():
    with pytest.raises(ValueError, match="'none' does not return a scalar"):
        weighted_sum_and_normalizer(P, Q, 1.0, config_of("l2", reduction="none"))


@pytest.mark.parametrize("reduction", [*REDUCTIONS, "none"])
@pytest.mark.parametrize("distance_type", TYPES)
def test_zero_vectors_and_zero_weights_have_finite_gradients(distance_type, reduction):
    config = config_of(distance_type, reduction=reduction)
    a, b = tf.zeros([2, 3]), tf.Variable(tf.zeros([2, 3]))
    for weights in (1.0, 0.0, tf.constant([[0.0], [0.0]])):
        with tf.GradientTape() as tape:
            distance = lib.pairwise_distance_wrapper(a, b, weights, config)
        assert np.isfinite(distance).all()
        assert np.isfinite(tape.gradient(distance, b)).all()
        if np.max(weights) == 0:
            assert (np.asarray(distance) == 0).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("distance_type", TYPES)
def test_half_precision_is_computed_in_float32(distance_type, dtype):
    rng = np.random.default_rng(0)
    a, b = (tf.cast(x, dtype) for x in rng.normal(size=[2, 300, 3]))
    w = tf.ones([300, 1], dtype)
    config = config_of(distance_type, reduction="weighted_sum")
    result = lib.pairwise_distance_wrapper(a, b, w, config)
    assert result.dtype == tf.float32
    expected = lib.pairwise_distance_wrapper(
        tf.cast(a, tf.float32), tf.cast(b, tf.float32), 1.0, config
    )
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_distributions_rounded_in_their_dtype_are_accepted(dtype):
    logits = np.random.default_rng(0).normal(size=[8, 200])
    p = tf.nn.softmax(tf.cast(logits, dtype))
    q = tf.nn.softmax(tf.cast(-logits, dtype))
    config = config_of("kl_divergence", transform_fn="none")
    assert lib.pairwise_distance_wrapper(p, q, 1.0, config) > 0


def test_float64_stays():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=[2, 5, 3])
    result = lib.pairwise_distance_wrapper(a, b, 1.0, config_of("l2"))
    np.testing.assert_allclose(result, ((a - b) ** 2).sum(1).mean(), rtol=1e-14)


def test_default_config_is_mean_squared_error():
    result = lib.pairwise_distance_wrapper(P, Q)
    np.testing.assert_allclose(result, ((P - Q) ** 2).mean(), rtol=1e-6)


def test_other_axis():
    config = config_of("l1", sum_over_axis=0)
    result = lib.pairwise_distance_wrapper(P, Q, distance_config=config)
    np.testing.assert_allclose(result, np.abs(P - Q).sum(0).mean(), rtol=1e-6)


class TestErrors:
    @pytest.mark.parametrize("distance_type", TYPES[2:])
    def test_axis_missing(self, distance_type):
        config = configs.DistanceConfig(distance_type)
        with pytest.raises(ValueError, match=r"sum_over_axis is needed.*None"):
            lib.pairwise_distance_wrapper(P, Q, distance_config=config)

    @pytest.mark.parametrize("axis", [2, -3])
    @pytest.mark.parametrize("distance_type", TYPES)
    def test_axis_out_of_range(self, distance_type, axis):
        config = config_of(distance_type, sum_over_axis=axis)
        with pytest.raises(ValueError, match=f"axis {axis} is out of range"):
            lib.pairwise_distance_wrapper(P, Q, distance_config=config)

    def test_shapes_differ(self):
        with pytest.raises(ValueError, match=r"same shape.*\(3, 2\) and \(2, 2\)"):
            lib.pairwise_distance_wrapper(P, Q[:2])

    @pytest.mark.parametrize("shape", [(3,), (2, 1), (3, 3), (3, 1, 1)])
    def test_weights_do_not_fit(self, shape):
        with pytest.raises(ValueError, match="do not broadcast to distances"):
            lib.pairwise_distance_wrapper(P, Q, np.ones(shape))

    def test_weights_along_the_summed_axis(self):
        with pytest.raises(ValueError, match=r"\(3, 2\) do not broadcast.*\(3, 1\)"):
            lib.pairwise_distance_wrapper(P, Q, np.ones([3, 2]), config_of("l2"))


class TestDivergences:
    def test_kl(self):
        result = lib.kl_divergence(P, Q, axis=-1, reduction="none")
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(P > 0, P * np.log(P / Q), 0)
        np.testing.assert_allclose(result[:, 0], terms.sum(axis=1), atol=1e-6)
        mean = lib.kl_divergence(P, Q, axis=1)
        np.testing.assert_allclose(mean, terms.sum(axis=1).mean(), atol=1e-6)

    def test_jensen_shannon(self):
        middle = (P + Q) / 2
        expected = 0.5 * (
            lib.kl_divergence(P, middle, axis=-1)
            + lib.kl_divergence(Q, middle, axis=-1)
        )
        result = lib.jensen_shannon_divergence(P, Q, axis=-1)
        np.testing.assert_allclose(result, expected, rtol=1e-6)
        swapped = lib.jensen_shannon_divergence(Q, P, axis=-1)
        np.testing.assert_allclose(result, swapped, rtol=1e-5)

    @pytest.mark.parametrize(
        "divergence", [lib.kl_divergence, lib.jensen_shannon_divergence]
    )
    def test_checks(self, divergence):
        with pytest.raises(ValueError, match="axis is needed"):
            divergence(P, Q)
        with pytest.raises(ValueError, match="axis 2 is out of range"):
            divergence(P, Q, axis=2)
        with pytest.raises(ValueError, match="same shape"):
            divergence(P, Q[:2], axis=-1)
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"labels .* sum to 1"):
            divergence(P * 2, Q, axis=-1)
        negative = np.array([[-0.5, 1.5]], np.float32)
        with pytest.raises(
            tf.errors.InvalidArgumentError, match="predictions holds negative"
        ):
            divergence(P[:1], negative, axis=-1)

    @pytest.mark.parametrize(
        "divergence", [lib.kl_divergence, lib.jensen_shannon_divergence]
    )
    def test_collection_of_a_graph(self, divergence):
        with tf.Graph().as_default():
            loss = divergence(P, Q, axis=-1)
            divergence(P, Q, axis=-1, loss_collection=None)
            divergence(P, Q, axis=-1, loss_collection="mine", scope="named")
            assert tf.compat.v1.losses.get_losses() == [loss]
            (mine,) = tf.compat.v1.get_collection("mine")
            assert mine.name.startswith("named/")

    def test_weights(self):
        weights = np.array([[2.0], [0.0], [1.0]])
        each = lib.kl_divergence(P, Q, axis=-1, reduction="none").numpy()
        result = lib.kl_divergence(P, Q, axis=-1, weights=weights)
        np.testing.assert_allclose(result, (weights * each).sum() / 2, rtol=1e-6)
