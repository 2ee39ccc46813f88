"""Graph regularization of a Keras model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from nsl.configs import GraphRegConfig
from nsl.keras.base_model import input_names
from nsl.keras.config_attribute import ConfigAttribute
from nsl.keras.regularized_model import RegularizedModel
from nsl.keras.terms import GraphTerm
from nsl.keras.terms.graph import NUM_NEIGHBORS
from nsl.lib.neighbor_features import split_neighbors, strip_neighbor_features


@keras.saving.register_keras_serializable(package="nsl")
class GraphRegularization(RegularizedModel):
    """Trains a base model so that neighbors in a graph get similar outputs.

    The loss is the labeled loss plus `multiplier` times the distance between the
    outputs of each sample and of its neighbors (Bui et al., 2018,
    https://research.google/pubs/pub46568), or another graph loss, chosen by
    `GraphRegConfig.objective`. Training batches hold the features of the samples, the
    features of their neighbors and the edge weights, as `nsl.tools.pack_nbrs` writes
    them. An edge weight of 0 marks a missing neighbor. Evaluation, prediction and
    export need no neighbors and compute no graph loss. Training logs
    `scaled_graph_loss`.

    ```python
    graph_config = nsl.configs.make_graph_reg_config(max_neighbors=1, multiplier=0.1)
    graph_model = nsl.keras.GraphRegularization(base_model, graph_config)
    graph_model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    graph_model.fit({"x": x, "NL_nbr_0_x": x_nbr, "NL_nbr_0_weight": weight}, y)
    graph_model.evaluate(x_test, y_test)
    ```

    Args:
      base_model: The model to regularize: a sequential, functional or subclassed
        `keras.Model`, or another wrapper. Shares its weights with the wrapper.
      graph_reg_config: The settings. The default is `GraphRegConfig()`, which has no
        neighbors.
      **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
      TypeError: If `base_model` is not a Keras model, or `graph_reg_config` is not a
        `GraphRegConfig`.
      ValueError: If the distance has reduction 'none', the objective is not registered,
        or the base model has no `embedding_layer`. For an unbuilt base model, the first
        training step checks the latter.
    """

    graph_reg_config = ConfigAttribute(GraphRegConfig, maker="make_graph_reg_config")

    def __init__(
        self,
        base_model: keras.Model,
        graph_reg_config: GraphRegConfig | None = None,
        **kwargs: Any,
    ) -> None:
        if graph_reg_config is None:
            graph_reg_config = GraphRegConfig()
        kwargs.setdefault("name", "GraphRegularization")
        super().__init__(base_model, **kwargs)
        self.graph_reg_config = graph_reg_config
        self._prepare_terms()

    def own_terms(self) -> list[GraphTerm]:
        """Returns the graph loss with the current config."""
        return [GraphTerm(self.graph_reg_config)]

    def strip(self, x: Any) -> Any:
        """Removes the features of neighbors and the edge weights."""
        if isinstance(x, Mapping):
            x = strip_neighbor_features(x, self.graph_reg_config.neighbor_config)
            if NUM_NEIGHBORS not in input_names(self._core):
                x.pop(NUM_NEIGHBORS, None)
        return super().strip(x)

    def _preprocess(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Preprocesses samples and neighbors, each as inputs of the base model."""
        config = self.graph_reg_config.neighbor_config
        if not GraphTerm(self.graph_reg_config).applies(x, y):
            return super()._preprocess(x, y, sample_weight)
        samples, neighbors, weights = split_neighbors(x, config)
        batch = super()._preprocess(_unwrap(samples), y, sample_weight)
        features, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        made = _named(features)
        for i, (neighbor, weight) in enumerate(zip(neighbors, weights, strict=True)):
            prefix = f"{config.prefix}{i}"
            features = _named(super()._preprocess(_unwrap(neighbor)))
            made |= {f"{prefix}_{name}": value for name, value in features.items()}
            made[f"{prefix}{config.weight_suffix}"] = weight
        return keras.utils.pack_x_y_sample_weight(made, y, sample_weight)


def _unwrap(features: Mapping[str, Any]) -> Any:
    """Returns the only feature of a dict, or a dict of several as it is."""
    return next(iter(features.values())) if len(features) == 1 else features


def _named(features: Any) -> dict[str, Any]:
    return dict(features) if isinstance(features, Mapping) else {"x": features}
