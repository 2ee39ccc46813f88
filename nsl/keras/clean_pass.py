"""What one pass through a base model takes and returns."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

# For each layer, by name, what is added to its outputs, in float32 or float64.
Perturbations: TypeAlias = dict[str, list[tf.Tensor]]


class Point(NamedTuple):
    """An input of the base model, with perturbations of hidden layers.

    Attributes:
      x: The features, in the structure of the batch.
      perturbations: For each perturbed layer, what is added to its outputs.
    """

    x: Any
    perturbations: Perturbations


@dataclasses.dataclass(frozen=True)
class Neighbors:
    """The neighbors of the samples of a batch.

    Attributes:
      features: The features of the i-th neighbor of every sample, for each i.
      weights: The edge weights of the i-th neighbors, of shape `[batch_size, 1]`, for
        each i.
      differentiable: Whether gradients flow through the neighbors' outputs. If not,
        the clean pass leaves them out, and the term runs them in `prepare`.
    """

    features: list[Any]
    weights: list[tf.Tensor]
    differentiable: bool = True


class PassOutputs(NamedTuple):
    """The outputs of one pass.

    Attributes:
      model: The outputs of the base model.
      layers: By layer name, the outputs of the layers that terms asked for.
    """

    model: Any
    layers: dict[str, Any]

    def of(self, layer: str | None) -> Any:
        """Returns the outputs of a layer, or those of the model for None."""
        return self.model if layer is None else self.layers[layer]


_NO_OUTPUTS = PassOutputs(None, {})


@dataclasses.dataclass
class CleanPass:
    """The samples of a batch, and the results of the pass over them.

    Attributes:
      x: The features that the pass runs on, in the structure of the batch: those of
        the samples, or of the adversarial neighbors that replace them.
      y: The labels, or None.
      sample_weight: The weights of the samples, or None.
      training: Whether this is a training step.
      perturbations: What the pass adds to the outputs of layers. Empty, unless
        adversarial neighbors replace the samples.
      neighbors: By term name, the neighbors that the term took out of the batch.
      states: The states of stateful recurrent layers before the pass.
      outputs: The outputs of the base model and of the layers that terms asked for.
      neighbor_outputs: By term name, the outputs of each neighbor, if the neighbors
        shared the pass with the samples.
      labeled_loss: The compiled loss, without the base model's own losses; 0 if a
        custom loop holds the labels. Unset until the pass has run.
      input_gradient: The gradient of `labeled_loss` in the structure of `x`, with None
        for a feature that has no gradient. None if no term needs it.
      layer_gradients: The same for the outputs of perturbed layers, by layer name.
      centers: By layer name, the unperturbed outputs of perturbed layers.
      samples: The features of the samples, also where `x` holds adversarial neighbors.
    """

    x: Any
    y: Any
    sample_weight: Any
    training: bool
    perturbations: Perturbations = dataclasses.field(default_factory=dict)
    neighbors: dict[str, Neighbors] = dataclasses.field(default_factory=dict)
    states: list[tf.Tensor] = dataclasses.field(default_factory=list)
    outputs: PassOutputs = _NO_OUTPUTS
    neighbor_outputs: dict[str, list[PassOutputs]] = dataclasses.field(
        default_factory=dict
    )
    labeled_loss: tf.Tensor = dataclasses.field(init=False)
    input_gradient: Any = None
    layer_gradients: dict[str, Any] | None = None
    centers: dict[str, list[tf.Tensor]] = dataclasses.field(default_factory=dict)
    samples: Any = None

    def __post_init__(self) -> None:
        if self.samples is None:
            self.samples = self.x

    @property
    def y_pred(self) -> Any:
        """The outputs of the base model; None before the pass."""
        return self.outputs.model
