"""Weighted distances between pairs of tensors."""

from typing import Any

import tensorflow as tf

from nsl import configs

_NEED_AXIS = (
    configs.DistanceType.COSINE,
    configs.DistanceType.JENSEN_SHANNON_DIVERGENCE,
    configs.DistanceType.KL_DIVERGENCE,
)
# Added to probabilities to keep their logarithms finite.
_EPSILON = 1e-7
_MACHINE_EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float64": 2.0**-52}
_AVERAGE = "weighted_sum_by_nonzero_weights"


def pairwise_distance_wrapper(
    sources: Any,
    targets: Any,
    weights: Any = 1.0,
    distance_config: configs.DistanceConfig | None = None,
) -> tf.Tensor:
    """Computes the weighted distance between `sources` and `targets`.

    With `sum_over_axis`, the elements along that axis are one vector, and each vector
    gives one distance. Otherwise each element gives one. The distances are then
    weighted and reduced.

    Example:
    >>> config = nsl.configs.DistanceConfig("l2", sum_over_axis=-1)
    >>> distance = nsl.lib.pairwise_distance_wrapper(
    ...     [[1.0, 1.0]], [[3.0, 0.0]], 1.0, config
    ... )
    >>> float(distance)
    5.0

    Args:
      sources: A floating tensor of shape [batch, ...].
      targets: A tensor of the same shape.
      weights: A number, or a tensor of the same rank as the distances, each axis of the
        same size or of size 1. Its size along `sum_over_axis` must be 1.
      distance_config: The distance, its axis, transform and reduction. None means
        `DistanceConfig()`.

    Returns:
      The reduced distance, a scalar, or 0 if all weights are 0. With the reduction
      'none', the weighted distances: of the shape of `targets` for L1 and L2, otherwise
      with size 1 along `sum_over_axis`. float64 if an input is, otherwise float32.

    Raises:
      ValueError: If shapes do not match, or if `sum_over_axis` is out of range or is
        missing where the distance needs it.
    """
    config = distance_config or configs.DistanceConfig()
    values = _distances(sources, targets, config)
    return _reduce(values, weights, config.reduction)


