"""Masks that exclude parts of the features from perturbation."""

from typing import Any

import numpy as np
import tensorflow as tf

from nsl.lib import features as feature_structures


def apply_feature_mask(features: Any, feature_mask: Any = None) -> Any:
    """Multiplies features by a mask.

    Args:
      features: A floating tensor, or a structure of them.
      feature_mask: Factors in [0, 1], broadcastable to the features: a number, an
        array, or a structure of them keyed by feature. A feature without an entry is
        not masked. None masks nothing.

    Returns:
      A structure like `features`.

    Raises:
      ValueError: If the mask names an unknown feature or does not broadcast to its
        feature.
      tf.errors.InvalidArgumentError: If the mask has values outside [0, 1]. If they are
        known when the graph is built, the error is also a ValueError.
    """
    if feature_mask is None:
        return features
    tensors = [tf.convert_to_tensor(t) for t in tf.nest.flatten(features)]
    dtypes = [t.dtype for t in tensors]
    masks = feature_structures.spread_tensors(
        feature_mask,
        tf.nest.pack_sequence_as(features, tensors),
        "feature_mask",
        dtypes,
    )
    masked = [
        tensor if mask is None else tensor * in_unit_interval(mask)
        for tensor, mask in zip(tensors, masks, strict=True)
    ]
    return tf.nest.pack_sequence_as(features, masked)


class _OutOfUnitInterval(ValueError, tf.errors.InvalidArgumentError):
    """A ValueError that code written for NSL 1.4 catches as InvalidArgumentError."""

    def __init__(self, message: str) -> None:
        tf.errors.InvalidArgumentError.__init__(self, None, None, message)


def in_unit_interval(mask: tf.Tensor) -> tf.Tensor:
    """Returns `mask` after checking that its values lie in [0, 1].

    Args:
      mask: A floating tensor.

    Returns:
      The mask.

    Raises:
      tf.errors.InvalidArgumentError: If a value is outside. If the values are known
        when the graph is built, the error is also a ValueError.
    """
    values = tf.get_static_value(mask)
    if values is not None:
        values = np.asarray(values, np.float64)
        if not np.all((values >= 0) & (values <= 1)):
            raise _OutOfUnitInterval(
                "feature_mask must hold values in [0, 1], but its range is "
                f"[{values.min()}, {values.max()}]."
            )
        return mask
    message = "feature_mask must hold values in [0, 1]."
    checks = [
        tf.debugging.assert_greater_equal(  # type: ignore[func-returns-value]
            mask, tf.cast(0, mask.dtype), message
        ),
        tf.debugging.assert_less_equal(mask, tf.cast(1, mask.dtype), message),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(mask)
