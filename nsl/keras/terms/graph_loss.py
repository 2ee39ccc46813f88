"""What graph regularization can minimize: one class for each objective."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

import tensorflow as tf

from nsl.configs import GraphObjective, GraphRegConfig, TransformType
from nsl.keras.output_distribution import OutputDistribution
from nsl.lib.distances import weighted_sum_and_normalizer
from nsl.lib.graph_losses import neighbor_consistency_loss, neighbor_contrastive_loss


@dataclasses.dataclass(frozen=True)
class NeighborOutputs:
    """One output of the samples of a batch, and the same of their neighbors.

    Attributes:
      samples: The output for the samples, of shape [batch, ...], of rank 2 or more.
      neighbors: For each of the k neighbors of a sample, a tensor like `samples`.
      weights: Weights of the edges, float32 of shape [batch, k]. 0 masks a neighbor.
      distribution: How the output is to be read, if the compiled loss tells.
    """

    samples: tf.Tensor
    neighbors: list[tf.Tensor]
    weights: tf.Tensor
    distribution: OutputDistribution | None = None


def _name(objective: GraphObjective | str) -> str:
    return str(getattr(objective, "value", objective))


class GraphLoss(abc.ABC):
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
    _of: ClassVar[dict[str, GraphLoss]] = {}

    def __init_subclass__(cls, objective: GraphObjective | str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        GraphLoss._of[_name(objective)] = cls()

    @staticmethod
    def of(objective: GraphObjective | str) -> GraphLoss:
        """Returns the loss of an objective.

        Args:
          objective: A `GraphObjective` or the name of a registered loss.

        Returns:
          The loss.

        Raises:
          ValueError: If there is none; lists those there are.
        """
        if _name(objective) not in GraphLoss._of:
            raise ValueError(
                f"GraphRegConfig.objective is {objective!r}, but the graph losses are "
                f"{sorted(GraphLoss._of)}. Further ones are subclasses of "
                "nsl.keras.GraphLoss, defined before the wrapper is made."
            )
        return GraphLoss._of[_name(objective)]

    @abc.abstractmethod
    def __call__(
        self, outputs: NeighborOutputs, config: GraphRegConfig
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes the loss as a sum and what it is to be divided by.

        With several replicas the second is summed over all of them before dividing.

        Args:
          outputs: One output of the samples and of their neighbors.
          config: The settings.

        Returns:
          Two scalars.
        """

    @staticmethod
    def mean_over_samples(
        values: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Averages over the samples that have a neighbor.

        Args:
          values: One loss a sample, of shape [batch], 0 for those without neighbors.
          weights: Weights of the edges, of shape [batch, k].

        Returns:
          The sum of the losses, and the number of samples with a neighbor.
        """
        there = tf.reduce_any(weights > 0, axis=1)
        return tf.reduce_sum(values), tf.math.count_nonzero(there, dtype=values.dtype)


class _Distance(GraphLoss, objective=GraphObjective.DISTANCE):
    def __call__(
        self, outputs: NeighborOutputs, config: GraphRegConfig
    ) -> tuple[tf.Tensor, tf.Tensor]:
        samples, rank = outputs.samples, outputs.samples.shape.rank
        total, normalizer = weighted_sum_and_normalizer(
            tf.concat([samples] * len(outputs.neighbors), 0),
            tf.concat(outputs.neighbors, 0),
            tf.reshape(tf.transpose(outputs.weights), [-1] + [1] * (rank - 1)),
            config.distance_config,
        )
        if config.distance_config.reduction == "weighted_sum":
            # A sum is not divided, however many replicas there are.
            normalizer /= tf.distribute.get_strategy().num_replicas_in_sync
        return total, normalizer


class _Contrastive(GraphLoss, objective=GraphObjective.CONTRASTIVE):
    def __call__(
        self, outputs: NeighborOutputs, config: GraphRegConfig
    ) -> tuple[tf.Tensor, tf.Tensor]:
        batch, first = _global_batch(outputs.samples)
        values = neighbor_contrastive_loss(
            outputs.samples,
            tf.stack(outputs.neighbors, 1),
            outputs.weights,
            config.temperature,
            batch,
            first,
        )
        return self.mean_over_samples(values, outputs.weights)


class _Consistency(GraphLoss, objective=GraphObjective.CONSISTENCY):
    differentiates_neighbors = False

    def __call__(
        self, outputs: NeighborOutputs, config: GraphRegConfig
    ) -> tuple[tf.Tensor, tf.Tensor]:
        known = outputs.distribution
        logits = config.distance_config.transform_fn is TransformType.SOFTMAX
        values = neighbor_consistency_loss(
            outputs.samples,
            tf.stack(outputs.neighbors, 1),
            outputs.weights,
            config.temperature,
            from_logits=logits or (known is not None and known.from_logits),
            # One class alone is certain; one output alone is that of yes or no.
            binary=known.binary if known else outputs.samples.shape[-1] == 1,
        )
        return self.mean_over_samples(values, outputs.weights)


def _global_batch(samples: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """Gathers the samples of all replicas, and says where those of this one begin."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return samples, 0
    sizes = replica.all_gather(tf.shape(samples)[:1], axis=0)
    before = tf.range(tf.size(sizes)) < replica.replica_id_in_sync_group
    first = tf.reduce_sum(tf.where(before, sizes, 0))
    return replica.all_gather(samples, axis=0), first
