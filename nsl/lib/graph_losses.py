"""Losses between samples and their graph neighbors, one value per sample."""

from typing import Any

import tensorflow as tf

from nsl.lib.distances import assert_distributions
from nsl.lib.replicas import gather_from_replicas, sum_over_replicas

# The logarithm of a weight of 0. Finite, so that no difference of two is NaN.
_LOG_ZERO = -1e30
_EPSILON = 1e-7


def neighbor_contrastive_loss(
    samples: Any,
    neighbors: Any,
    weights: Any,
    temperature: float = 0.5,
) -> tf.Tensor:
    """Computes the contrastive loss of samples against their neighbors.

    With the cosine similarity s, the temperature t, and the edge weights w_ik of sample
    z_i, normalized to sum to 1:

        -log(sum_k w_ik exp(s(z_i, n_ik) / t) / (sum_k exp(s(z_i, n_ik) / t)
                                                 + sum_{j != i} exp(s(z_i, z_j) / t)))

    where k runs over the neighbors of positive weight and j over the samples of the
    batch. This is the NContrast loss of Hu et al. (2021), "Graph-MLP",
    https://arxiv.org/abs/2106.04051, up to a constant; normalized weights make it
    independent of their scale, and never negative.

    The negatives are all other samples of the batch, as in the paper. A neighbor that
    is also a sample of the batch therefore appears in the denominator twice. The
    neighbors of other samples are not negatives. In a replica of a `tf.distribute`
    strategy, the negatives are the samples of all replicas.

    Args:
      samples: Embeddings of shape [batch, ...]; all axes but the first are flattened.
      neighbors: Embeddings of the neighbors, of shape [batch, k, ...].
      weights: Edge weights, of shape [batch, k]; a weight <= 0 masks the neighbor.
      temperature: The divisor of the similarities, greater than 0.

    Returns:
      The losses, of shape [batch]; 0 for a sample without neighbors. float64 if samples
      or neighbors are, otherwise float32.

    Raises:
      ValueError: If shapes do not match.
    """
    samples, neighbors, weights = _prepared(samples, neighbors, weights)
    samples = _unit(samples, 1)
    batch, first = gather_from_replicas(samples)
    to_neighbors = tf.einsum("bd,bkd->bk", samples, _unit(neighbors, 2)) / temperature
    to_samples = tf.matmul(samples, batch, transpose_b=True) / temperature
    rows = first + tf.range(tf.shape(samples)[0])
    is_self = rows[:, tf.newaxis] == tf.range(tf.shape(batch)[0])
    log_zero = tf.constant(_LOG_ZERO, to_neighbors.dtype)
    is_neighbor = weights > 0
    log_positive = tf.reduce_logsumexp(to_neighbors + _log_shares(weights), axis=1)
    candidates = [
        tf.where(is_neighbor, to_neighbors, log_zero),
        tf.where(is_self, log_zero, to_samples),
    ]
    log_total = tf.reduce_logsumexp(tf.concat(candidates, 1), axis=1)
    return tf.where(tf.reduce_any(is_neighbor, axis=1), log_total - log_positive, 0.0)


