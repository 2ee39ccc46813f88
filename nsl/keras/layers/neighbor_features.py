"""A layer that separates the features of samples and neighbors."""

from __future__ import annotations

from collections.abc import Collection, Mapping, MutableMapping
from typing import Any

import keras
import tensorflow as tf

from nsl.configs import GraphNeighborConfig, serialization
from nsl.lib.neighbor_features import unpack_features


def make_missing_neighbor_inputs(
    neighbor_config: GraphNeighborConfig,
    inputs: Mapping[str, Any],
    weight_dtype: Any = tf.float32,
) -> dict[str, Any]:
    """Makes a `keras.Input` for each missing neighbor feature and edge weight.

    Args:
      neighbor_config: The number of neighbors and the names of their features.
      inputs: The existing inputs of a functional model by name, which may include some
        of neighbors.
      weight_dtype: The dtype of the edge weights, which have shape `[batch, 1]`.

    Returns:
      The new inputs by name. Those of a neighbor have the shape, dtype and kind (dense,
      sparse or ragged) of the sample's input.
    """
    samples = {
        name: tensor
        for name, tensor in inputs.items()
        if not name.startswith(neighbor_config.prefix)
    }
    made = {}
    for i in range(neighbor_config.max_neighbors):
        prefix = f"{neighbor_config.prefix}{i}"
        weight = f"{prefix}{neighbor_config.weight_suffix}"
        if weight not in inputs:
            dtype = keras.backend.standardize_dtype(weight_dtype)
            made[weight] = keras.Input((1,), dtype=dtype, name=weight)
        for name, tensor in samples.items():
            neighbor = f"{prefix}_{name}"
            if neighbor not in inputs:
                made[neighbor] = keras.Input(
                    batch_shape=tensor.shape,
                    dtype=keras.backend.standardize_dtype(tensor.dtype),
                    name=neighbor,
                    **_kind(tensor),
                )
    return made


def _kind(tensor: Any) -> dict[str, bool]:
    """Returns the arguments of `keras.Input` for a sparse or ragged tensor."""
    # Older releases of Keras have no argument `ragged`.
    return {kind: True for kind in ("sparse", "ragged") if getattr(tensor, kind, False)}


@keras.saving.register_keras_serializable(package="nsl")
class NeighborFeatures(keras.layers.Layer):
    """Splits a dict of features into those of samples and those of neighbors.

    In a functional model, the layer adds missing inputs of neighbors to the dict, which
    can then be passed to `keras.Model(inputs, ...)`.

    ```python
    inputs = {"x": keras.Input((2,), name="x")}
    unpack = nsl.keras.layers.NeighborFeatures(
        nsl.configs.GraphNeighborConfig(max_neighbors=1))
    samples, neighbors, weights = unpack(inputs)
    sorted(inputs)  # ['NL_nbr_0_weight', 'NL_nbr_0_x', 'x']
    ```

    Features may be sparse or ragged. A direct call of a functional Keras model takes
    either tensors or NumPy arrays, not both ("you cannot mix tensors and non-tensors"),
    so convert arrays with `tf.constant` if a feature is a `tf.SparseTensor`. `fit`,
    `evaluate`, `predict` and the wrappers of nsl convert them.

    Args:
      neighbor_config: The number of neighbors and the names of their features, by
        default `GraphNeighborConfig()`, which has no neighbors.
      feature_names: The names of the features to split; None for all.
      weight_dtype: The dtype of the inputs for edge weights, float32 by default.
      **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(
        self,
        neighbor_config: GraphNeighborConfig | None = None,
        feature_names: Collection[str] | None = None,
        weight_dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        if weight_dtype is not None:
            kwargs.setdefault("dtype", keras.backend.standardize_dtype(weight_dtype))
        super().__init__(autocast=False, **kwargs)
        self._neighbor_config = neighbor_config or GraphNeighborConfig()
        self._feature_names = None if feature_names is None else sorted(feature_names)

    def __call__(
        self, inputs: MutableMapping[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Splits `inputs`, and adds missing inputs of neighbors to them."""
        prefix = self._neighbor_config.prefix
        chosen = {
            name: tensor
            for name, tensor in inputs.items()
            if self._feature_names is None
            or name in self._feature_names
            or name.startswith(prefix)
        }
        if any(keras.backend.is_keras_tensor(tensor) for tensor in inputs.values()):
            missing = make_missing_neighbor_inputs(
                self._neighbor_config, chosen, self.variable_dtype
            )
            inputs.update(missing)
            chosen.update(missing)
        return super().__call__(chosen, *args, **kwargs)

    def call(self, inputs: Mapping[str, Any], keep_rank: bool = True) -> Any:
        """Splits the features.

        Args:
          inputs: The features of samples and neighbors and the edge weights, by name.
          keep_rank: Whether to merge the neighbors into the batch axis, sample by
            sample, so that features have shape `[batch * k, ...]`. If False, neighbors
            have an axis of their own: `[batch, k, ...]`.

        Returns:
          `(sample_features, neighbor_features, neighbor_weights)`, as
          `nsl.lib.unpack_neighbor_features` returns them.

        Raises:
          KeyError: If a feature or edge weight of a neighbor is missing.
          ValueError: If the shapes of a feature differ between samples and neighbors.
        """
        return unpack_features(inputs, self._neighbor_config, keep_rank=keep_rank)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, serialized."""
        return {
            **super().get_config(),
            "neighbor_config": serialization.to_dict(self._neighbor_config),
            "feature_names": self._feature_names,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> NeighborFeatures:
        """Creates the layer from the result of `get_config`."""
        config = dict(config)
        neighbor_config = serialization.from_dict(
            GraphNeighborConfig, config.pop("neighbor_config")
        )
        return cls(neighbor_config, **config)
