"""The distance between the outputs of samples and of their neighbors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from nsl.configs import GraphRegConfig
from nsl.keras.batch import describe
from nsl.keras.terms.term import CleanPass, Neighbors, Passes, Term
from nsl.lib.distances import weighted_sum_and_normalizer
from nsl.lib.neighbor_features import split_neighbors

# What `pack_nbrs` writes beside the features, and no model takes.
NUM_NEIGHBORS = "NL_num_nbrs"


class GraphTerm(Term):
    """The weighted distance between each sample's outputs and its neighbors'.

    Bui et al. (2018), "Neural Graph Learning", https://research.google/pubs/pub46568.

    Args:
      config: Multiplier, names of the neighbor features and the distance.
    """

    name = "graph"

    def __init__(self, config: GraphRegConfig) -> None:
        if config.distance_config.reduction == "none":
            raise ValueError(
                "Graph regularization needs one number for the distance of a batch, "
                "but received DistanceConfig(reduction='none'). Take a reduction such "
                "as 'weighted_sum_by_nonzero_weights'."
            )
        self.config = config
        enabled = config.neighbor_config.max_neighbors > 0
        self.multiplier = config.multiplier if enabled else 0.0

    def take_neighbors(
        self, x: Any, input_names: list[str]
    ) -> tuple[Any, Neighbors | None]:
        """Splits a batch into its samples and their neighbors with weights."""
        neighbor_config = self.config.neighbor_config
        if not isinstance(x, Mapping):
            raise ValueError(
                "Graph regularization needs x to be a dict that holds, beside each "
                "feature, the same feature of each neighbor and its weight: expected "
                f"the keys '{neighbor_config.prefix}0_<feature>' and "
                f"'{neighbor_config.prefix}0{neighbor_config.weight_suffix}', but "
                f"received x = {describe(x)}."
            )
        # What a model does not take, as ids, needs no neighbors.
        named = bool(input_names) and set(input_names) <= set(x)
        taken = {
            name: feature
            for name, feature in x.items()
            if name.startswith(neighbor_config.prefix)
            or (name in input_names if named else name != NUM_NEIGHBORS)
        }
        samples, neighbors, weights = split_neighbors(taken, neighbor_config)
        return samples, Neighbors(neighbors, weights)

    def loss(self, model: Passes, clean: CleanPass, prepared: Any) -> tf.Tensor:
        """Computes the mean distance, over all outputs of the model or the chosen."""
        del prepared
        neighbors = clean.neighbors[self.name]
        outputs = clean.neighbor_outputs.get(self.name)
        if outputs is None:
            outputs = model.run_neighbors(neighbors.features, clean)
        sources = self._compared(model, clean.y_pred)
        targets = [self._compared(model, output) for output in outputs]
        return tf.add_n(
            [
                self._distance(source, target, neighbors.weights)
                for source, *target in zip(sources, *targets, strict=True)
            ]
        )

    def _compared(self, model: Passes, outputs: Any) -> list[tf.Tensor]:
        """Lists the outputs that are compared."""
        name = self.config.output_name
        if name is None:
            return tf.nest.flatten(outputs)
        if isinstance(outputs, Mapping):
            named = dict(outputs)
        else:
            names = getattr(model, "output_names", [])
            named = dict(zip(names, tf.nest.flatten(outputs), strict=False))
        if name not in named:
            known = f"are {sorted(named)}" if named else "have no names"
            raise ValueError(
                f"GraphRegConfig.output_name is '{name}', but the outputs of the base "
                f"model {known}."
            )
        return [named[name]]

    def _distance(
        self, source: tf.Tensor, targets: list[tf.Tensor], weights: list[tf.Tensor]
    ) -> tf.Tensor:
        sources = tf.concat([source] * len(targets), 0)
        target = tf.concat(targets, 0)
        if source.shape.rank == 1:
            sources, target = sources[:, tf.newaxis], target[:, tf.newaxis]
        weight = tf.concat([tf.cast(part, tf.float32) for part in weights], 0)
        total, normalizer = weighted_sum_and_normalizer(
            sources,
            target,
            tf.reshape(weight, [-1] + [1] * (target.shape.rank - 1)),
            self.config.distance_config,
        )
        # The mean is over the global batch, so each replica divides by what all
        # replicas count together.
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            replica = tf.distribute.get_replica_context()
            summed = self.config.distance_config.reduction != "weighted_sum"
            if summed and replica is not None:
                normalizer = replica.all_reduce("sum", normalizer)
        return tf.math.divide_no_nan(total, normalizer)
