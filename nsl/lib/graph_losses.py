"""Losses of samples and their neighbors in a graph, one value a sample."""

from typing import Any

import tensorflow as tf

from nsl.lib.distances import assert_distributions
from nsl.lib.replicas import gather_from_replicas, sum_over_replicas

# The logarithm of a weight of 0: its exponential is 0, and nothing becomes NaN.
_LOG_ZERO = -1e30
_EPSILON = 1e-7


def neighbor_contrastive_loss(
    samples: Any,
    neighbors: Any,
    weights: Any,
    temperature: float = 0.5,
) -> tf.Tensor:
    """Computes the contrastive loss of samples against their neighbors.

    With s the cosine similarity, t the temperature and w the weights of the edges of
    sample z_i, divided by their sum:

        -log(sum_k w_ik exp(s(z_i, n_ik) / t) / (sum_k exp(s(z_i, n_ik) / t)
                                                 + sum_{j != i} exp(s(z_i, z_j) / t)))

    where k runs over the neighbors of weight above 0 and j over the samples of the
    batch. This is the NContrast loss of Hu et al. (2021), "Graph-MLP",
    https://arxiv.org/abs/2106.04051, but for a constant, which makes it independent of
    the scale of the weights and never negative.

    Negatives are all samples of the batch but the sample itself, neighbors among them,
    as in the paper: a neighbor that is also a sample of the batch counts in the
    denominator twice. The neighbors of other samples are no negatives. In a replica of
    a `tf.distribute` strategy, negatives are the samples of all replicas.

    Args:
      samples: Embeddings of shape [batch, ...], each taken as one vector.
      neighbors: Those of the neighbors, of shape [batch, k, ...].
      weights: Weights of the edges, of shape [batch, k]; one of 0 or less masks the
        neighbor.
      temperature: Divides the similarities, greater than 0.

    Returns:
      The losses, of shape [batch]; 0 for a sample without neighbors. At least float32.

    Raises:
      ValueError: If shapes do not match.
    """
    samples, neighbors, weights = _prepared(samples, neighbors, weights)
    samples = _unit(samples, 1)
    batch, first = gather_from_replicas(samples)
    near = tf.einsum("bd,bkd->bk", samples, _unit(neighbors, 2)) / temperature
    rest = tf.matmul(samples, batch, transpose_b=True) / temperature
    rows = first + tf.range(tf.shape(samples)[0])
    itself = rows[:, tf.newaxis] == tf.range(tf.shape(batch)[0])
    log_zero = tf.constant(_LOG_ZERO, near.dtype)
    there = weights > 0
    positive = tf.reduce_logsumexp(near + _log_shares(weights), axis=1)
    candidates = [tf.where(there, near, log_zero), tf.where(itself, log_zero, rest)]
    every = tf.reduce_logsumexp(tf.concat(candidates, 1), axis=1)
    return tf.where(tf.reduce_any(there, axis=1), every - positive, 0.0)


def neighbor_consistency_loss(
    outputs: Any,
    neighbor_outputs: Any,
    weights: Any,
    sharpening_temperature: float = 0.5,
    from_logits: bool = False,
    binary: bool = False,
    distribution_alignment: float = 0.0,
) -> tf.Tensor:
    """Computes the divergence from what the neighbors of each sample predict.

    The target is the mean of the neighbors' probabilities, weighted by the edges,
    raised to the power 1 / `sharpening_temperature` and divided by its sum. No gradient
    goes through it. The loss is KL(target || prediction), averaged over the positions
    where a sample has several predictions. Sharpened means as targets are due to
    Berthelot et al. (2019), https://arxiv.org/abs/1905.02249, and in graphs to Feng et
    al. (2020), "GRAND", https://arxiv.org/abs/2005.11079.

    Sharpening lets a class that is ahead grow until all samples have it. Against this,
    `distribution_alignment` divides each target by the share that its class has among
    the targets of the batch, to that power, before it is divided by its sum (Berthelot
    et al., 2020, "ReMixMatch", https://arxiv.org/abs/1911.09785; here towards equal
    shares). In a replica of a `tf.distribute` strategy the batch is that of all.

    Args:
      outputs: Predictions of shape [batch, ..., classes].
      neighbor_outputs: Those of the neighbors, of shape [batch, k, ..., classes].
      weights: Weights of the edges, of shape [batch, k]; one of 0 or less masks the
        neighbor.
      sharpening_temperature: 1 leaves the mean as it is, less sharpens it. Greater
        than 0.
      from_logits: Whether outputs are logits instead of probabilities.
      binary: Whether each output is the probability (or logit) of a yes by itself,
        instead of one of several classes.
      distribution_alignment: 0 leaves the shares of the classes as they are, 1 makes
        them about equal. At each position of a sample that has several, the shares are
        those there.

    Returns:
      The losses, of shape [batch]; 0 for a sample without neighbors. At least float32.

    Raises:
      ValueError: If shapes do not match.
      tf.errors.InvalidArgumentError: If outputs that should be probabilities of classes
        do not sum to 1. Under XLA this is not checked.
    """
    outputs = tf.convert_to_tensor(outputs)
    checks = [] if from_logits or binary else _check_probabilities(outputs)
    with tf.control_dependencies(checks):
        outputs, neighbors, weights = _prepared(outputs, neighbor_outputs, weights)
    log_p = _log_probabilities(outputs, from_logits, binary)
    log_mean = _log_mean(neighbors, weights, from_logits, binary)
    log_target = tf.nn.log_softmax(log_mean / sharpening_temperature, axis=-1)
    there = tf.reduce_any(weights > 0, axis=1)
    if distribution_alignment:
        counts = tf.einsum(
            "b,b...->...", tf.cast(there, log_p.dtype), tf.exp(log_target)
        )
        shares = tf.math.log(sum_over_replicas(counts) + _EPSILON)
        log_target -= distribution_alignment * shares
        log_target = tf.nn.log_softmax(log_target, axis=-1)
    log_target = tf.stop_gradient(log_target)
    divergence = tf.reduce_sum(tf.exp(log_target) * (log_target - log_p), axis=-1)
    values = tf.reduce_mean(
        tf.reshape(divergence, [tf.shape(divergence)[0], -1]), axis=1
    )
    return tf.where(there, values, 0.0)


