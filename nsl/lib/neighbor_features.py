"""Splits a dict of features into those of samples and those of their neighbors."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from nsl import configs


def strip_neighbor_features(
    features: Mapping[str, Any], neighbor_config: configs.GraphNeighborConfig
) -> dict[str, Any]:
    """Returns the features of the samples, without those of their neighbors.

    Args:
      features: Features by name, with or without neighbor features.
      neighbor_config: The naming scheme of neighbor features.

    Returns:
      The features whose names do not begin with the prefix.
    """
    prefix = neighbor_config.prefix
    return {name: x for name, x in features.items() if not name.startswith(prefix)}


def unpack_neighbor_features(
    features: Mapping[str, Any],
    neighbor_config: configs.GraphNeighborConfig,
    keep_rank: bool = True,
) -> tuple[dict[str, Any], dict[str, Any], tf.Tensor | None]:
    """Splits features into those of the samples and those of their neighbors.

    Example:
    >>> features = {
    ...     "x": tf.constant([[0.0, 1.0]]),
    ...     "NL_nbr_0_x": tf.constant([[2.0, 3.0]]),
    ...     "NL_nbr_0_weight": tf.constant([[0.5]]),
    ... }
    >>> samples, neighbors, weights = nsl.lib.unpack_neighbor_features(
    ...     features, nsl.configs.GraphNeighborConfig(max_neighbors=1)
    ... )
    >>> neighbors["x"].numpy().tolist(), weights.numpy().tolist()
    ([[2.0, 3.0]], [[0.5]])

    Args:
      features: Dense, ragged or sparse tensors by name, of rank 2 or more. For each
        sample feature, of shape [batch, ...], each neighbor needs a feature of the same
        shape; and each neighbor needs a dense weight, of shape [batch, 1].
      neighbor_config: The naming scheme and the number of neighbors.
      keep_rank: Whether to merge the k neighbors into the batch axis, sample by sample,
        instead of giving them an axis of their own.

    Returns:
      The features of the samples; those of the neighbors under the same names, of
      shape [batch * k, ...], or [batch, k, ...] if not `keep_rank`; and the weights, of
      shape [batch * k, 1] or [batch, k, 1]. With `max_neighbors` 0 the neighbors are an
      empty dict and the weights None.

    Raises:
      KeyError: If a neighbor's feature or weight is missing.
      ValueError: If a rank or shape is not as above.
    """
    for name, value in features.items():
        shape = _as_tensor(value).shape
        if shape.rank is not None and shape.rank < 2:
            raise ValueError(
                f"Feature {name!r} must be of rank 2 or more, [batch, ...], but has "
                f"shape {tuple(shape)}."
            )
    return unpack_features(features, neighbor_config, keep_rank)


def unpack_features(
    features: Mapping[str, Any],
    neighbor_config: configs.GraphNeighborConfig,
    keep_rank: bool = True,
) -> tuple[dict[str, Any], dict[str, Any], tf.Tensor | None]:
    """`unpack_neighbor_features`, but also for tensors of shape [batch].

    Args:
      features: As there, but of any rank from 1 on; weights may have shape [batch].
      neighbor_config: As there.
      keep_rank: As there.

    Returns:
      As there. The last axis of the weights always has size 1.

    Raises:
      KeyError: If a neighbor's feature or weight is missing.
      ValueError: If a shape is not as described.
    """
    samples, neighbors, weights = split_neighbors(features, neighbor_config)
    if not neighbors:
        return samples, {}, None
    joined = tf.nest.map_structure(
        lambda *parts: _interleave(list(parts), keep_rank), *neighbors
    )
    return samples, joined, _interleave(weights, keep_rank)


def split_neighbors(
    features: Mapping[str, Any], neighbor_config: configs.GraphNeighborConfig
) -> tuple[dict[str, Any], list[dict[str, Any]], list[tf.Tensor]]:
    """Splits features into those of the samples and a list of those of each neighbor.

    Args:
      features: Tensors by name, of shape [batch, ...].
      neighbor_config: The naming scheme and the number of neighbors.

    Returns:
      The features of the samples; for each neighbor, its features under the same names;
      and for each neighbor, its weights, of shape [batch, 1].

    Raises:
      KeyError: If a neighbor's feature or weight is missing.
      ValueError: If a neighbor's feature does not have the shape of the sample's, or a
        weight has neither shape [batch, 1] nor [batch].
    """
    samples = {
        name: _as_tensors(value)
        for name, value in strip_neighbor_features(features, neighbor_config).items()
    }
    neighbors, weights = [], []
    for i in range(neighbor_config.max_neighbors):
        prefix = f"{neighbor_config.prefix}{i}"
        neighbor = {name: _look_up(features, f"{prefix}_{name}") for name in samples}
        for name, sample in samples.items():
            _check_alike(sample, neighbor[name], name, i)
        neighbors.append(neighbor)
        name = f"{prefix}{neighbor_config.weight_suffix}"
        weight = _look_up(features, name)
        if weight.shape.rank == 1:
            weight = tf.expand_dims(weight, 1)
        if not weight.shape.is_compatible_with([None, 1]):
            raise ValueError(
                f"Neighbor weight {name!r} must be of shape [batch, 1], but has shape "
                f"{tuple(weight.shape)}."
            )
        weights.append(weight)
    return samples, neighbors, weights


def replicate_embeddings(embeddings: Any, replicate_times: Any) -> tf.Tensor:
    """Repeats each row.

    Args:
      embeddings: A tensor of shape [batch, ...].
      replicate_times: The number of copies of each row, an integer or an integer tensor
        of shape [batch].

    Returns:
      A tensor of shape [sum of `replicate_times`, ...] with the copies of a row next to
      each other.

    Raises:
      tf.errors.InvalidArgumentError: If a number is negative.
    """
    embeddings = tf.convert_to_tensor(embeddings)
    if isinstance(replicate_times, int) and replicate_times >= 0:
        return tf.repeat(embeddings, replicate_times, axis=0)
    replicate_times = tf.cast(replicate_times, tf.int32)
    check = tf.debugging.assert_non_negative(
        replicate_times, "replicate_times must not be negative."
    )
    with tf.control_dependencies([] if check is None else [check]):
        return tf.repeat(embeddings, replicate_times, axis=0)


def _as_tensor(value: Any) -> Any:
    return value if tf.is_tensor(value) else tf.convert_to_tensor(value)


def _as_tensors(value: Any) -> Any:
    return tf.nest.map_structure(_as_tensor, value)


def _check_alike(sample: Any, neighbor: Any, name: str, i: int) -> None:
    try:
        tf.nest.assert_same_structure(sample, neighbor)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Feature {name!r} of neighbor {i} and of the sample have different "
            f"structures: {error}"
        ) from error
    pairs = zip(tf.nest.flatten(sample), tf.nest.flatten(neighbor), strict=True)
    for of_sample, of_neighbor in pairs:
        if not of_neighbor.shape.is_compatible_with(of_sample.shape):
            raise ValueError(
                f"Feature {name!r} of neighbor {i} has shape "
                f"{tuple(of_neighbor.shape)}, but the sample's has shape "
                f"{tuple(of_sample.shape)}: they must be equal."
            )


def _look_up(features: Mapping[str, Any], name: str) -> Any:
    if name not in features:
        raise KeyError(
            f"Neighbor feature {name!r} is missing. Received the features "
            f"{sorted(features)}."
        )
    return _as_tensors(features[name])


def _interleave(tensors: list[Any], keep_rank: bool) -> Any:
    """Stacks tensors along axis 1, merged into axis 0 if `keep_rank`."""
    first, k = tensors[0], len(tensors)
    if isinstance(first, tf.SparseTensor):
        stacked = tf.sparse.concat(1, [tf.sparse.expand_dims(t, 1) for t in tensors])
        batch, rest = first.shape[0], first.shape[1:]
        shape = tf.TensorShape([batch, k]).concatenate(rest)
        if keep_rank:
            rows = first.dense_shape[:1] * k
            stacked = tf.sparse.reshape(
                stacked, tf.concat([rows, first.dense_shape[1:]], axis=0)
            )
            batch = None if batch is None else batch * k
            shape = tf.TensorShape([batch]).concatenate(rest)
        # Both operations lose the static shape, and later layers need the last axis.
        stacked.set_shape(shape)
        return stacked
    stacked = tf.stack(tensors, axis=1)
    if not keep_rank:
        return stacked
    if isinstance(stacked, tf.RaggedTensor):
        return stacked.merge_dims(0, 1)
    merged = tf.reshape(stacked, tf.concat([[-1], tf.shape(first)[1:]], axis=0))
    return tf.ensure_shape(merged, tf.TensorShape([None]).concatenate(first.shape[1:]))
