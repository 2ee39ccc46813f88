"""What graph regularization can minimize: one class for each objective."""

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
    """One output of the samples of a batch, and the same of their neighbors.

    Attributes:
      samples: The output for the samples, of shape [batch, ...], of rank 2 or more.
      neighbors: For each of the k neighbors of a sample, a tensor like `samples`.
      weights: Weights of the edges, float32 of shape [batch, k]. 0 masks a neighbor.
      from_logits: Whether the output holds logits, as the compiled loss says, or if
        that does not tell, the transform of the config.
      binary: Whether each element of it is the probability of a yes by itself.
      loss: The compiled loss of the output with its labels, if there is one.
      masks: For each neighbor which positions count in the sample and in it, bool of
        shape [batch, ...], or None if all do.
    """

    samples: tf.Tensor
    neighbors: list[tf.Tensor]
    weights: tf.Tensor
    from_logits: bool = False
    binary: bool = False
    loss: OutputLoss | None = None
    masks: list[tf.Tensor] | None = None

    def by_position(self) -> NeighborOutputs:
        """Makes each position a sample of its own, if some do not count.

        Returns:
          Outputs of shape [positions, d] and weights of shape [positions, k], which are
          0 where a position is masked; without masks these outputs themselves.
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
        """Zeroes what is masked, in the sample and in its neighbors alike."""
        if self.masks is None:
            return self
        kept = [tf.cast(mask, self.samples.dtype)[..., None] for mask in self.masks]
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
    """A loss of samples and their neighbors.

    A subclass names its objective, and `GraphRegConfig(objective=...)` takes it:

    ```python
    class Farthest(nsl.keras.GraphLoss, objective="farthest"):
        def __call__(self, outputs, config):
            away = [tf.norm(outputs.samples - n, axis=-1) for n in outputs.neighbors]
            away = tf.where(outputs.weights > 0, tf.stack(away, 1), 0.0)
            return self.mean_over_samples(tf.reduce_max(away, 1), outputs.weights)
    ```

    Attributes:
      differentiates_neighbors: Whether gradients go through the outputs of neighbors.
        If not, neighbors are run forward only, with `training=False`.
    """

    differentiates_neighbors: ClassVar[bool] = True

    @abc.abstractmethod
    def __call__(self, outputs: NeighborOutputs, config: GraphRegConfig) -> tf.Tensor:
        """Computes the loss.

        With several replicas it is this replica's share of the loss of the global
        batch, as `mean` and `mean_over_samples` compute it.

        Args:
          outputs: One output of the samples and of their neighbors.
          config: The settings.

        Returns:
          A scalar.
        """

    @staticmethod
    def mean(total: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """Divides a sum by the count of the global batch.

        Args:
          total: This replica's sum.
          count: How many this replica adds to the count, or how much weight.

        Returns:
          This replica's share of the mean, 0 if there is nothing to count.
        """
        return share_of_mean(total, count)

    @staticmethod
    def mean_over_samples(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Averages over the samples that have a neighbor.

        Args:
          values: One loss a sample, of shape [batch], 0 for those without neighbors.
          weights: Weights of the edges, of shape [batch, k].

        Returns:
          This replica's share of the mean.
        """
        there = tf.reduce_any(weights > 0, axis=1)
        count = tf.math.count_nonzero(there, dtype=values.dtype)
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
    """The loss of the neighbors' mean prediction, and consistency with it."""

    def __call__(self, outputs: NeighborOutputs, config: GraphRegConfig) -> tf.Tensor:
        loss, weights = outputs.loss, outputs.weights
        if loss is None:
            raise ValueError(
                "The objective 'propagation' compares the labels of samples with what "
                "their neighbors predict, so it needs an output of the model that "
                "compile() received a loss for. Compile with a loss, leave "
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
        kept = outputs.masks and functools.reduce(tf.logical_or, outputs.masks)
        values = tf.cast(loss.per_sample(mean, kept), mean.dtype)
        labeled = self.mean(tf.reduce_sum(counts * values), tf.reduce_sum(counts))
        return labeled + GraphLoss.of(GraphObjective.CONSISTENCY)(outputs, config)
