"""The graph loss as a term."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from nsl.configs import GraphObjective, GraphRegConfig, TransformType
from nsl.keras.batches import describe
from nsl.keras.clean_pass import CleanPass, Neighbors
from nsl.keras.compiled_losses import OutputLoss
from nsl.keras.passes import Passes
from nsl.keras.schedules import at_step
from nsl.keras.terms.graph_losses import GraphLoss, NeighborOutputs
from nsl.keras.terms.term import Term
from nsl.lib.masks import joint_mask
from nsl.lib.neighbor_features import split_neighbors

# The feature in which `pack_nbrs` writes the number of neighbors.
NUM_NEIGHBORS = "NL_num_nbrs"


class GraphTerm(Term):
    """A loss between the outputs of each sample and of its neighbors.

    Bui et al. (2018), "Neural Graph Learning", https://research.google/pubs/pub46568.

    Args:
      config: The settings.

    Raises:
      ValueError: If the distance has reduction 'none', or the objective is not
        registered.
    """

    name = "graph"

    def __init__(self, config: GraphRegConfig) -> None:
        self._graph_loss = GraphLoss.of(config.objective)
        distance = config.objective is GraphObjective.DISTANCE
        if distance and config.distance_config.reduction == "none":
            raise ValueError(
                "Graph regularization needs a scalar distance, but received "
                "DistanceConfig(reduction='none'). Use another reduction, such as "
                "'weighted_sum_by_nonzero_weights'."
            )
        self.config = config
        self.embedding_layer = config.embedding_layer
        enabled = config.neighbor_config.max_neighbors > 0
        self.multiplier: Any = config.multiplier if enabled else 0.0
        self.start_epoch = config.start_epoch
        self.needs_loss = config.objective is GraphObjective.PROPAGATION

    def at(self, step: Any, epoch: Any = None) -> GraphTerm:
        """Resolves the multiplier for one step. It is 0 before the start epoch."""
        term = copy.copy(self)
        term.config = at_step(self.config, step)
        term.multiplier = term.config.multiplier
        if epoch is not None and self.start_epoch:
            started = tf.cast(epoch >= self.start_epoch, tf.float32)
            term.multiplier = started * term.multiplier
        return term

    def applies(self, x: Any, y: Any) -> bool:
        """Returns whether a batch holds neighbors."""
        del y
        prefix = self.config.neighbor_config.prefix
        return isinstance(x, Mapping) and any(name.startswith(prefix) for name in x)

    def take_neighbors(
        self, x: Any, input_names: list[str]
    ) -> tuple[Any, Neighbors | None]:
        """Splits the features of a batch into samples and neighbors."""
        neighbor_config = self.config.neighbor_config
        if not isinstance(x, Mapping):
            raise ValueError(
                "Graph regularization needs x to be a dict with the features of "
                "samples and neighbors and the edge weights: expected the keys "
                f"'<feature>', '{neighbor_config.prefix}0_<feature>' and "
                f"'{neighbor_config.prefix}0{neighbor_config.weight_suffix}', but "
                f"received x = {describe(x)}."
            )
        # Features that the model does not take, such as ids, need no neighbors.
        named = bool(input_names) and set(input_names) <= set(x)
        taken = {
            name: feature
            for name, feature in x.items()
            if name.startswith(neighbor_config.prefix)
            or (name in input_names if named else name != NUM_NEIGHBORS)
        }
        samples, neighbors, weights = split_neighbors(taken, neighbor_config)
        differentiable = self._graph_loss.differentiates_neighbors
        return samples, Neighbors(neighbors, weights, differentiable)

    def prepare(self, passes: Passes, clean: CleanPass) -> Any:
        """Runs the neighbors if no gradients flow through their outputs."""
        neighbors = clean.neighbors[self.name]
        if neighbors.differentiable:
            return None
        return passes.run_neighbors(
            neighbors.features, clean, training=False, layer=self.embedding_layer
        )

    def loss(self, passes: Passes, clean: CleanPass, prepared: Any) -> tf.Tensor:
        """Computes the sum of the losses of all compared outputs."""
        neighbors = clean.neighbors[self.name]
        layer = self.embedding_layer
        of_neighbors = prepared
        if of_neighbors is None and self.name in clean.neighbor_outputs:
            passed = clean.neighbor_outputs[self.name]
            of_neighbors = [outputs.of(layer) for outputs in passed]
        elif of_neighbors is None:
            of_neighbors = passes.run_neighbors(neighbors.features, clean, layer=layer)
        if layer is None:
            of_samples = clean.y_pred
            chosen = self._chosen(passes, of_samples)
            known = passes.output_losses(clean)
        else:
            of_samples = clean.outputs.of(layer)
            chosen = list(range(len(of_samples)))
            known = [None] * len(of_samples)
        flat = [tf.nest.flatten(outputs) for outputs in (of_samples, *of_neighbors)]
        weights = tf.concat([tf.cast(w, tf.float32) for w in neighbors.weights], 1)
        losses = []
        for i in chosen:
            samples, *rest = [_with_axis(outputs[i]) for outputs in flat]
            compared = self._neighbor_outputs(samples, rest, weights, known[i])
            losses.append(self._graph_loss(compared, self.config))
        return tf.add_n(losses)

    def _neighbor_outputs(
        self,
        samples: tf.Tensor,
        neighbors: list[tf.Tensor],
        weights: tf.Tensor,
        loss: OutputLoss | None,
    ) -> NeighborOutputs:
        """Bundles one output with its compiled loss, its masks and its type."""
        from_logits = self.config.distance_config.transform_fn is TransformType.SOFTMAX
        # A softmax over one class would be constant.
        binary = samples.shape[-1] == 1
        if loss is not None:
            from_logits = _first_known(loss.from_logits, from_logits)
            binary = _first_known(loss.binary, binary)
        masks = [joint_mask(samples, neighbor) for neighbor in neighbors]
        known = [mask for mask in masks if mask is not None]
        return NeighborOutputs(
            samples,
            neighbors,
            weights,
            from_logits,
            binary,
            loss,
            known if known and len(known) == len(masks) else None,
        )

    def _chosen(self, passes: Passes, y_pred: Any) -> list[int]:
        """Lists the indices of the compared outputs."""
        chosen = self.config.output_name
        paths = [path for path, _ in keras.tree.flatten_with_path(y_pred)]
        if chosen is None:
            return list(range(len(paths)))
        if isinstance(y_pred, Mapping):
            names = [path[0] for path in paths]
        else:
            names = passes.output_names
        indices = [i for i, name in enumerate(names) if name == chosen]
        if not indices:
            known = f"are {sorted(set(names))}" if names else "have no names"
            raise ValueError(
                f"GraphRegConfig.output_name is '{chosen}', but the outputs of the "
                f"base model {known}."
            )
        return indices


def _first_known(known: bool | None, otherwise: bool) -> bool:
    return otherwise if known is None else known


def _with_axis(output: tf.Tensor) -> tf.Tensor:
    return output[:, tf.newaxis] if output.shape.rank == 1 else output
