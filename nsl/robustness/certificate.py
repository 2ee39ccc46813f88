"""Certified accuracy: examples whose robustness interval bounds prove."""

from typing import Any

import numpy as np

from nsl.attacks.examples import Examples, Limits, split
from nsl.attacks.model_adapter import ModelAdapter
from nsl.configs import NormType
from nsl.lib.interval_bounds import Interval, interval_bounds

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
        # Balls of all norms lie within that of L-infinity.
        box = batch.threat(NormType.INFINITY).enclosing_box()
        output = model.chosen(interval_bounds(model.model, *box))
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
