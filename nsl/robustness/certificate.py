"""Certified accuracy: examples whose robustness interval bounds prove."""

from typing import Any

import numpy as np
import tensorflow as tf

from nsl.attacks.examples import Batch, Examples, Limits, split
from nsl.attacks.model_adapter import ModelAdapter
from nsl.configs import NormType
from nsl.lib.interval_bounds import Interval, interval_bounds
from nsl.lib.threat_model import ThreatModel

# The margin for rounding errors in a proof, as a share of the largest logit difference.
_ROUNDING = 1e-5


def certified(
    model: ModelAdapter, examples: Examples, limits: Limits, labels: Any, size: int
) -> np.ndarray:
    """Returns which examples are proven robust to every point of the ball.

    Args:
      model: A sequential or functional Keras classifier; see `nsl.lib.interval_bounds`.
      examples: The examples.
      limits: The radius, bounds and mask of each example.
      labels: The true classes.
      size: The number of examples per batch.

    Returns:
      A bool array of shape [examples]. False proves nothing.

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
    """Returns the box of all points that an attack may return."""
    limits = batch.limits
    threat = ThreatModel(
        tf.nest.map_structure(tf.convert_to_tensor, batch.features),
        NormType.INFINITY,
        radius=limits.radius,
        scale=[1.0 if scale is None else scale for scale in limits.scale],
        low=limits.low,
        high=limits.high,
        mask=limits.mask,
    )
    return threat.enclosing_box()
