"""Labels and target classes of attacks, as NumPy arrays."""

from typing import Any

import numpy as np
import tensorflow as tf

from nsl import configs
from nsl.lib.targets import get_target_indices


def read_classes(y: Any, classes: int, what: str = "y") -> np.ndarray:
    """Converts labels to class indices, int32 of shape [batch].

    Args:
      y: Integers (of any dtype) of shape [batch] or [batch, 1], or one-hot rows of
        shape [batch, classes].
      classes: The number of classes; 0 if unknown.
      what: The name of the labels, for messages.

    Returns:
      The class indices.

    Raises:
      ValueError: If the labels have another form, or a class does not exist.
    """
    labels = np.asarray(y)
    expected = (
        f"{what} must be classes: integers of shape [examples] or [examples, 1], or "
        f"one-hot rows of shape [examples, {classes or 'classes'}], but received "
        f"{labels.dtype.name} of shape {labels.shape}"
    )
    if labels.dtype.kind not in "iufb" and labels.dtype.name != "bfloat16":
        raise ValueError(f"{expected}. Map the labels to integers from 0.")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and classes in (0, labels.shape[1]):
        if not is_one_hot(labels):
            raise ValueError(
                f"{expected}, in which row {int(np.argmin(_one_hot_rows(labels)))} is "
                "not one-hot. For a multi-label model, pass a loss and a criterion."
            )
        labels = labels.argmax(axis=1)
    labels = labels.astype(np.float64)
    if labels.ndim != 1 or not np.array_equal(labels, np.floor(labels)):
        raise ValueError(
            f"{expected}. For regression, pass "
            "criterion=nsl.robustness.Within(tolerance) to evaluate_robustness."
        )
    if labels.size and (labels.min() < 0 or (classes and labels.max() >= classes)):
        wrong = int(np.argmax((labels < 0) | (labels >= (classes or np.inf))))
        raise ValueError(
            f"{what} must be classes from 0 to {classes - 1 if classes else '...'}"
            f"{f', as the model has {classes}' if classes else ''}, but example "
            f"{wrong} has class {labels[wrong]:g}."
        )
    return labels.astype(np.int32)


def numbers_as_array(values: Any) -> Any:
    """Converts nested lists of numbers to an array; returns anything else unchanged."""
    leaves = tf.nest.flatten(values)
    plain = all(isinstance(leaf, int | float | str | np.generic) for leaf in leaves)
    return np.asarray(values) if plain and isinstance(values, list | tuple) else values


def is_one_hot(values: np.ndarray) -> bool:
    """Returns whether every row contains a single 1 and otherwise zeros."""
    return bool(np.all(_one_hot_rows(values)))


def _one_hot_rows(values: np.ndarray) -> np.ndarray:
    binary = np.all((values == 0) | (values == 1), axis=1)
    return binary & (np.sum(values == 1, axis=1) == 1)


def choose_targets(
    logits: np.ndarray, labels: np.ndarray, config: configs.AdvTargetConfig
) -> np.ndarray | None:
    """Returns the target classes, int32 of shape [batch], never the true ones.

    Args:
      logits: An array of shape [batch, classes].
      labels: The true classes, of shape [batch].
      config: How to choose.

    Returns:
      The target classes; None for the ground truth, which means an untargeted attack.
    """
    method = config.target_method
    if method is configs.AdvTargetType.GROUND_TRUTH:
        return None
    if method is configs.AdvTargetType.RANDOM:
        seed = int(config.random_seed or 0)
        # Draw from one class fewer, then shift classes from the true one up by one.
        others = np.random.default_rng(abs(seed)).integers(
            logits.shape[1] - 1, size=len(labels), dtype=np.int32
        )
        return others + (others >= labels).astype(np.int32)
    # Rank the true class first, so it is neither the second likeliest nor the least.
    ranked = np.array(logits)
    ranked[np.arange(len(labels)), labels] = np.inf
    chosen = get_target_indices(tf.constant(ranked), labels, config)
    return chosen.numpy().astype(np.int32)


def likeliest_wrong(logits: np.ndarray, labels: np.ndarray, rank: int) -> np.ndarray:
    """Returns the wrong class of a rank, 0 for the likeliest; int32 of shape [batch].

    Args:
      logits: An array of shape [batch, classes].
      labels: The true classes, of shape [batch].
      rank: The rank among the wrong classes.
    """
    ranked = np.array(logits)
    ranked[np.arange(len(labels)), labels] = -np.inf
    order = np.argsort(-ranked, axis=1, kind="stable")
    return order[:, rank].astype(np.int32)
