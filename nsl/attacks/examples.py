"""The examples of one attack on the host, handed out in batches."""

import functools
from typing import Any

import numpy as np
import tensorflow as tf

from nsl.lib import feature_mask as masks
from nsl.lib import features as feature_structures

Tensors = dict[str, Any]


class Examples:
    """Everything that is given for examples or for all of them alike.

    Tensors go to compiled functions as one flat dict: the i-th leaf of the features is
    "x/i", its bounds "low/i" and "high/i", its mask "mask/i".

    Attributes:
      count: The number of examples.
      leaves: The leaves of the features, arrays with the batch as first axis.
      structure: The structure of the features.
      fixed: What is the same for all examples.

    Args:
      x: A structure of arrays or tensors with the batch as first axis.
      bounds: Lower and upper bound, numbers or structures of arrays, or None.
      feature_mask: A number or a structure of arrays, or None.

    Raises:
      ValueError: If there are no examples, no feature can be perturbed, numbers of
        examples differ, or bounds or mask do not fit.
    """

    def __init__(self, x: Any, bounds: Any, feature_mask: Any) -> None:
        self.structure = tf.nest.map_structure(lambda _: 0, x)
        self.leaves = [_on_host(leaf) for leaf in tf.nest.flatten(x)]
        arranged = tf.nest.pack_sequence_as(self.structure, self.leaves)
        counts = {len(leaf) if leaf.ndim else 0 for leaf in self.leaves}
        if len(counts) != 1 or counts == {0}:
            raise ValueError(
                "x must hold at least one example, with the batch as first axis of "
                "every feature, but received shapes "
                f"{[leaf.shape for leaf in self.leaves]}."
            )
        [self.count] = counts
        if not any(map(feature_structures.is_perturbable, self.leaves)):
            raise ValueError(feature_structures.nothing_to_perturb(arranged))
        low, high = _pair(bounds)
        self.fixed: Tensors = {}
        self._batched: Tensors = {f"x/{i}": leaf for i, leaf in enumerate(self.leaves)}
        for key, what, value in (
            ("low", "bounds[0]", low),
            ("high", "bounds[1]", high),
            ("mask", "feature_mask", feature_mask),
        ):
            self._add_per_feature(key, what, value, arranged)
        self._check_order()

    def add(self, key: str, values: Any) -> None:
        """Adds what is given for each example.

        Args:
          key: The name it goes by.
          values: An array with the batch as first axis.

        Raises:
          ValueError: If it is not of as many examples.
        """
        values = np.asarray(values)
        if not values.ndim or len(values) != self.count:
            raise ValueError(
                f"{key} must have one entry for each of the {self.count} examples, but "
                f"has shape {values.shape}."
            )
        self._batched[key] = values

    def first(self, count: int) -> Any:
        """Returns the features of the first `count` examples, repeated if need be."""
        rows = np.arange(count) % self.count
        leaves = [tf.convert_to_tensor(leaf[rows]) for leaf in self.leaves]
        return tf.nest.pack_sequence_as(self.structure, leaves)

    def take(self, indices: np.ndarray) -> Tensors:
        """Returns the tensors of some examples.

        Args:
          indices: Which, an integer array.

        Returns:
          Arrays with the batch as first axis.
        """
        start, stop = indices[0], indices[-1] + 1
        if np.array_equal(indices, np.arange(start, stop)):
            return {key: value[start:stop] for key, value in self._batched.items()}
        return {key: value[indices] for key, value in self._batched.items()}

    def _add_per_feature(self, key: str, what: str, value: Any, arranged: Any) -> None:
        dtypes = [
            tf.float64 if leaf.dtype == np.float64 else tf.float32
            for leaf in self.leaves
        ]
        parts = feature_structures.spread_tensors(value, arranged, what, dtypes)
        for i, (part, leaf) in enumerate(zip(parts, self.leaves, strict=True)):
            if part is None:
                continue
            if key == "mask":
                part = masks.in_unit_interval(part)
            array = part.numpy()
            per_example = array.ndim == leaf.ndim and len(array) == self.count
            tensors = self._batched if per_example else self.fixed
            tensors[f"{key}/{i}"] = array

    def _check_order(self) -> None:
        known = self._batched | self.fixed
        for i in range(len(self.leaves)):
            low, high = known.get(f"low/{i}"), known.get(f"high/{i}")
            if low is not None and high is not None and np.any(low > high):
                raise ValueError(
                    "bounds must be a pair (low, high) with low <= high throughout, "
                    f"but received low up to {np.max(low)} and high down to "
                    f"{np.min(high)}."
                )


def split(count: int, size: int) -> list[slice]:
    """Cuts a range into pieces of at most `size`."""
    return [slice(i, min(i + size, count)) for i in range(0, count, size)]


def padded_size(count: int, size: int, smallest: int) -> int:
    """Returns the size of batch to compile for that `count` examples fit into.

    Args:
      count: The number of examples, at most `size`.
      size: The size of a full batch.
      smallest: The smallest size to compile for.

    Returns:
      `size`, or a quarter of it, or a quarter of that and so on.
    """
    while size // 4 >= max(count, smallest):
        size //= 4
    return size


def pad(tensors: Tensors, count: int) -> Tensors:
    """Repeats the first example until there are `count`."""
    grow = functools.partial(_grown, count=count)
    return {key: grow(value) for key, value in tensors.items()}


def _grown(values: Any, count: int) -> Any:
    missing = count - len(values)
    if not missing:
        return values
    return np.concatenate([values, np.repeat(values[:1], missing, axis=0)])


def _on_host(leaf: Any) -> np.ndarray:
    if isinstance(leaf, tf.RaggedTensor | tf.SparseTensor):
        raise ValueError(
            f"Attacks take dense features, but received a {type(leaf).__name__}. "
            "Convert it with to_tensor() or tf.sparse.to_dense."
        )
    return leaf.numpy() if tf.is_tensor(leaf) else np.asarray(leaf)


def _pair(bounds: Any) -> tuple[Any, Any]:
    if bounds is None:
        return None, None
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        raise ValueError(
            "bounds must be a pair (low, high), each a number or a structure of arrays "
            f"keyed by feature or None, but received {bounds!r}."
        )
    return bounds[0], bounds[1]
