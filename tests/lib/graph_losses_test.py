"""The graph losses: closed forms, and what must make no difference."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from nsl.lib import (
    neighbor_consistency_loss,
    neighbor_contrastive_loss,
    neighbor_mean_prediction,
)

BATCH, COUNT, WIDTH = 5, 3, 4
_RANDOM = np.random.default_rng(3)
SAMPLES = _RANDOM.normal(size=(BATCH, WIDTH)).astype("float32")
NEIGHBORS = _RANDOM.normal(size=(BATCH, COUNT, WIDTH)).astype("float32")
WEIGHTS = _RANDOM.uniform(0.1, 2.0, (BATCH, COUNT)).astype("float32")
WEIGHTS[1, 2] = 0.0
WEIGHTS[3] = 0.0


def softmax(logits):
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def contrastive(samples, neighbors, weights, temperature):
    """The formula of the docstring, sample by sample."""
    samples, neighbors = unit(samples), unit(neighbors)
    losses = []
    for i, (z, near, w) in enumerate(zip(samples, neighbors, weights, strict=True)):
        near, w = near[w > 0], w[w > 0]
        others = np.delete(samples, i, axis=0)
        positive = (w / w.sum() * np.exp(near @ z / temperature)).sum()
        every = np.exp(near @ z / temperature).sum()
        every += np.exp(others @ z / temperature).sum()
        losses.append(np.log(every / positive) if len(w) else 0.0)
    return np.array(losses)


def consistency(p, neighbors, weights, temperature, alignment=0.0):
    """The same for probabilities of classes."""
    there = weights.any(axis=1)
    shares = weights[there] / weights[there].sum(axis=1, keepdims=True)
    targets = np.einsum("bk,bkc->bc", shares, neighbors[there]) ** (1 / temperature)
    targets /= targets.sum(axis=1, keepdims=True)
    targets /= targets.sum(axis=0) ** alignment
    targets /= targets.sum(axis=1, keepdims=True)
    losses = np.zeros(len(p))
    losses[there] = (targets * np.log(targets / p[there])).sum(axis=1)
    return losses


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
def test_contrastive_against_numpy(temperature):
    actual = neighbor_contrastive_loss(SAMPLES, NEIGHBORS, WEIGHTS, temperature)
    expected = contrastive(SAMPLES, NEIGHBORS, WEIGHTS, temperature)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("alignment", [0.0, 0.5, 1.0])
def test_consistency_against_numpy(temperature, from_logits, alignment):
    p, near = softmax(SAMPLES), softmax(NEIGHBORS)
    given_as = (SAMPLES, NEIGHBORS) if from_logits else (p, near)
    actual = neighbor_consistency_loss(
        *given_as,
        WEIGHTS,
        temperature,
        from_logits=from_logits,
        distribution_alignment=alignment,
    )
    expected = consistency(p, near, WEIGHTS, temperature, alignment)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("alignment", [0.0, 0.5])
def test_binary_consistency_is_that_of_two_classes_each(from_logits, alignment):
    p, near = 1 / (1 + np.exp(-SAMPLES)), 1 / (1 + np.exp(-NEIGHBORS))
    given_as = (SAMPLES, NEIGHBORS) if from_logits else (p, near)
    actual = neighbor_consistency_loss(
        *given_as,
        WEIGHTS,
        from_logits=from_logits,
        binary=True,
        distribution_alignment=alignment,
    )
    each = [
        consistency(
            np.stack([p[:, i], 1 - p[:, i]], -1),
            np.stack([near[..., i], 1 - near[..., i]], -1),
            WEIGHTS,
            0.5,
            alignment,
        )
        for i in range(WIDTH)
    ]
    np.testing.assert_allclose(actual, np.mean(each, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("binary", [False, True])
def test_mean_prediction_against_numpy(from_logits, binary):
    as_p = (lambda z: 1 / (1 + np.exp(-z))) if binary else softmax
    near = NEIGHBORS if from_logits else as_p(NEIGHBORS)
    actual = neighbor_mean_prediction(near, WEIGHTS, from_logits, binary)
    actual = as_p(actual.numpy()) if from_logits else actual
    shares = WEIGHTS / np.maximum(WEIGHTS.sum(1, keepdims=True), 1e-9)
    expected = np.einsum("bk,bkc->bc", shares, as_p(NEIGHBORS))
    expected[3] = 0.5 if binary else 1 / WIDTH
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize("from_logits", [False, True])
def test_the_gradient_of_the_mean_prediction(from_logits):
    near = tf.constant(NEIGHBORS if from_logits else softmax(NEIGHBORS))
    with tf.GradientTape() as tape:
        tape.watch(near)
        first = neighbor_mean_prediction(near, WEIGHTS, from_logits)[:, 0]
    gradient = tape.gradient(first, near).numpy()
    assert np.isfinite(gradient).all()
    assert np.array_equal(np.abs(gradient).max(-1) > 0, WEIGHTS > 0)


def test_several_positions_of_a_sample_are_averaged():
    maps, near = SAMPLES.reshape(-1, 2, 2), NEIGHBORS.reshape(-1, COUNT, 2, 2)
    actual = neighbor_consistency_loss(maps, near, WEIGHTS, from_logits=True)
    each = [
        neighbor_consistency_loss(maps[:, i], near[:, :, i], WEIGHTS, from_logits=True)
        for i in range(2)
    ]
    np.testing.assert_allclose(actual, np.mean(each, 0), rtol=1e-5)


def test_contrastive_embeddings_of_any_rank_are_vectors():
    maps, near = SAMPLES.reshape(-1, 2, 2), NEIGHBORS.reshape(-1, COUNT, 2, 2)
    np.testing.assert_allclose(
        neighbor_contrastive_loss(maps, near, WEIGHTS),
        neighbor_contrastive_loss(SAMPLES, NEIGHBORS, WEIGHTS),
    )


def test_no_gradient_goes_through_the_target():
    samples, near = tf.constant(SAMPLES), tf.constant(NEIGHBORS)
    with tf.GradientTape() as tape:
        tape.watch([samples, near])
        loss = neighbor_consistency_loss(samples, near, WEIGHTS, from_logits=True)
    own, others = tape.gradient(loss, [samples, near])
    assert others is None
    assert np.abs(own).max() > 0


def test_a_prediction_equal_to_its_target_costs_nothing():
    p = softmax(SAMPLES)
    near = np.repeat(p[:, None], COUNT, 1)
    loss = neighbor_consistency_loss(p, near, WEIGHTS, sharpening_temperature=1.0)
    np.testing.assert_allclose(loss, 0, atol=1e-5)


@pytest.mark.parametrize(
    "loss_of",
    [
        neighbor_contrastive_loss,
        lambda *batch: neighbor_consistency_loss(
            *batch, from_logits=True, distribution_alignment=0.5
        ),
    ],
    ids=["contrastive", "consistency"],
)
def test_replicas_have_the_batch_of_all(loss_of):
    two = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    # Replicas need not have equally many samples.
    rows = [slice(0, 2), slice(2, 5)]

    def parts_of(value):
        return two.experimental_distribute_values_from_function(
            lambda context: value[rows[context.replica_id_in_sync_group]]
        )

    parts = [parts_of(value) for value in (SAMPLES, NEIGHBORS, WEIGHTS)]
    losses = tf.function(lambda *batch: two.run(loss_of, batch))(*parts)
    found = np.concatenate(two.experimental_local_results(losses))
    expected = loss_of(SAMPLES, NEIGHBORS, WEIGHTS)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def losses_of(samples, neighbors, weights):
    return {
        "contrastive": neighbor_contrastive_loss(samples, neighbors, weights),
        "consistency": neighbor_consistency_loss(
            samples, neighbors, weights, from_logits=True
        ),
        "aligned": neighbor_consistency_loss(
            samples, neighbors, weights, from_logits=True, distribution_alignment=0.5
        ),
        "mean": neighbor_mean_prediction(neighbors, weights, from_logits=True),
    }


@st.composite
def batches(draw):
    seed = draw(st.integers(0, 2**16))
    random = np.random.default_rng(seed)
    batch, count = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    shapes = ((batch, 3), (batch, count, 3))
    samples, neighbors = (random.normal(size=shape, scale=5) for shape in shapes)
    masked = random.random((batch, count)) < 0.3
    weights = np.where(masked, 0.0, random.uniform(0.1, 3.0, (batch, count)))
    return samples, neighbors, weights


@given(batches(), st.randoms(use_true_random=False))
def test_the_order_of_neighbors_makes_no_difference(batch, random):
    samples, neighbors, weights = batch
    order = list(range(weights.shape[1]))
    random.shuffle(order)
    expected = losses_of(samples, neighbors, weights)
    for name, loss in losses_of(
        samples, neighbors[:, order], weights[:, order]
    ).items():
        np.testing.assert_allclose(loss, expected[name], rtol=1e-5, atol=1e-6)


@given(batches(), st.floats(1e-3, 1e3))
def test_the_scale_of_weights_makes_no_difference(batch, scale):
    samples, neighbors, weights = batch
    expected = losses_of(samples, neighbors, weights)
    for name, loss in losses_of(samples, neighbors, weights * scale).items():
        np.testing.assert_allclose(loss, expected[name], rtol=1e-5, atol=1e-6)


@given(batches(), st.floats(-1e6, 1e6))
def test_masked_neighbors_never_matter(batch, garbage):
    samples, neighbors, weights = batch
    masked = (weights == 0)[..., None]
    expected = losses_of(samples, neighbors, weights)
    actual = losses_of(samples, np.where(masked, garbage, neighbors), weights)
    without = losses_of(samples, neighbors, np.where(weights > 0, weights, -1.0))
    for name, loss in expected.items():
        np.testing.assert_allclose(actual[name], loss, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(without[name], loss, rtol=1e-5, atol=1e-6)


@given(batches())
def test_losses_are_never_negative_nor_their_gradients_infinite(batch):
    samples, neighbors, weights = map(tf.constant, batch)
    # A neighbor equal to its sample, and vectors without direction.
    neighbors = tf.concat([samples[:, None], neighbors, 0 * samples[:, None]], 1)
    weights = tf.concat([weights[:, :1], weights, weights[:, :1]], 1)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([samples, neighbors])
        losses = losses_of(samples, neighbors, weights)
    alone = ~np.any(weights > 0, 1)
    for name, loss in losses.items():
        assert loss.dtype == tf.float64
        if name != "mean":
            assert np.all(loss.numpy() >= -1e-6)
            assert np.all(loss.numpy()[alone] == 0)
        for gradient in tape.gradient(loss, [samples, neighbors]):
            assert gradient is None or np.all(np.isfinite(gradient))


def test_half_precision_is_computed_in_float32_and_xla_agrees():
    half = [tf.cast(part, tf.float16) for part in (SAMPLES, NEIGHBORS)]
    expected = losses_of(*half, WEIGHTS)
    compiled = tf.function(losses_of, jit_compile=True)(*half, WEIGHTS)
    for name, loss in expected.items():
        assert loss.dtype == tf.float32
        np.testing.assert_allclose(compiled[name], loss, rtol=1e-5, atol=1e-6)


def test_wrong_inputs():
    with pytest.raises(ValueError, match=r"\(5, 4\), \(5, 2, 4\) and \(5, 3\)"):
        neighbor_contrastive_loss(SAMPLES, NEIGHBORS[:, :2], WEIGHTS)
    with pytest.raises(ValueError, match=r"weights of shape \[batch, k\]"):
        neighbor_consistency_loss(SAMPLES, NEIGHBORS, WEIGHTS[0], from_logits=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="If they are logits"):
        neighbor_consistency_loss(np.abs(SAMPLES), np.abs(NEIGHBORS), WEIGHTS)
