"""What no attack can do: accuracy that interval bounds prove."""

from typing import Any

import numpy as np
import tensorflow as tf

from nsl.attacks.examples import Batch, Examples, Limits, split
from nsl.attacks.model_adapter import ModelAdapter
from nsl.lib.interval_bounds import Interval, interval_bounds

# By how much logits have to differ for a proof, in shares of the largest difference.
_ROUNDING = 1e-5


def certified(
    model: ModelAdapter, examples: Examples, limits: Limits, labels: Any, size: int
) -> np.ndarray:
    """Tells which examples no point of the ball makes the model get wrong.

    Args:
      model: A sequential or functional Keras model of classes; see
        `nsl.lib.interval_bounds`.
      examples: The examples.
      limits: Radius, bounds and mask of each.
      labels: Their classes.
      size: How many examples are bounded at once.

    Returns:
      A bool array of shape [examples]. False is no proof of the contrary.

    Raises:
      ValueError: If the bounds of a layer are not known.
    """
    parts = []
    for piece in split(examples.count, size):
        rows = np.arange(piece.start, piece.stop)
        batch = examples.batch(rows, limits, labels)
        output = model.chosen(interval_bounds(model.model, *_box(batch)))
        parts.append(_certified(output, np.asarray(batch.labels), model.from_logits))
    return np.concatenate(parts)


def _certified(output: Interval, labels: np.ndarray, logits: bool | None) -> np.ndarray:
    worst = output.worst_case_logits(labels).numpy()
    slack = _ROUNDING * (1 + np.max(np.abs(worst)))
    if worst.ndim == 1 or worst.shape[1] == 1:
        worst = worst.reshape([-1])
        middle = 0.0 if logits or output.scores is not None else 0.5
        return np.where(labels > 0, worst > middle + slack, worst < middle - slack)
    others = np.where(np.arange(worst.shape[1]) == labels[:, None], -np.inf, worst)
    return others.max(axis=1) + slack < worst[np.arange(len(worst)), labels]


def _box(batch: Batch) -> tuple[Any, Any]:
    """Returns the bounds of the points that an attack may give."""
    limits = batch.limits
    ends: tuple[list[Any], list[Any]] = ([], [])
    for leaf, scale, low, high, mask in zip(
        tf.nest.flatten(batch.features),
        limits.scale,
        limits.low,
        limits.high,
        limits.mask,
        strict=True,
    ):
        if leaf.dtype.kind not in "fV":
            ends[0].append(leaf)
            ends[1].append(leaf)
            continue
        reach = limits.radius.reshape([-1, *[1] * (leaf.ndim - 1)])
        reach = reach * (1.0 if scale is None else scale)
        if mask is not None:
            reach = np.where(mask > 0, reach, 0.0)
        lower, upper = leaf - reach, leaf + reach
        if low is not None:
            lower = np.maximum(lower, np.minimum(leaf, low))
        if high is not None:
            upper = np.minimum(upper, np.maximum(leaf, high))
        ends[0].append(lower.astype(leaf.dtype))
        ends[1].append(upper.astype(leaf.dtype))
    lower, upper = (tf.nest.pack_sequence_as(batch.features, end) for end in ends)
    return lower, upper
