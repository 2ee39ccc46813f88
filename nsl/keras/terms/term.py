"""What a regularization term is, and what it is told."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol

import tensorflow as tf

from nsl.keras.recurrent_state import RecurrentState


@dataclasses.dataclass(frozen=True)
class Neighbors:
    """Neighbors that a batch holds beside its samples.

    Attributes:
      features: For each neighbor of the samples, its features.
      weights: For each neighbor, the weights of the edges to it, of shape
        `[batch_size, 1]`.
      differentiable: Whether the loss has a gradient through them. If not, the clean
        pass leaves them out, and the term runs them when it prepares its loss.
    """

    features: list[Any]
    weights: list[tf.Tensor]
    differentiable: bool = True


class PassOutputs(NamedTuple):
    """What one pass through the base model gave.

    Attributes:
      model: The outputs of the base model.
      layers: By layer name, the outputs of the layers that terms chose.
    """

    model: Any
    layers: dict[str, Any]

    def of(self, layer: str | None) -> Any:
        """Returns the outputs of a layer, or for None those of the model."""
        return self.model if layer is None else self.layers[layer]


@dataclasses.dataclass
class CleanPass:
    """What the pass over the unperturbed samples gave.

    Attributes:
      x: The features of the samples, in the structure that the user chose.
      y: The labels, or None.
      sample_weight: The weights of the samples, or None.
      training: Whether this is a training step.
      recurrent_state: The state of stateful recurrent layers before the pass.
      y_pred: The outputs of the base model.
      labeled_loss: The compiled loss, without the base model's own losses.
      neighbors: By term name, the neighbors that the term took out of the batch.
      layer_outputs: By layer name, the outputs of the layers that terms chose.
      neighbor_outputs: By term name, for each neighbor the outputs of the model and of
        those layers, if the neighbors went through it together with the samples.
      input_gradient: The gradient of `labeled_loss` in the structure of `x`, None for
        a feature without one. Known to terms that ask for it.
    """

    x: Any
    y: Any
    sample_weight: Any
    training: bool
    recurrent_state: RecurrentState
    y_pred: Any = None
    labeled_loss: tf.Tensor | None = None
    neighbors: dict[str, Neighbors] = dataclasses.field(default_factory=dict)
    layer_outputs: dict[str, Any] = dataclasses.field(default_factory=dict)
    neighbor_outputs: dict[str, list[PassOutputs]] = dataclasses.field(
        default_factory=dict
    )
    input_gradient: Any = None


class Passes(Protocol):
    """The passes that a term may ask of the regularized model."""

    def run_neighbors(
        self,
        neighbors: list[Any],
        clean: CleanPass,
        training: bool | None = None,
        layer: str | None = None,
    ) -> list[Any]:
        """Runs the base model on neighbors of the samples, as the clean pass did."""

    def input_gradient(
        self,
        x: Any,
        clean: CleanPass,
        loss_fn: Callable[[Any], tf.Tensor] | None = None,
    ) -> Any:
        """Differentiates a loss by features, in an inference pass."""

    def labeled_loss(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool
    ) -> tf.Tensor:
        """Computes the compiled loss without the base model's own losses."""


class Term(abc.ABC):
    """One loss that is added to the labeled loss of a model.

    A new term is a subclass with a `name`, a `multiplier` and a `loss`. The model
    multiplies the loss, differentiates it and logs it as `scaled_<name>_loss`.

    Attributes:
      name: Stands in the name of the metric.
      needs_input_gradient: Whether `CleanPass.input_gradient` must be known. If so,
        the term's loss may not depend on `CleanPass.y_pred` through the weights.
      replaces_labeled_loss: Whether the term stands in the place of the labeled loss,
        which is then computed for the metrics alone.
      in_evaluation: Whether the term counts in `evaluate` too.
      embedding_layer: The layer whose outputs the loss needs, or None.
      multiplier: Factor of the loss, or a schedule of it. With 0 the term costs
        nothing.
      start_epoch: The epoch of `fit` from which on the term takes part in training.
    """

    name: ClassVar[str]
    needs_input_gradient: bool = False
    replaces_labeled_loss: bool = False
    in_evaluation: ClassVar[bool] = False
    embedding_layer: str | None = None
    multiplier: Any
    start_epoch: int = 0

    def at(self, step: Any, epoch: Any = None) -> Term:
        """Returns the term as it is at a step.

        Args:
          step: The number of optimizer updates so far.
          epoch: The epoch of `fit`, or None in evaluation, in which every term counts.

        Returns:
          A term without schedules. By default the term itself.
        """
        del step, epoch
        return self

    def take_neighbors(
        self, x: Any, input_names: list[str]
    ) -> tuple[Any, Neighbors | None]:
        """Splits the features of a training batch into samples and neighbors.

        Args:
          x: The features of the batch.
          input_names: The features that the base model takes, empty if not known.

        Returns:
          The features of the samples alone, and the neighbors, if the term has some.
        """
        del input_names
        return x, None

    def samples(self, model: Passes, clean: CleanPass) -> Any:
        """Chooses the features that the clean pass of a training step runs on.

        Args:
          model: The regularized model.
          clean: What is known before the pass: features, labels and weights.

        Returns:
          Features in the structure of `clean.x`, by default these themselves.
        """
        del model
        return clean.x

    def prepare(self, model: Passes, clean: CleanPass) -> Any:
        """Does what no weight gradient is needed of, as searching a neighbor.

        Args:
          model: The regularized model.
          clean: What the clean pass gave.

        Returns:
          What `loss` gets as `prepared`.
        """
        del model, clean

    @abc.abstractmethod
    def loss(self, model: Passes, clean: CleanPass, prepared: Any) -> tf.Tensor:
        """Computes the loss, before the multiplier.

        With several replicas it is this replica's share: the replicas' losses sum up
        to the loss of the global batch.

        Args:
          model: The regularized model.
          clean: What the clean pass gave.
          prepared: What `prepare` returned.

        Returns:
          The loss, a scalar or, as the compiled loss may be, one value a sample.
        """
