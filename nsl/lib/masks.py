"""Masks of padded sequences, whose masked positions are left out of losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from nsl.lib.keras_internals import keep_mask, mask_of
from nsl.lib.layer_outputs import find_layer, inputs_behind

# The end of the names of features in which models of keras-hub take the padding,
# instead of a Keras mask: 'padding_mask', or one each for an encoder and a decoder.
PADDING_MASK = "padding_mask"
_OF_DECODER = f"decoder_{PADDING_MASK}"


def note_padding(
    model: Any, of_layers: Mapping[str, list[Any]], features: Any, y_pred: Any
) -> None:
    """Attaches features such as 'padding_mask' as masks to outputs of layers.

    The feature 'encoder_padding_mask' is the mask of outputs that depend on another
    feature whose name starts with 'encoder_'; other prefixes likewise. Outputs that
    depend on both an encoder and a decoder are those of the decoder.

    Args:
      model: The model.
      of_layers: By name, the outputs of layers in one pass. Those of shape [batch,
        length, ..., d] without a mask get one.
      features: The features. Without such a feature of shape [batch, length], or
        without a dict, no output gets a mask.
      y_pred: The outputs of the model. They get no mask, which would change the loss.
    """
    named = features if isinstance(features, Mapping) else {}
    masks = {
        name: mask
        for name, mask in named.items()
        if str(name).endswith(PADDING_MASK) and len(mask.shape) > 1
    }
    if not masks:
        return
    excluded = tf.nest.flatten(y_pred)
    for layer, tensors in of_layers.items():
        behind: list[frozenset[str]] = []
        if masks.keys() != {PADDING_MASK}:
            behind = inputs_behind(model, find_layer(model, layer))
        for i, output in enumerate(tensors):
            if mask_of(output) is not None or any(output is each for each in excluded):
                continue
            # A call of the layer may return several tensors.
            call = i * len(behind) // len(tensors)
            known = behind[call] if behind else None
            fitting = [
                name
                for name, mask in masks.items()
                if _fits(mask, output) and _belongs(name, known)
            ]
            if _OF_DECODER in fitting:
                fitting = [_OF_DECODER]
            if len(fitting) == 1:
                keep_mask(output, tf.cast(masks[fitting[0]], tf.bool))


def _fits(mask: Any, output: Any) -> bool:
    rank = len(mask.shape)
    return output.shape.rank > rank and tuple(output.shape[1:rank]) == tuple(
        mask.shape[1:]
    )


def _belongs(name: str, behind: frozenset[str] | None) -> bool:
    """Returns whether a mask belongs to an output that depends on these features.

    If they are not known, all masks do.
    """
    prefix = name.removesuffix(PADDING_MASK)
    return behind is None or any(
        other.startswith(prefix) and not other.endswith(PADDING_MASK)
        for other in behind
    )


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
