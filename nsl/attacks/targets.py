"""Labels and targets of attacks, as classes on the host."""

from typing import Any

import numpy as np
import tensorflow as tf

from nsl import configs
from nsl.lib.targets import get_target_indices


def as_classes(y: Any, classes: int, what: str) -> np.ndarray:
    """Returns labels as classes.

    Args:
      y: Integers (of any dtype) of shape [batch] or [batch, 1], or one-hot of shape
        [batch, classes].
      classes: The number of classes.
      what: What they are, for messages.

    Returns:
      An array of shape [batch], int32.

    Raises:
      ValueError: If they are nothing of the kind.
    """
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == classes and classes > 1:
        labels = labels.argmax(axis=1)
    elif labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    numeric = labels.ndim == 1 and labels.dtype.kind in "iufb"
    if not numeric or np.any(labels != np.floor(labels)):
        raise ValueError(
            f"{what} must be classes, integers of shape [batch] or one-hot of shape "
            f"[batch, {classes}], but received {labels.dtype.name} of shape "
            f"{np.shape(y)}."
        )
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(
            f"{what} must be classes from 0 to {classes - 1}, for the model has "
            f"{classes} outputs, but their range is [{labels.min()}, {labels.max()}]."
        )
    return labels.astype(np.int32)


def choose_targets(
    logits: np.ndarray, labels: np.ndarray, config: configs.AdvTargetConfig
) -> np.ndarray | None:
    """Chooses the class to reach among those that are not the true one.

    Args:
      logits: The clean logits, of shape [batch, classes].
      labels: The true classes, of shape [batch].
      config: How the class is chosen.

    Returns:
      The classes, of shape [batch], int32; None for the ground truth, for then any
      other class will do.
    """
    method = config.target_method
    if method is configs.AdvTargetType.GROUND_TRUTH:
        return None
    if method is configs.AdvTargetType.RANDOM:
        seed = int(config.random_seed)
        # One class fewer than there are, and then those from the true one on are
        # counted one further.
        others = np.random.default_rng(abs(seed)).integers(
            logits.shape[1] - 1, size=len(labels), dtype=np.int32
        )
        return others + (others >= labels).astype(np.int32)
    # The true class comes first: it is neither the second likeliest nor the least.
    ranked = np.array(logits)
    ranked[np.arange(len(labels)), labels] = np.inf
    chosen = get_target_indices(tf.constant(ranked), labels, config)
    return chosen.numpy().astype(np.int32)


def likeliest_wrong(logits: np.ndarray, labels: np.ndarray, rank: int) -> np.ndarray:
    """Returns the wrong class of a rank.

    Args:
      logits: The clean logits, of shape [batch, classes].
      labels: The true classes, of shape [batch].
      rank: 0 for the likeliest wrong class, 1 for the next, and so on.

    Returns:
      The classes, of shape [batch], int32.
    """
    ranked = np.array(logits)
    ranked[np.arange(len(labels)), labels] = -np.inf
    order = np.argsort(-ranked, axis=1, kind="stable")
    return order[:, rank].astype(np.int32)
