"""Examples and labels as NumPy arrays, and how far attacked ones may be from them."""

from typing import Any

import numpy as np
import tensorflow as tf

from nsl.configs import NormType
from nsl.lib import features as feature_structures
from nsl.lib.features import is_perturbable

_ORDERS = {NormType.L1: 1, NormType.L2: 2, NormType.INFINITY: np.inf}
_RELATIVE_TOLERANCE = 1e-4
_TOLERANCE = 1e-5


class Examples:
    """Examples with labels, and the bounds that attacked ones must keep.

    Args:
      x: An array or tensor, or a structure of them, with the examples as first axis.
      y: Class numbers, of shape [examples] or [examples, 1], or one-hot rows.
      bounds: `(low, high)`, each a number, an array, or a structure of them keyed by
        feature; or None.

    Attributes:
      x: The examples as NumPy arrays.
      labels: The labels, int64 of shape [examples].

    Raises:
      ValueError: If there are no examples, features and labels are not as many, or
        labels are not class numbers.
    """

    def __init__(self, x: Any, y: Any, bounds: Any = None) -> None:
        self.x = tf.nest.map_structure(np.asarray, x)
        y = np.atleast_1d(y)
        sizes = {len(leaf) for leaf in tf.nest.flatten(self.x)}
        if sizes != {len(y)} or not len(y):
            raise ValueError(
                "x and y must hold the same number of examples, at least one, but "
                f"received {sorted(sizes)} in x and {len(y)} in y."
            )
        self.labels = _labels(y)
        low, high = (None, None) if bounds is None else bounds
        self._low = self._spread(low, "bounds (low)")
        self._high = self._spread(high, "bounds (high)")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> Any:
        """Returns the features of some examples.

        Args:
          index: Their numbers, or one boolean for each example.

        Returns:
          A structure like `x`.
        """
        return tf.nest.map_structure(lambda leaf: leaf[index], self.x)

    def excess(self) -> float:
        """Returns by how much an example lies out of the bounds at most, at least 0."""
        parts = zip(self._leaves(self.x), self._low, self._high, strict=True)
        return max(
            max(float(np.max(low - leaf)), float(np.max(leaf - high)), 0.0)
            for leaf, low, high in parts
        )

    def diameter(self, norm: NormType) -> float:
        """Returns a radius that reaches from any example to any other.

        Args:
          norm: The norm.

        Returns:
          The norm of the widths of the bounds or, where there are none, of the box
          around all examples.
        """
        widths = []
        for leaf, low, high in zip(
            self._leaves(self.x), self._low, self._high, strict=True
        ):
            least = np.min(np.where(np.isfinite(low), np.minimum(low, leaf), leaf), 0)
            most = np.max(np.where(np.isfinite(high), np.maximum(high, leaf), leaf), 0)
            widths.append(np.ravel(most - least))
        return float(np.linalg.norm(np.concatenate(widths), _ORDERS[norm]))

    def outside(
        self, attacked: Any, index: np.ndarray, epsilon: float, norm: NormType
    ) -> np.ndarray:
        """Tells which attacked examples are not where an attack may go.

        Args:
          attacked: Features of attacked examples.
          index: The numbers of these examples.
          epsilon: The radius of the ball.
          norm: The norm of the ball.

        Returns:
          Whether each is out of the ball or the bounds by more than rounding, or not
          finite, or changed where it cannot be; bool of shape [len(index)].
        """
        clean, moved = self.take(index), tf.nest.map_structure(np.asarray, attacked)
        outside = np.zeros(len(index), bool)
        for before, after in zip(
            tf.nest.flatten(clean), tf.nest.flatten(moved), strict=True
        ):
            if not is_perturbable(before):
                outside |= np.any(_rows(before != after), axis=1)
        before, after = self._leaves(clean), self._leaves(moved)
        changes = [_rows(b) - _rows(a) for a, b in zip(before, after, strict=True)]
        lengths = np.linalg.norm(np.concatenate(changes, 1), _ORDERS[norm], axis=1)
        outside |= ~(lengths <= epsilon * (1 + _RELATIVE_TOLERANCE) + _TOLERANCE)
        for a, b, low, high in zip(before, after, self._low, self._high, strict=True):
            # An example that is out of bounds itself may stay where it is.
            below = b < np.minimum(a, low[index]) - _TOLERANCE
            above = b > np.maximum(a, high[index]) + _TOLERANCE
            outside |= np.any(_rows(below | above), axis=1)
        return outside

    def _leaves(self, structure: Any) -> list[np.ndarray]:
        """Lists the leaves that can be perturbed."""
        leaves = zip(tf.nest.flatten(self.x), tf.nest.flatten(structure), strict=True)
        return [leaf.astype(np.float64) for own, leaf in leaves if is_perturbable(own)]

    def _spread(self, bound: Any, what: str) -> list[np.ndarray]:
        leaves = tf.nest.flatten(self.x)
        spread = feature_structures.spread_tensors(
            bound, self.x, what, [tf.float64] * len(leaves)
        )
        missing = -np.inf if what.endswith("(low)") else np.inf
        return [
            np.broadcast_to(missing if value is None else value, leaf.shape)
            for value, leaf in zip(spread, leaves, strict=True)
            if is_perturbable(leaf)
        ]


def _labels(y: np.ndarray) -> np.ndarray:
    one_hot = y.ndim == 2 and y.shape[1] > 1
    if one_hot and np.all((y == 0) | (y == 1)) and np.all(y.sum(axis=1) == 1):
        return np.argmax(y, axis=1)
    flat = y.reshape(len(y), -1)
    if flat.shape[1] != 1 or not np.all(flat == np.round(flat)) or np.any(flat < 0):
        raise ValueError(
            "y must hold class numbers, of shape [examples] or [examples, 1], or "
            f"one-hot rows, but received {y.dtype.name} of shape {y.shape}."
        )
    return flat[:, 0].astype(np.int64)


def _rows(leaf: np.ndarray) -> np.ndarray:
    return leaf.reshape(len(leaf), -1)