def neighbor_consistency_loss(
    outputs: Any,
    neighbor_outputs: Any,
    weights: Any,
    sharpening_temperature: float = 0.5,
    from_logits: bool = False,
    binary: bool = False,
    distribution_alignment: float = 0.0,
) -> tf.Tensor:
    """Computes the divergence of each prediction from those of the sample's neighbors.

    The target is the mean of the neighbors' probabilities, weighted by the edges,
    raised to the power 1 / `sharpening_temperature` and normalized. No gradient flows
    through it. The loss is KL(target || prediction), averaged over positions for
    samples with several predictions. Berthelot et al. (2019),
    https://arxiv.org/abs/1905.02249, introduced sharpened means as targets; Feng et al.
    (2020), "GRAND", https://arxiv.org/abs/2005.11079, used them on graphs.

    Sharpening can amplify a leading class until it takes over all samples. To prevent
    this, `distribution_alignment` divides each target by its class's share among the
    targets of the batch, raised to that power, before normalizing (Berthelot et al.,
    2020, "ReMixMatch", https://arxiv.org/abs/1911.09785; here towards equal shares). In
    a replica of a `tf.distribute` strategy, the shares are those of all replicas.

    Args:
      outputs: Predictions of shape [batch, ..., classes].
      neighbor_outputs: Predictions of the neighbors, of shape [batch, k, ..., classes].
      weights: Edge weights, of shape [batch, k]; a weight <= 0 masks the neighbor.
      sharpening_temperature: 1 does not sharpen, smaller values do. Greater than 0.
      from_logits: Whether outputs are logits instead of probabilities.
      binary: Whether each output is an independent binary prediction instead of one of
        several classes.
      distribution_alignment: The power: 0 disables the alignment, 1 makes the shares of
        the classes about equal. Samples with several predictions are aligned at each
        position separately.

    Returns:
      The losses, of shape [batch]; 0 for a sample without neighbors. float64 if an
      output is, otherwise float32.

    Raises:
      ValueError: If shapes do not match.
      tf.errors.InvalidArgumentError: If probabilities of classes do not sum to 1. Not
        checked under XLA.
    """
    outputs = tf.convert_to_tensor(outputs)
    checks = [] if from_logits or binary else _check_probabilities(outputs)
    with tf.control_dependencies(checks):
        outputs, neighbors, weights = _prepared(outputs, neighbor_outputs, weights)
    log_p = _log_probabilities(outputs, from_logits, binary)
    log_mean = _log_mean(neighbors, weights, from_logits, binary)
    log_target = tf.nn.log_softmax(log_mean / sharpening_temperature, axis=-1)
    has_neighbors = tf.reduce_any(weights > 0, axis=1)
    if distribution_alignment:
        counts = tf.einsum(
            "b,b...->...", tf.cast(has_neighbors, log_p.dtype), tf.exp(log_target)
        )
        shares = tf.math.log(sum_over_replicas(counts) + _EPSILON)
        log_target -= distribution_alignment * shares
        log_target = tf.nn.log_softmax(log_target, axis=-1)
    log_target = tf.stop_gradient(log_target)
    divergence = tf.reduce_sum(tf.exp(log_target) * (log_target - log_p), axis=-1)
    values = tf.reduce_mean(
        tf.reshape(divergence, [tf.shape(divergence)[0], -1]), axis=1
    )
    return tf.where(has_neighbors, values, 0.0)


def neighbor_mean_prediction(
    neighbor_outputs: Any, weights: Any, from_logits: bool = False, binary: bool = False
) -> tf.Tensor:
    """Returns the mean prediction of each sample's neighbors.

    This is the mean of their probabilities, weighted by the edges. Gradients flow
    through it: a loss between it and the label of a sample trains the neighbors'
    predictions on that label, as in Klicpera et al. (2019), "APPNP",
    https://arxiv.org/abs/1810.05997.

    Args:
      neighbor_outputs: Predictions of shape [batch, k, ..., classes].
      weights: Edge weights, of shape [batch, k]; a weight <= 0 masks the neighbor.
      from_logits: Whether outputs are logits instead of probabilities.
      binary: Whether each output is an independent binary prediction instead of one of
        several classes.

    Returns:
      A tensor of shape [batch, ..., classes]: logits if the outputs are logits,
      otherwise probabilities. A sample without neighbors gets equal probabilities.
      float64 if the outputs are, otherwise float32.

    Raises:
      ValueError: If shapes do not match.
      tf.errors.InvalidArgumentError: As in `neighbor_consistency_loss`.
    """
    neighbors = tf.convert_to_tensor(neighbor_outputs)
    checks = [] if from_logits or binary else _check_probabilities(neighbors)
    with tf.control_dependencies(checks):
        _, neighbors, weights = _prepared(neighbors[:, 0], neighbors, weights)
    log_mean = _log_mean(neighbors, weights, from_logits, binary)
    if not binary:
        return log_mean if from_logits else tf.exp(log_mean)
    positive, negative = tf.unstack(log_mean, axis=-1)
    return positive - negative if from_logits else tf.exp(positive)


