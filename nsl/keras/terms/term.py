"""What a regularization term is."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import tensorflow as tf

from nsl.keras.passes import CleanPass, Neighbors, Passes, Point


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
      replaces_samples: Whether the term trains on other samples instead: the labeled
        loss of a training step is then the term's, and `loss` counts in evaluation.
      updates: How often a training step updates the weights with each batch. Before
        each update `samples` chooses again.
      weight_perturbation: By how much an update perturbs the weights; see
        `AdvRegConfig`.
      in_evaluation: Whether the term counts in `evaluate` too.
      needs_labels: Whether the term needs labels and a compiled loss.
      config: The config that the term was made from, if it was: where that changes,
        compiled steps are made anew.
      embedding_layer: The layer whose outputs the loss needs, or None.
      perturbed_layers: The layers whose outputs the term perturbs.
      perturbs_features: Whether the term perturbs the features.
      multiplier: Factor of the loss, or a schedule of it. With 0 the term costs
        nothing.
      start_epoch: The epoch of `fit` from which on the term takes part in training.
    """

    name: ClassVar[str]
    needs_input_gradient: bool = False
    replaces_labeled_loss: bool = False
    replaces_samples: bool = False
    updates: int = 1
    weight_perturbation: Any = 0.0
    needs_labels: bool = False
    in_evaluation: ClassVar[bool] = False
    config: Any = None
    embedding_layer: str | None = None
    perturbed_layers: tuple[str, ...] = ()
    perturbs_features: bool = False
    multiplier: Any
    start_epoch: int = 0

    @property
    def perturbs_weights(self) -> bool:
        """Whether updates perturb the weights, or may at some step of a schedule."""
        factor = self.weight_perturbation
        return tf.is_tensor(factor) or factor != 0

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

    def applies(self, x: Any, y: Any) -> bool:
        """Tells whether a batch that is called, outside of a step, has what it takes.

        Args:
          x: The features of the batch.
          y: The labels, or None.

        Returns:
          By default whether labels are there if the term needs them.
        """
        del x
        return y is not None or not self.needs_labels

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

    def samples(self, passes: Passes, clean: CleanPass) -> Point:
        """Chooses what the clean pass of a training step runs on.

        Args:
          passes: Runs the base model.
          clean: What is known before the pass: features, labels and weights; before a
            further update with the same batch, what the pass before gave.

        Returns:
          Features in the structure of `clean.x`, and what is added to the outputs of
          layers; by default the samples themselves.
        """
        del passes
        return Point(clean.x, clean.moves)

    def prepare(self, passes: Passes, clean: CleanPass) -> Any:
        """Runs work that needs no weight gradients, such as the attack.

        Args:
          passes: Runs the base model.
          clean: What the clean pass gave.

        Returns:
          What `loss` gets as `prepared`.
        """
        del passes, clean

    @abc.abstractmethod
    def loss(self, passes: Passes, clean: CleanPass, prepared: Any) -> tf.Tensor:
        """Computes the loss, before the multiplier.

        With several replicas it is this replica's share: the replicas' losses sum up
        to the loss of the global batch.

        Args:
          passes: Runs the base model.
          clean: What the clean pass gave.
          prepared: What `prepare` returned.

        Returns:
          The loss, a scalar or, as the compiled loss may be, one value a sample.
        """