def weighted_sum_and_normalizer(
    sources: Any, targets: Any, weights: Any, distance_config: configs.DistanceConfig
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the numerator and denominator of `pairwise_distance_wrapper`.

    Both can be summed over parts of a batch, such as replicas, before dividing. With
    the reduction 'weighted_sum' the denominator is 1 and must not be summed.

    Args:
      sources: As in `pairwise_distance_wrapper`.
      targets: As in `pairwise_distance_wrapper`.
      weights: As in `pairwise_distance_wrapper`.
      distance_config: As in `pairwise_distance_wrapper`.

    Returns:
      The weighted sum of distances and its normalizer, two scalars.

    Raises:
      ValueError: As in `pairwise_distance_wrapper`, or if the reduction is 'none'.
    """
    values = _distances(sources, targets, distance_config)
    return _sum_and_normalizer(values, weights, distance_config.reduction)


def kl_divergence(
    labels: Any,
    predictions: Any,
    axis: int | None = None,
    weights: Any = 1.0,
    scope: str | None = None,
    loss_collection: str | None = "losses",
    reduction: str = _AVERAGE,
) -> tf.Tensor:
    """Computes the Kullback-Leibler divergence of `predictions` from `labels`.

    The sum of p log(p / q) along `axis`, for p in labels and q in predictions.

    Args:
      labels: Probabilities that sum to 1 along `axis`.
      predictions: Probabilities of the same shape.
      axis: The axis of the classes.
      weights: A number, or a tensor that broadcasts to the divergences, whose size
        along `axis` is 1.
      scope: A name scope for the operations.
      loss_collection: In a TF1 graph, the collection the result is added to.
      reduction: A value of `tf.compat.v1.losses.Reduction`.

    Returns:
      The weighted divergence, a scalar; with the reduction 'none', one for each
      distribution, with size 1 along `axis`.

    Raises:
      ValueError: If `axis` is None or out of range, or shapes do not match.
      tf.errors.InvalidArgumentError: If the inputs are not distributions. Not checked
        under XLA.
    """
    with tf.name_scope(scope or "kl_divergence"):
        values = _checked_divergence(_kl, labels, predictions, axis)
        return _collected(_reduce(values, weights, reduction), loss_collection)


def jensen_shannon_divergence(
    labels: Any,
    predictions: Any,
    axis: int | None = None,
    weights: Any = 1.0,
    scope: str | None = None,
    loss_collection: str | None = "losses",
    reduction: str = _AVERAGE,
) -> tf.Tensor:
    """Computes the Jensen-Shannon divergence between `labels` and `predictions`.

    The mean of the Kullback-Leibler divergences of both from their mean (Lin, 1991).

    Args:
      labels: Probabilities that sum to 1 along `axis`.
      predictions: Probabilities of the same shape.
      axis: The axis of the classes.
      weights: A number, or a tensor that broadcasts to the divergences, whose size
        along `axis` is 1.
      scope: A name scope for the operations.
      loss_collection: In a TF1 graph, the collection the result is added to.
      reduction: A value of `tf.compat.v1.losses.Reduction`.

    Returns:
      The weighted divergence, a scalar; with the reduction 'none', one for each
      distribution, with size 1 along `axis`.

    Raises:
      ValueError: If `axis` is None or out of range, or shapes do not match.
      tf.errors.InvalidArgumentError: If the inputs are not distributions. Not checked
        under XLA.
    """
    with tf.name_scope(scope or "jensen_shannon_divergence"):
        values = _checked_divergence(_jensen_shannon, labels, predictions, axis)
        return _collected(_reduce(values, weights, reduction), loss_collection)


def assert_distributions(
    tensor: tf.Tensor, name: str, axis: int, advice: str = ""
) -> list[tf.Operation]:
    """Checks that a tensor holds probabilities that sum to 1.

    Args:
      tensor: The tensor to check, of any dtype.
      name: The name of the tensor in errors.
      axis: The axis of the classes.
      advice: A sentence to end errors with.

    Returns:
      The checks as control dependencies. Empty in eager mode, where they have already
      run.

    Raises:
      tf.errors.InvalidArgumentError: If a check fails. Not checked under XLA.
    """
    _check_axis(tensor, axis)
    wide = tf.cast(tensor, tf.float64 if tensor.dtype == tf.float64 else tf.float32)
    # Rounding errors add up over many classes, more so in narrow dtypes.
    dtype = tensor.dtype if tensor.dtype.is_floating else wide.dtype
    checks = [
        tf.debugging.assert_non_negative(
            wide, f"{name} holds negative probabilities. {advice}".rstrip()
        ),
        tf.debugging.assert_near(
            tf.reduce_sum(wide, axis=axis),
            tf.ones([], wide.dtype),
            rtol=0.0,
            atol=_MACHINE_EPSILON.get(dtype.name, 2.0**-23) ** 0.5,
            message=f"{name} does not sum to 1 along axis {axis}. {advice}".rstrip(),
        ),
    ]
    return [check for check in checks if check is not None]


def _distances(sources: Any, targets: Any, config: configs.DistanceConfig) -> tf.Tensor:
    """Returns the distances before weighting and reduction."""
    axis = config.sum_over_axis
    kind = config.distance_type
    if axis is None and kind in _NEED_AXIS:
        raise ValueError(
            f"DistanceConfig.sum_over_axis is needed for the distance {kind.value!r}, "
            "but is None. It is -1 for outputs of shape [batch, classes]."
        )
    if kind is configs.DistanceType.KL_DIVERGENCE:
        divergence = _kl
    elif kind is configs.DistanceType.JENSEN_SHANNON_DIVERGENCE:
        divergence = _jensen_shannon
    else:
        divergence = None
    softmax = config.transform_fn is configs.TransformType.SOFTMAX
    if divergence and not softmax:
        return _checked_divergence(divergence, sources, targets, axis)
    sources, targets = _alike(sources, targets, axis)
    if softmax:
        along = -1 if axis is None else axis
        sources = tf.nn.softmax(sources, axis=along)
        targets = tf.nn.softmax(targets, axis=along)
    if divergence:
        return divergence(sources, targets, axis)
    if kind is configs.DistanceType.COSINE:
        sources = tf.math.l2_normalize(sources, axis=axis)
        targets = tf.math.l2_normalize(targets, axis=axis)
        return 1.0 - tf.reduce_sum(sources * targets, axis=axis, keepdims=True)
    if kind is configs.DistanceType.L1:
        values = tf.abs(sources - targets)
    else:
        values = tf.math.squared_difference(sources, targets)
    if axis is None or config.reduction in ("none", "weighted_sum"):
        # As in NSL 1.4, where these two reductions keep the axis.
        return values
    return tf.reduce_sum(values, axis=axis, keepdims=True)


def _kl(labels: tf.Tensor, predictions: tf.Tensor, axis: int | None) -> tf.Tensor:
    ratio = tf.math.log(labels + _EPSILON) - tf.math.log(predictions + _EPSILON)
    return tf.reduce_sum(labels * ratio, axis=axis, keepdims=True)


def _jensen_shannon(
    labels: tf.Tensor, predictions: tf.Tensor, axis: int | None
) -> tf.Tensor:
    mean = 0.5 * (labels + predictions)
    return 0.5 * (_kl(labels, mean, axis) + _kl(predictions, mean, axis))


def _checked_divergence(
    divergence: Any, labels: Any, predictions: Any, axis: int | None
) -> tf.Tensor:
    """Computes a divergence after checking that its inputs are distributions."""
    if axis is None:
        raise ValueError("axis is needed: the axis along which probabilities sum to 1.")
    narrow = tf.convert_to_tensor(labels), tf.convert_to_tensor(predictions)
    labels, predictions = _alike(*narrow, axis)
    checks = [
        *assert_distributions(narrow[0], "labels", axis),
        *assert_distributions(narrow[1], "predictions", axis),
    ]
    with tf.control_dependencies(checks):
        return divergence(labels, predictions, axis)


def _alike(sources: Any, targets: Any, axis: int | None) -> tuple[tf.Tensor, tf.Tensor]:
    """Checks the shapes and casts both tensors to float64 if one is, else float32."""
    sources, targets = tf.convert_to_tensor(sources), tf.convert_to_tensor(targets)
    if not sources.shape.is_compatible_with(targets.shape):
        raise ValueError(
            "sources and targets must have the same shape, but received "
            f"{tuple(sources.shape)} and {tuple(targets.shape)}."
        )
    _check_axis(sources, axis)
    wide = tf.float64 in (sources.dtype, targets.dtype)
    dtype = tf.float64 if wide else tf.float32
    return tf.cast(sources, dtype), tf.cast(targets, dtype)


def _check_axis(tensor: tf.Tensor, axis: int | None) -> None:
    rank = tensor.shape.rank
    if axis is not None and rank is not None and not -rank <= axis < rank:
        raise ValueError(
            f"axis {axis} is out of range for tensors of shape {tuple(tensor.shape)}: "
            f"expected one in [{-rank}, {rank})."
        )


def _weighted(values: tf.Tensor, weights: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the weighted values and the weights, both in the shape of `values`."""
    weights = tf.cast(weights, values.dtype)
    ranks = weights.shape.rank, values.shape.rank
    fits = None in ranks or (
        ranks[0] in (0, ranks[1])
        and all(
            size in (1, None) or total in (size, None)
            for size, total in zip(weights.shape, values.shape, strict=False)
        )
    )
    if not fits:
        raise ValueError(
            f"weights of shape {tuple(weights.shape)} do not broadcast to distances of "
            f"shape {tuple(values.shape)}: expected a number, or the same rank with "
            "each size equal or 1."
        )
    return values * weights, weights * tf.ones_like(values)


def _sum_and_normalizer(
    values: tf.Tensor, weights: Any, reduction: str
) -> tuple[tf.Tensor, tf.Tensor]:
    weighted, weights = _weighted(values, weights)
    if reduction == "weighted_sum":
        normalizer = tf.ones([], values.dtype)
    elif reduction == "weighted_mean":
        normalizer = tf.reduce_sum(weights)
    elif reduction == "weighted_sum_over_batch_size":
        normalizer = tf.cast(tf.size(values), values.dtype)
    elif reduction == "weighted_sum_by_nonzero_weights":
        normalizer = tf.math.count_nonzero(weights, dtype=values.dtype)
    else:
        raise ValueError(
            f"The reduction {reduction!r} does not return a scalar: expected "
            "'weighted_sum', 'weighted_mean', 'weighted_sum_over_batch_size' or "
            "'weighted_sum_by_nonzero_weights'."
        )
    return tf.reduce_sum(weighted), normalizer


def _reduce(values: tf.Tensor, weights: Any, reduction: str) -> tf.Tensor:
    if reduction == "none":
        return _weighted(values, weights)[0]
    return tf.math.divide_no_nan(*_sum_and_normalizer(values, weights, reduction))


def _collected(loss: tf.Tensor, collection: str | None) -> tf.Tensor:
    if collection and not tf.executing_eagerly():
        tf.compat.v1.add_to_collection(collection, loss)
    return loss
