"""The objectives of graph regularization, one class each."""

from __future__ import annotations

import abc
import dataclasses
import functools
from typing import ClassVar

import tensorflow as tf

from nsl.configs import GraphObjective, GraphRegConfig
from nsl.keras.compiled_losses import OutputLoss
from nsl.keras.terms.named_objective import NamedObjective
from nsl.lib.distances import weighted_sum_and_normalizer
from nsl.lib.graph_losses import (
    neighbor_consistency_loss,
    neighbor_contrastive_loss,
    neighbor_mean_prediction,
)
from nsl.lib.masks import by_position, weights_by_position, without_masked
from nsl.lib.replicas import share_of_mean


@dataclasses.dataclass(frozen=True)
class NeighborOutputs:
    """One output of the model, for the samples of a batch and for their neighbors.

    Attributes:
      samples: The output for the samples, of shape [batch, ..., d].
      neighbors: A list of k tensors like `samples`: the outputs for the first, the
        second, ... neighbor of every sample.
      weights: Edge weights, float32 of shape [batch, k]. 0 marks a missing neighbor.
      from_logits: Whether the output holds logits, according to the compiled loss, or
        else to `transform_fn` of the config.
      binary: Whether each element is a binary classification of its own.
      loss: The compiled loss of the output with its labels, or None.
      masks: For each neighbor, a bool tensor of shape [batch, ...], False where the
        sample or the neighbor is padding. None without padding.
    """

    samples: tf.Tensor
    neighbors: list[tf.Tensor]
    weights: tf.Tensor
    from_logits: bool = False
    binary: bool = False
    loss: OutputLoss | None = None
    masks: list[tf.Tensor] | None = None

    def by_position(self) -> NeighborOutputs:
        """Makes each position a sample of its own, if there is padding.

        Returns:
          Outputs of shape [batch * positions, d], and weights of shape
          [batch * positions, k] that are 0 for padding; without masks, `self`.
        """
        if self.masks is None:
            return self
        weights = [
            weights_by_position(self.weights[:, k], mask)
            for k, mask in enumerate(self.masks)
        ]
        return dataclasses.replace(
            self,
            samples=by_position(self.samples, self.masks[0]),
            neighbors=[by_position(n, self.masks[0]) for n in self.neighbors],
            weights=tf.stack(weights, 1),
            masks=None,
        )

    def padded_with_zeros(self) -> NeighborOutputs:
        """Sets padding to zero, in samples and neighbors.

        Returns:
          Outputs of the same shapes, without masks.
        """
        if self.masks is None:
            return self
        kept = [
            tf.expand_dims(tf.cast(mask, self.samples.dtype), -1) for mask in self.masks
        ]
        pairs = zip(self.neighbors, kept, strict=True)
        return dataclasses.replace(
            self,
            samples=self.samples * kept[0],
            neighbors=[neighbor * kept for neighbor, kept in pairs],
            masks=None,
        )