def neighbor_mean_prediction(
    neighbor_outputs: Any, weights: Any, from_logits: bool = False, binary: bool = False
) -> tf.Tensor:
    """Returns what the neighbors of each sample predict together.

    This is the mean of their probabilities, weighted by the edges. The gradient goes
    through it: a loss between it and the label of a sample teaches the neighbors that
    label, as in Klicpera et al. (2019), "APPNP", https://arxiv.org/abs/1810.05997.

    Args:
      neighbor_outputs: Predictions of shape [batch, k, ..., classes].
      weights: Weights of the edges, of shape [batch, k]; one of 0 or less masks the
        neighbor.
      from_logits: Whether outputs are logits instead of probabilities.
      binary: Whether each output is the probability (or logit) of a yes by itself,
        instead of one of several classes.

    Returns:
      A tensor of shape [batch, ..., classes] in the form of the outputs: logits if they
      are logits, otherwise probabilities. For a sample without neighbors, all classes
      are equally likely. At least float32.

    Raises:
      ValueError: If shapes do not match.
      tf.errors.InvalidArgumentError: As in `neighbor_consistency_loss`.
    """
    neighbors = tf.convert_to_tensor(neighbor_outputs)
    checks = [] if from_logits or binary else _check_probabilities(neighbors)
    with tf.control_dependencies(checks):
        _, neighbors, weights = _prepared(neighbors[:, 0], neighbors, weights)
    log_mean = _log_mean(neighbors, weights, from_logits, binary)
    if binary and from_logits:
        return log_mean[..., 0] - log_mean[..., 1]
    if from_logits:
        return log_mean
    return tf.exp(log_mean[..., 0] if binary else log_mean)


def _check_probabilities(outputs: tf.Tensor) -> list[tf.Operation]:
    return assert_distributions(
        outputs, "outputs", -1, "Are they logits? Then say so: transform_fn='softmax'."
    )


def _prepared(
    samples: Any, neighbors: Any, weights: Any
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns all three in one dtype of at least float32, shapes checked."""
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
    """Flattens all but the first axes and divides each vector by its length."""
    shape = tf.shape(vectors)[:batch_axes]
    rows = tf.reshape(vectors, tf.concat([shape, [-1]], 0))
    return tf.math.l2_normalize(rows, axis=-1)


def _log_shares(weights: tf.Tensor) -> tf.Tensor:
    """Returns the logarithm of each weight divided by the sum of its row."""
    there = weights > 0
    weights = tf.where(there, weights, 0.0)
    shares = tf.math.divide_no_nan(weights, tf.reduce_sum(weights, 1, keepdims=True))
    # Very unequal weights round to 0 beside each other.
    there &= shares > 0
    return tf.where(there, tf.math.log(tf.where(there, shares, 1.0)), _LOG_ZERO)


def _log_mean(
    neighbors: tf.Tensor, weights: tf.Tensor, from_logits: bool, binary: bool
) -> tf.Tensor:
    """Returns the logarithm of the mean of neighbors' probabilities."""
    log_p = _log_probabilities(neighbors, from_logits, binary)
    ones = tf.ones([tf.rank(log_p) - 2], tf.int32)
    log_shares = tf.reshape(
        _log_shares(weights), tf.concat([tf.shape(weights), ones], 0)
    )
    log_mean = tf.reduce_logsumexp(log_shares + log_p, axis=1)
    there = tf.reduce_any(weights > 0, axis=1)
    there = tf.reshape(
        there, tf.concat([[-1], tf.ones_like(tf.shape(log_mean)[1:])], 0)
    )
    # Without neighbors, all classes are equally likely.
    classes = tf.cast(tf.shape(log_mean)[-1], log_mean.dtype)
    return tf.where(there, log_mean, -tf.math.log(classes))


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