def _check_probabilities(outputs: tf.Tensor) -> list[tf.Operation]:
    return assert_distributions(
        outputs, "outputs", -1, "If they are logits, set transform_fn='softmax'."
    )


def _prepared(
    samples: Any, neighbors: Any, weights: Any
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Checks the shapes and casts all three to float64 if one is, else float32."""
    samples, neighbors = tf.convert_to_tensor(samples), tf.convert_to_tensor(neighbors)
    weights = tf.convert_to_tensor(weights)
    expected = tf.TensorShape([samples.shape[0], weights.shape[-1]])
    fits = weights.shape.is_compatible_with(expected) and (
        neighbors.shape.is_compatible_with(expected.concatenate(samples.shape[1:]))
    )
    if not fits:
        raise ValueError(
            "For samples of shape [batch, ...], neighbors must be of shape [batch, k, "
            "...] and weights of shape [batch, k], but received "
            f"{tuple(samples.shape)}, {tuple(neighbors.shape)} and "
            f"{tuple(weights.shape)}."
        )
    wide = tf.float64 in (samples.dtype, neighbors.dtype)
    dtype = tf.float64 if wide else tf.float32
    return tuple(tf.cast(part, dtype) for part in (samples, neighbors, weights))


def _unit(vectors: tf.Tensor, batch_axes: int) -> tf.Tensor:
    """Flattens all but the batch axes and divides each vector by its length."""
    shape = tf.shape(vectors)[:batch_axes]
    rows = tf.reshape(vectors, tf.concat([shape, [-1]], 0))
    return tf.math.l2_normalize(rows, axis=-1)


def _log_shares(weights: tf.Tensor) -> tf.Tensor:
    """Returns the logarithm of each weight divided by the sum of its row."""
    is_neighbor = weights > 0
    weights = tf.where(is_neighbor, weights, 0.0)
    shares = tf.math.divide_no_nan(weights, tf.reduce_sum(weights, 1, keepdims=True))
    # A share can underflow to 0 next to a much larger weight.
    is_neighbor &= shares > 0
    return tf.where(
        is_neighbor, tf.math.log(tf.where(is_neighbor, shares, 1.0)), _LOG_ZERO
    )


def _log_mean(
    neighbors: tf.Tensor, weights: tf.Tensor, from_logits: bool, binary: bool
) -> tf.Tensor:
    """Returns the logarithm of the neighbors' mean probabilities."""
    log_p = _log_probabilities(neighbors, from_logits, binary)
    ones = tf.ones([tf.rank(log_p) - 2], tf.int32)
    log_shares = tf.reshape(
        _log_shares(weights), tf.concat([tf.shape(weights), ones], 0)
    )
    log_mean = tf.reduce_logsumexp(log_shares + log_p, axis=1)
    has_neighbors = tf.reduce_any(weights > 0, axis=1)
    has_neighbors = tf.reshape(
        has_neighbors, tf.concat([[-1], tf.ones_like(tf.shape(log_mean)[1:])], 0)
    )

    classes = tf.cast(tf.shape(log_mean)[-1], log_mean.dtype)
    return tf.where(has_neighbors, log_mean, -tf.math.log(classes))


def _log_probabilities(
    outputs: tf.Tensor, from_logits: bool, binary: bool
) -> tf.Tensor:
    """Returns log probabilities of classes along the last axis."""
    if binary and from_logits:
        pair = [tf.math.log_sigmoid(outputs), tf.math.log_sigmoid(-outputs)]
        return tf.stack(pair, axis=-1)
    if from_logits:
        return tf.nn.log_softmax(outputs, axis=-1)
    if binary:
        outputs = tf.stack([outputs, 1.0 - outputs], axis=-1)
    return tf.math.log(tf.clip_by_value(outputs, _EPSILON, 1.0))
