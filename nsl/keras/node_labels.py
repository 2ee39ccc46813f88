"""Labels of some of the nodes of a graph, checked for `nsl.keras.few_labels`."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from nsl.data.feature_rows import plain_array

Floats = npt.NDArray[np.float32]


def node_weights(sample_weight: Any, nodes: int) -> Floats:
    """Checks the sample weights of nodes.

    Args:
      sample_weight: Numbers or booleans of shape [nodes] or [nodes, 1], or None for
        ones.
      nodes: The number of nodes.

    Returns:
      The weights, float32 of shape [nodes].

    Raises:
      ValueError: If the shape is wrong, or a weight is negative or not finite.
    """
    if sample_weight is None:
        return np.ones(nodes, np.float32)
    weights = plain_array(sample_weight, "sample_weight").astype(np.float32)
    if weights.shape not in ((nodes,), (nodes, 1)):
        raise ValueError(
            f"sample_weight must have shape ({nodes},), one number for each node, but "
            f"has shape {weights.shape}."
        )
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError("sample_weight must be finite and not negative.")
    return weights.reshape(nodes)


@dataclasses.dataclass(frozen=True, eq=False)
class NodeLabels:
    """The known labels of a graph's nodes.

    Attributes:
      y: The class of each node, -1 if unknown, int64 of shape [nodes].
      weight: The sample weights, 0 for nodes that are not labeled; shape [nodes].
      labeled: The rows of the labeled nodes, which are trained on.
      validation: The rows of the validation nodes.
      classes: The number of classes.
    """

    y: npt.NDArray[np.int64]
    weight: Floats
    labeled: npt.NDArray[np.intp]
    validation: npt.NDArray[np.intp]
    classes: int

    @classmethod
    def of(
        cls, y: Any, sample_weight: Any, validation: Any, nodes: int, classes: int
    ) -> NodeLabels:
        """Checks labels, sample weights and the choice of validation nodes.

        Args:
          y: Integers of shape [nodes] or [nodes, 1], read only for labeled and
            validation nodes.
          sample_weight: See `node_weights`.
          validation: Booleans of shape [nodes], or None for no validation nodes.
          nodes: The number of nodes.
          classes: The number of classes.

        Returns:
          The labels.

        Raises:
          ValueError: If a shape or dtype is wrong, a label is out of range, a
            validation node has a nonzero weight, or no node is labeled.
        """
        values = plain_array(y, "y")
        if values.shape not in ((nodes,), (nodes, 1)) or values.dtype.kind not in "biu":
            raise ValueError(
                f"y must be integers of shape ({nodes},), the class of each node, but "
                f"is {values.dtype} of shape {values.shape}."
            )
        weight = node_weights(sample_weight, nodes)
        is_labeled = weight > 0
        validates = np.zeros(nodes, bool)
        if validation is not None:
            validates = plain_array(validation, "validation")
            if validates.dtype != bool or validates.shape != (nodes,):
                raise ValueError(
                    f"validation must be booleans of shape ({nodes},), True for "
                    f"validation nodes, but is {validates.dtype} of shape "
                    f"{validates.shape}."
                )
        if (validates & is_labeled).any():
            row = np.flatnonzero(validates & is_labeled)[0]
            raise ValueError(
                f"Node {row} is a validation node, but has sample_weight "
                f"{weight[row]}: set sample_weight to 0 for validation nodes."
            )
        if not is_labeled.any():
            raise ValueError("No node is labeled: every sample_weight is 0.")
        is_known = is_labeled | validates
        known = np.where(is_known, values.reshape(nodes).astype(int), -1)
        wrong = is_known & ((known < 0) | (known >= classes))
        if wrong.any():
            row = np.flatnonzero(wrong)[0]
            raise ValueError(
                f"The model has {classes} classes, 0 to {classes - 1}, but y of node "
                f"{row} is {known[row]}. If its label is unknown, set its "
                "sample_weight to 0."
            )
        return cls(
            known, weight, np.flatnonzero(weight), np.flatnonzero(validates), classes
        )

    @property
    def one_hot(self) -> Floats:
        """One-hot labels of shape [nodes, classes]; zeros for unlabeled nodes."""
        rows = np.zeros((len(self.y), self.classes), np.float32)
        rows[self.labeled, self.y[self.labeled]] = 1
        return rows

    @property
    def shares(self) -> Floats:
        """The share of each class in the total weight of the labeled nodes."""
        return self.weight @ self.one_hot / self.weight.sum()