class GraphLoss(
    NamedObjective, setting="GraphRegConfig.objective", title="graph losses"
):
    """A loss between the outputs of samples and of their neighbors.

    A subclass registers a name for `GraphRegConfig(objective=...)`:

    ```python
    class Farthest(nsl.keras.GraphLoss, objective="farthest"):
        def __call__(self, outputs, config):
            d = [tf.norm(outputs.samples - n, axis=-1) for n in outputs.neighbors]
            d = tf.where(outputs.weights > 0, tf.stack(d, 1), 0.0)
            return self.mean_over_samples(tf.reduce_max(d, 1), outputs.weights)
    ```

    Attributes:
      differentiates_neighbors: Whether gradients flow through the neighbors' outputs.
        If not, neighbors have a forward pass only, with `training=False`.
    """

    differentiates_neighbors: ClassVar[bool] = True

    @abc.abstractmethod
    def __call__(self, outputs: NeighborOutputs, config: GraphRegConfig) -> tf.Tensor:
        """Computes the loss, without the multiplier.

        Under a distribution strategy, the losses of all replicas add up to the loss of
        the global batch. `mean` and `mean_over_samples` take care of that.

        Args:
          outputs: One output of the samples and of their neighbors.
          config: The settings.

        Returns:
          The loss, a scalar.
        """

    @staticmethod
    def mean(total: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """Divides a sum by the count over the global batch.

        Args:
          total: The sum over this replica's part of the batch.
          count: The number of summands, or their total weight, on this replica.

        Returns:
          This replica's share of the mean; 0 if the global count is 0.
        """
        return share_of_mean(total, count)

    @staticmethod
    def mean_over_samples(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Averages over the samples that have a neighbor.

        Args:
          values: Losses of shape [batch], 0 for samples without neighbors.
          weights: Edge weights of shape [batch, k].

        Returns:
          This replica's share of the mean, a scalar.
        """
        has_neighbor = tf.reduce_any(weights > 0, axis=1)
        count = tf.math.count_nonzero(has_neighbor, dtype=values.dtype)
        return GraphLoss.mean(tf.reduce_sum(values), count)


class _Distance(GraphLoss, objective=GraphObjective.DISTANCE):
    def __call__(self, outputs: NeighborOutputs, config: GraphRegConfig) -> tf.Tensor:
        masks, rank = outputs.masks, outputs.samples.shape.rank
        sources, targets, weights = without_masked(
            tf.concat([outputs.samples] * len(outputs.neighbors), 0),
            tf.concat(outputs.neighbors, 0),
            tf.reshape(tf.transpose(outputs.weights), [-1, 1]),
            None if masks is None else tf.concat(masks, 0),
            config.distance_config.sum_over_axis,
        )
        if sources.shape.rank == rank:
            weights = tf.reshape(weights, [-1] + [1] * (rank - 1))
        total, normalizer = weighted_sum_and_normalizer(
            sources, targets, weights, config.distance_config
        )
        if config.distance_config.reduction == "weighted_sum":
            return total
        return self.mean(total, normalizer)


class _Contrastive(GraphLoss, objective=GraphObjective.CONTRASTIVE):
    def __call__(self, outputs: NeighborOutputs, config: GraphRegConfig) -> tf.Tensor:
        outputs = outputs.padded_with_zeros()
        values = neighbor_contrastive_loss(
            outputs.samples,
            tf.stack(outputs.neighbors, 1),
            outputs.weights,
            config.temperature,
        )
        return self.mean_over_samples(values, outputs.weights)


class _Consistency(GraphLoss, objective=GraphObjective.CONSISTENCY):
    differentiates_neighbors = False

    def __call__(self, outputs: NeighborOutputs, config: GraphRegConfig) -> tf.Tensor:
        outputs = outputs.by_position()
        values = neighbor_consistency_loss(
            outputs.samples,
            tf.stack(outputs.neighbors, 1),
            outputs.weights,
            config.sharpening_temperature,
            outputs.from_logits,
            outputs.binary,
            config.distribution_alignment,
        )
        return self.mean_over_samples(values, outputs.weights)


class _Propagation(GraphLoss, objective=GraphObjective.PROPAGATION):
    """The labeled loss of the neighbors' mean prediction, plus the consistency loss."""

    def __call__(self, outputs: NeighborOutputs, config: GraphRegConfig) -> tf.Tensor:
        loss, weights = outputs.loss, outputs.weights
        if loss is None or loss.labels is None:
            raise ValueError(
                "The objective 'propagation' compares the labels of samples with the "
                "predictions for their neighbors, so it needs an output of the model "
                "that compile() received a loss for. Compile with a loss, leave "
                "embedding_layer None, or choose an output_name that has a loss."
            )
        flat = outputs.by_position()
        mean = neighbor_mean_prediction(
            tf.stack(flat.neighbors, 1), flat.weights, flat.from_logits, flat.binary
        )
        mean = tf.reshape(mean, tf.shape(outputs.samples))
        counts = tf.cast(tf.reduce_any(weights > 0, axis=1), mean.dtype)
        if loss.sample_weight is not None:
            counts *= tf.cast(loss.sample_weight, mean.dtype)
        masks = outputs.masks
        kept = functools.reduce(tf.logical_or, masks) if masks else None
        values = tf.cast(loss.per_sample(mean, kept), mean.dtype)
        labeled = self.mean(tf.reduce_sum(counts * values), tf.reduce_sum(counts))
        return labeled + GraphLoss.of(GraphObjective.CONSISTENCY)(outputs, config)
