"""Masks of padded sequences, whose masked positions are left out of losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from nsl.lib.keras_internals import keep_mask, mask_of

# The feature in which models of keras-hub take the padding, instead of a Keras mask.
PADDING_MASK = "padding_mask"


def note_padding(of_layers: Any, features: Any, y_pred: Any) -> None:
    """Attaches the feature 'padding_mask' as a mask to outputs of layers.

    Args:
      of_layers: The outputs of layers, in any structure. Those of shape [batch, length,
        ..., d] without a mask get one.
      features: The features. Without such a feature of shape [batch, length], or
        without a dict, no output gets a mask.
      y_pred: The outputs of the model. They get no mask, which would change the loss.
    """
    mask = features.get(PADDING_MASK) if isinstance(features, Mapping) else None
    if mask is None:
        return
    rank, excluded = len(mask.shape), tf.nest.flatten(y_pred)
    for output in tf.nest.flatten(of_layers):
        if (
            mask_of(output) is None
            and output.shape.rank > rank > 1
            and tuple(output.shape[1:rank]) == tuple(mask.shape[1:])
            and not any(output is each for each in excluded)
        ):
            keep_mask(output, tf.cast(mask, tf.bool))


def joint_mask(*outputs: Any) -> tf.Tensor | None:
    """Returns the positions that no output masks.

    Args:
      *outputs: Tensors of one shape [batch, ..., d], with or without a Keras mask.

    Returns:
      A bool tensor of shape [batch, ...], or None if no output has a mask.
    """
    masks = [(output, mask_of(output)) for output in outputs]
    joint = None
    for output, mask in masks:
        if mask is None or mask.shape.rank >= output.shape.rank:
            continue
        missing = output.shape.rank - 1 - mask.shape.rank
        shape = tf.concat([tf.shape(mask), tf.ones([missing], tf.int32)], 0)
        whole = tf.broadcast_to(
            tf.reshape(tf.cast(mask, tf.bool), shape), tf.shape(output)[:-1]
        )
        joint = whole if joint is None else joint & whole
    return joint


def by_position(values: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """Flattens the positions of all samples into rows.

    Args:
      values: A tensor of shape [batch, ..., d].
      mask: The result of `joint_mask`. None leaves the values unchanged.

    Returns:
      A tensor of shape [positions, d].
    """
    return values if mask is None else tf.reshape(values, [-1, values.shape[-1]])


def weights_by_position(weights: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """Returns the weights of the rows of `by_position`: 0 for masked positions.

    Args:
      weights: Sample weights, of shape [batch].
      mask: The result of `joint_mask`. None leaves the weights unchanged.

    Returns:
      A tensor of shape [positions].
    """
    if mask is None:
        return weights
    rank = mask.shape.rank
    each = tf.reshape(weights, tf.concat([[-1], tf.ones([rank - 1], tf.int32)], 0))
    return tf.reshape(each * tf.cast(mask, weights.dtype), [-1])


def without_masked(
    sources: tf.Tensor,
    targets: tf.Tensor,
    weights: Any,
    mask: tf.Tensor | None,
    axis: int | None,
) -> tuple[tf.Tensor, tf.Tensor, Any]:
    """Excludes masked positions from a distance.

    Args:
      sources: A tensor of shape [batch, ..., d].
      targets: A tensor of the same shape.
      weights: Weights of the distances, a number or one per row.
      mask: The result of `joint_mask`. None changes nothing.
      axis: The axis that distances are summed over, or None.

    Returns:
      Sources, targets and weights: one row per position, with weight 0 if masked; or,
      if distances are summed over positions, with masked positions set to zero.
    """
    if mask is None:
        return sources, targets, weights
    if axis not in (None, -1, targets.shape.rank - 1):
        kept = tf.expand_dims(tf.cast(mask, targets.dtype), -1)
        return sources * kept, targets * kept, weights
    flat = tf.reshape(tf.cast(weights, tf.float32), [-1])
    flat = tf.broadcast_to(flat, tf.shape(mask)[:1])
    weights = weights_by_position(flat, mask)[:, tf.newaxis]
    return by_position(sources, mask), by_position(targets, mask), weights
