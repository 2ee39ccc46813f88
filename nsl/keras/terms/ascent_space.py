"""The search space of adversarial neighbors: features, outputs of layers, or both."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import attrs
import tensorflow as tf

from nsl.configs import AdvNeighborConfig
from nsl.keras.clean_pass import Point
from nsl.lib import features as feature_structures
from nsl.lib.masks import joint_mask
from nsl.lib.replicas import largest_of_replicas, sum_over_replicas

# The key, among names of layers, of features that are not a dict.
_FEATURES = "x"


class AscentSpace:
    """The coordinates of an adversarial attack.

    Without perturbed layers, the coordinates are the features. With them, they are a
    dict of the outputs of each layer by name, a list if a layer returns several, plus
    the features if those are perturbed too.

    Attributes:
      start: The coordinates of the samples.
      config: The settings in these coordinates, with padding in the feature mask and
        the range of layers in the clip values.

    Args:
      config: The settings.
      x: The features of the samples.
      protected_keys: Names of features that are not perturbed.
      outputs: By layer name, the outputs that are perturbed.
      tables: By layer name, all possible output vectors of the layer, of shape
        `[entries, d]`, if it has a finite number of them.

    Raises:
      ValueError: If a feature and a layer have the same name.
    """

    def __init__(
        self,
        config: AdvNeighborConfig,
        x: Any,
        protected_keys: Collection[str | None],
        outputs: dict[str, list[tf.Tensor]],
        tables: Mapping[str, tf.Tensor],
    ) -> None:
        self._x = x
        self._perturbs_features = not outputs or config.perturb_features
        features = x
        if isinstance(x, Mapping):
            features = {k: v for k, v in x.items() if k not in protected_keys}
        if not outputs:
            self._layers: dict[str, list[_Coordinates]] = {}
            self.start, self.config = features, config
            return
        self._layers = {
            name: [_Coordinates(o, config, tables.get(name)) for o in tensors]
            for name, tensors in outputs.items()
        }
        self.start = {
            name: _unwrap([part.start for part in parts])
            for name, parts in self._layers.items()
        }
        if self._perturbs_features:
            named = features if isinstance(features, Mapping) else {_FEATURES: features}
            if both := sorted(named.keys() & self.start.keys()):
                raise ValueError(
                    "Features and layers that are perturbed together need different "
                    f"names, but {both} are names of both. Rename the layers."
                )
            self.start |= named
        self.config = self._with_masks_and_ranges(config)

    def point(self, coordinates: Any) -> Point:
        """Returns the input of the base model at a point of the ascent.

        Args:
          coordinates: A structure like `start`.

        Returns:
          All features, and the perturbations of layers.
        """
        perturbations = {
            name: [
                part.perturbation(value)
                for part, value in zip(
                    parts, tf.nest.flatten(coordinates[name]), strict=True
                )
            ]
            for name, parts in self._layers.items()
        }
        if not self._perturbs_features:
            return Point(self._x, perturbations)
        if isinstance(self._x, Mapping):
            named = {k: v for k, v in coordinates.items() if k not in perturbations}
            return Point({**self._x, **named}, perturbations)
        features = coordinates[_FEATURES] if perturbations else coordinates
        return Point(features, perturbations)

    def gradients(self, of_features: Any, of_layers: dict[str, Any] | None) -> Any:
        """Returns the gradients with respect to the coordinates.

        Args:
          of_features: The gradients with respect to the features.
          of_layers: By layer name, the gradients with respect to its outputs, or None.

        Returns:
          The gradients in the structure of `start`, with None where there is none.
        """
        if of_layers is None or not self._layers:
            return self._like_start(of_features)
        found = {
            name: _unwrap(
                [
                    part.gradient(gradient)
                    for part, gradient in zip(parts, of_layers[name], strict=True)
                ]
            )
            for name, parts in self._layers.items()
        }
        if self._perturbs_features:
            features = self._like_start(of_features)
            found |= (
                features if isinstance(features, Mapping) else {_FEATURES: features}
            )
        return found

    def _like_start(self, of_features: Any) -> Any:
        if not isinstance(of_features, Mapping):
            return of_features
        return {k: v for k, v in of_features.items() if k in self.start}

    def _with_masks_and_ranges(self, config: AdvNeighborConfig) -> AdvNeighborConfig:
        """Adds the padding masks and ranges of layers to the settings.

        Padding has no bounds, so that clipping does not move it.
        """
        known: list[_Coordinates | None] = []
        for name in sorted(self.start):
            parts = self._layers.get(name)
            leaves = len(tf.nest.flatten(self.start[name]))
            known += parts if parts is not None else [None] * leaves
        found: dict[str, tuple[str, Callable[..., tf.Tensor], float | None]] = {
            "feature_mask": ("mask", tf.multiply, None),
            "clip_value_min": ("low", tf.maximum, float("-inf")),
            "clip_value_max": ("high", tf.minimum, float("inf")),
        }
        changes = {}
        for setting, (attribute, join, missing) in found.items():
            own = [getattr(part, attribute, None) for part in known]
            given = getattr(config, setting)
            if given is None and all(value is None for value in own):
                continue
            given = feature_structures.spread(given, self.start, setting)
            joined = [
                a if b is None else b if a is None else join(tf.cast(a, b.dtype), b)
                for a, b in zip(given, own, strict=True)
            ]
            if missing is not None:
                joined = [
                    bound if part is None else part.outside_padding(bound, missing)
                    for part, bound in zip(known, joined, strict=True)
                ]
            changes[setting] = tf.nest.pack_sequence_as(self.start, joined)
        return attrs.evolve(config, **changes) if changes else config


class _Coordinates:
    """The coordinates of one output of a layer.

    They are the output itself, or `(output - mean) / deviation`, as Miyato et al.
    (2017, https://arxiv.org/abs/1605.07725, section 3) normalize embeddings.

    Attributes:
      start: The coordinates of the samples' output.
      mask: 0 for padding and 1 for other positions, broadcastable to `start`, or None.
      low: Lower bounds of the coordinates, or None.
      high: Upper bounds of the coordinates, or None.
    """

    def __init__(
        self, output: tf.Tensor, config: AdvNeighborConfig, table: tf.Tensor | None
    ) -> None:
        values = output if output.dtype == tf.float64 else tf.cast(output, tf.float32)
        values = tf.stop_gradient(values)
        self._mean = tf.zeros([], values.dtype)
        self._deviation: tf.Tensor | None = None
        self.mask = self.low = self.high = None
        if (mask := joint_mask(output)) is not None:
            self.mask = tf.expand_dims(tf.cast(mask, values.dtype), -1)
        if config.standardize_layers:
            self._mean, self._deviation = _moments(values, self.mask)
        self.start = self._from_output(values)
        if config.clip_to_layer_range:
            if table is not None:
                table = tf.cast(table, values.dtype)
                low, high = tf.reduce_min(table, 0), tf.reduce_max(table, 0)
            else:
                low, high = _range(values, self.mask)
            self.low, self.high = self._from_output(low), self._from_output(high)

    def outside_padding(self, bound: Any, missing: float) -> Any:
        """Replaces a bound, if there is one, by another value at padding."""
        if bound is None or self.mask is None:
            return bound
        dtype = self.start.dtype
        return tf.where(self.mask > 0, tf.cast(bound, dtype), tf.cast(missing, dtype))

    def perturbation(self, coordinates: tf.Tensor) -> tf.Tensor:
        """Returns the perturbation of the output at the given coordinates."""
        difference = coordinates - self.start
        return difference if self._deviation is None else self._deviation * difference

    def gradient(self, of_output: tf.Tensor | None) -> tf.Tensor | None:
        """Returns the gradient with respect to the coordinates."""
        if of_output is None or self._deviation is None:
            return of_output
        return of_output * self._deviation

    def _from_output(self, output: tf.Tensor) -> tf.Tensor:
        if self._deviation is None:
            return output
        return tf.math.divide_no_nan(output - self._mean, self._deviation)


def _unwrap(parts: list[Any]) -> Any:
    """Returns the only element of a list, or a list of several as it is."""
    return parts[0] if len(parts) == 1 else parts


def _kept(values: tf.Tensor, mask: tf.Tensor | None) -> tuple[tf.Tensor, list[int]]:
    """Returns 0 for padding and 1 for other positions, and the axes of positions."""
    axes = list(range(max(1, values.shape.rank - 1)))
    first = values[..., :1] if values.shape.rank > 1 else values  # type: ignore[index]
    ones = tf.ones_like(first)
    return ones if mask is None else ones * mask, axes


def _moments(values: tf.Tensor, mask: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the mean and standard deviation of each coordinate over all positions.

    For a single position, whose deviation would be 0, it is the root mean square.
    """
    kept, axes = _kept(values, mask)
    count = tf.maximum(sum_over_replicas(tf.reduce_sum(kept, axes)), 1.0)
    mean = sum_over_replicas(tf.reduce_sum(kept * values, axes)) / count
    square = kept * tf.math.squared_difference(values, mean)
    variance = sum_over_replicas(tf.reduce_sum(square, axes)) / count
    size = tf.sqrt(tf.reduce_mean(tf.square(mean)))
    return mean, tf.where(count > 1, tf.sqrt(variance), size)


def _range(values: tf.Tensor, mask: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the smallest and largest value of each coordinate over all positions."""
    kept, axes = _kept(values, mask)
    infinity = tf.constant(float("inf"), values.dtype)
    low = tf.reduce_min(tf.where(kept > 0, values, infinity), axes)
    high = tf.reduce_max(tf.where(kept > 0, values, -infinity), axes)
    return -largest_of_replicas(-low), largest_of_replicas(high)
