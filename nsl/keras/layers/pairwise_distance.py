"""A layer that computes the distance between samples and their neighbors."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from nsl.configs import DistanceConfig, serialization
from nsl.lib.distances import pairwise_distance_wrapper
from nsl.lib.keras_internals import keep_mask, mask_of
from nsl.lib.masks import joint_mask, without_masked
from nsl.lib.neighbor_features import replicate_embeddings


@keras.saving.register_keras_serializable(package="nsl")
class PairwiseDistance(keras.layers.Layer):
    """Computes the distance between samples and their neighbors.

    Each sample is compared with each of its k neighbors. The neighbors are either
    merged into the batch axis, sample by sample, or have an axis of their own, -2.
    Positions that the mask of a sample or neighbor marks as padding are left out.

    ```python
    distance = nsl.keras.layers.PairwiseDistance(
        nsl.configs.DistanceConfig(sum_over_axis=-1))
    graph_loss = distance(base(samples), base(neighbors), weights)
    ```

    Args:
      distance_config: The distance and its reduction, by default `DistanceConfig()`.
      **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(
        self, distance_config: DistanceConfig | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self._distance_config = distance_config or DistanceConfig()

    def __call__(
        self, sources: Any, targets: Any = None, weights: Any = 1.0, **kwargs: Any
    ) -> Any:
        """Computes the distance, with the arguments of `call` and of a Keras layer."""
        # Keras requires positional arguments to be tensors. Weights may be a number.
        if targets is None:
            return super().__call__(sources, weights=weights, **kwargs)
        return super().__call__(sources, targets, weights=weights, **kwargs)

    def call(self, sources: Any, targets: Any = None, weights: Any = 1.0) -> tf.Tensor:
        """Computes the distance.

        Args:
          sources: Outputs for the samples, of shape `[batch, ..., d]`; or a tuple
            `(sources, targets)` or `(sources, targets, weights)`.
          targets: Outputs for the neighbors, of shape `[batch * k, ..., d]` or
            `[batch, ..., k, d]`.
          weights: Edge weights: a number, or a tensor of shape `[batch * k, 1]` or
            `[batch, k, 1]`, broadcastable to the distances.

        Returns:
          The distance: a scalar, or one value per pair with reduction 'none'.

        Raises:
          ValueError: If there are no targets.
        """
        if targets is None:
            if not isinstance(sources, list | tuple) or len(sources) not in (2, 3):
                raise ValueError(
                    "PairwiseDistance needs sources and targets: expected "
                    "(sources, targets) or (sources, targets, weights), but received "
                    f"{sources!r}."
                )
            sources, targets, *rest = sources
            weights = rest[0] if rest else weights
        replicated, mask = self._replicated(sources, targets), None
        if targets.shape.rank == sources.shape.rank:
            if mask_of(sources) is not None:
                times = tf.shape(targets)[0] // tf.shape(sources)[0]
                keep_mask(replicated, replicate_embeddings(mask_of(sources), times))
            mask = joint_mask(replicated, targets)
        sources, targets, weights = without_masked(
            replicated, targets, weights, mask, self._distance_config.sum_over_axis
        )
        return pairwise_distance_wrapper(
            sources, targets, weights=weights, distance_config=self._distance_config
        )

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Returns None: a distance has no mask."""

    def _replicated(self, sources: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Repeats each source for each of its targets."""
        if targets.shape.rank == sources.shape.rank + 1:
            return tf.broadcast_to(tf.expand_dims(sources, -2), tf.shape(targets))
        return replicate_embeddings(
            sources, tf.shape(targets)[0] // tf.shape(sources)[0]
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, serialized."""
        return {
            **super().get_config(),
            "distance_config": serialization.to_dict(self._distance_config),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PairwiseDistance:
        """Creates the layer from the result of `get_config`."""
        config = dict(config)
        distance_config = serialization.from_dict(
            DistanceConfig, config.pop("distance_config")
        )
        return cls(distance_config, **config)
