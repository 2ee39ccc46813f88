"""What an adversarial ascent moves: features of samples, outputs of layers, or both."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import attrs
import tensorflow as tf

from nsl.configs import AdvNeighborConfig
from nsl.keras.passes import Point
from nsl.lib import features as feature_structures
from nsl.lib.keras_internals import mask_of
from nsl.lib.replicas import largest_of_replicas, sum_over_replicas

# Where features that are no dict stand beside outputs of layers.
_FEATURES = "x"


class AscentSpace:
    """The coordinates in which the adversarial neighbors of samples are searched.

    Without layers they are the features. Otherwise they are a dict of the outputs of
    layers by name, a list where a layer returns several, with the features among them
    if these are perturbed too.

    Attributes:
      start: The structure that the ascent moves, at the samples.
      config: Settings in these coordinates: padding is masked, and bounds hold the
        range of layers.

    Args:
      config: The settings.
      x: The features of the samples.
      protected_keys: Features of these names are not moved.
      outputs: By layer name, the outputs that are moved.
      tables: By layer name, the vectors among which the layer chooses, of shape
        `[entries, d]`, if it does.

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
        self._moves_features = not outputs or config.perturb_features
        moved = x
        if isinstance(x, Mapping):
            moved = {k: v for k, v in x.items() if k not in protected_keys}
        if not outputs:
            self._layers: dict[str, list[_Coordinates]] = {}
            self.start, self.config = moved, config
            return
        self._layers = {
            name: [_Coordinates(o, config, tables.get(name)) for o in tensors]
            for name, tensors in outputs.items()
        }
        self.start = {
            name: _alone([part.start for part in parts])
            for name, parts in self._layers.items()
        }
        if self._moves_features:
            named = moved if isinstance(moved, Mapping) else {_FEATURES: moved}
            if both := sorted(named.keys() & self.start.keys()):
                raise ValueError(
                    f"Features and layers are perturbed together, but {both} are names "
                    "of both. Rename the layers."
                )
            self.start |= named
        self.config = self._with_masks_and_ranges(config)

    def point(self, moved: Any) -> Point:
        """Returns what the base model runs on at a point of the ascent.

        Args:
          moved: A structure like `start`.
        """
        moves = {
            name: [
                part.move(value)
                for part, value in zip(parts, tf.nest.flatten(moved[name]), strict=True)
            ]
            for name, parts in self._layers.items()
        }
        if not self._moves_features:
            return Point(self._x, moves)
        if isinstance(self._x, Mapping):
            named = {k: v for k, v in moved.items() if k not in moves}
            return Point({**self._x, **named}, moves)
        return Point(moved[_FEATURES] if moves else moved, moves)

    def gradients(self, of_features: Any, of_layers: dict[str, Any] | None) -> Any:
        """Returns gradients with respect to what the ascent moves.

        Args:
          of_features: The gradients with respect to the features.
          of_layers: By layer name, those with respect to its outputs.

        Returns:
          The gradients in the structure of `start`; None where there is none.
        """
        if of_layers is None or not self._layers:
            return self._like_start(of_features)
        found = {
            name: _alone(
                [
                    part.gradient(gradient)
                    for part, gradient in zip(parts, of_layers[name], strict=True)
                ]
            )
            for name, parts in self._layers.items()
        }
        if self._moves_features:
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
        """Adds what the layers know to what the settings say."""
        known: list[_Coordinates | None] = []
        for name in sorted(self.start):
            parts = self._layers.get(name)
            leaves = len(tf.nest.flatten(self.start[name]))
            known += parts if parts is not None else [None] * leaves
        found: dict[str, tuple[str, Callable[..., tf.Tensor]]] = {
            "feature_mask": ("mask", tf.multiply),
            "clip_value_min": ("low", tf.maximum),
            "clip_value_max": ("high", tf.minimum),
        }
        changes = {}
        for setting, (attribute, join) in found.items():
            own = [getattr(part, attribute, None) for part in known]
            if all(value is None for value in own):
                continue
            given = getattr(config, setting)
            given = feature_structures.spread(given, self.start, setting)
            joined = [
                a if b is None else b if a is None else join(tf.cast(a, b.dtype), b)
                for a, b in zip(given, own, strict=True)
            ]
            changes[setting] = tf.nest.pack_sequence_as(self.start, joined)
        return attrs.evolve(config, **changes) if changes else config


class _Coordinates:
    """The coordinates of one output of a layer.

    They are the output itself, or `(output - mean) / deviation`, as Miyato et al.
    (2017, https://arxiv.org/abs/1605.07725, section 3) normalize embeddings.

    Attributes:
      start: The coordinates of the output.
      mask: 1 for what is moved and 0 for padding, broadcastable to `start`, or None.
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
        if (
            mask := mask_of(output)
        ) is not None and mask.shape.rank < output.shape.rank:
            shape = [
                *tf.unstack(tf.shape(mask)),
                *[1] * (output.shape.rank - mask.shape.rank),
            ]
            self.mask = tf.reshape(tf.cast(mask, values.dtype), shape)
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

    def move(self, moved: tf.Tensor) -> tf.Tensor:
        """Returns what these coordinates add to the output."""
        move = moved - self.start
        return move if self._deviation is None else self._deviation * move

    def gradient(self, of_output: tf.Tensor | None) -> tf.Tensor | None:
        """Returns the gradient with respect to the coordinates."""
        if of_output is None or self._deviation is None:
            return of_output
        return of_output * self._deviation

    def _from_output(self, output: tf.Tensor) -> tf.Tensor:
        if self._deviation is None:
            return output
        return tf.math.divide_no_nan(output - self._mean, self._deviation)


def _alone(parts: list[Any]) -> Any:
    """Returns the only one of a list, or a list of several."""
    return parts[0] if len(parts) == 1 else parts


def _kept(values: tf.Tensor, mask: tf.Tensor | None) -> tuple[tf.Tensor, list[int]]:
    """Returns 1 for positions that count, and the axes of positions."""
    axes = list(range(max(1, values.shape.rank - 1)))
    ones = tf.ones_like(values[..., :1] if values.shape.rank > 1 else values)
    return ones if mask is None else ones * mask, axes


def _moments(values: tf.Tensor, mask: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes mean and standard deviation of each coordinate over all positions.

    Of a single position, which does not vary, the deviation is its root mean square.
    """
    kept, axes = _kept(values, mask)
    count = tf.maximum(sum_over_replicas(tf.reduce_sum(kept, axes)), 1.0)
    mean = sum_over_replicas(tf.reduce_sum(kept * values, axes)) / count
    square = kept * tf.math.squared_difference(values, mean)
    variance = sum_over_replicas(tf.reduce_sum(square, axes)) / count
    size = tf.sqrt(tf.reduce_mean(tf.square(mean)))
    return mean, tf.where(count > 1, tf.sqrt(variance), size)


def _range(values: tf.Tensor, mask: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the least and the largest value of each coordinate over all positions."""
    kept, axes = _kept(values, mask)
    infinity = tf.constant(float("inf"), values.dtype)
    low = tf.reduce_min(tf.where(kept > 0, values, infinity), axes)
    high = tf.reduce_max(tf.where(kept > 0, values, -infinity), axes)
    return -largest_of_replicas(-low), largest_of_replicas(high)
