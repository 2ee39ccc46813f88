"""The base class of regularization terms."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import tensorflow as tf

from nsl.keras.clean_pass import CleanPass, Neighbors, Point
from nsl.keras.passes import Passes


class Term(abc.ABC):
    """A regularization loss that is added to the labeled loss of a model.

    A subclass defines a `name`, a `multiplier` and `loss`. The model multiplies and
    differentiates the loss, and logs it as `scaled_<name>_loss`.

    Attributes:
      name: Names the metric. Unique among the terms of a model.
      multiplier: The factor of the loss, or a schedule: a callable from the number of
        optimizer updates to the factor. A term with multiplier 0 is skipped.
      start_epoch: The first epoch of `fit` in which the term takes part in training.
      in_evaluation: Whether `evaluate` computes the term too.
      needs_labels: Whether the term needs labels.
      needs_loss: Whether the term needs a compiled loss.
      needs_input_gradient: Whether the term needs `CleanPass.input_gradient`. Its loss
        must then not depend on the weights through `CleanPass.y_pred`.
      embedding_layer: The layer whose outputs the loss needs, or None.
      perturbed_layers: The layers whose outputs the term perturbs.
      perturbs_features: Whether the term perturbs the features.
      replaces_labeled_loss: Whether the term is minimized instead of the labeled loss,
        which then serves the metrics only.
      replaces_samples: Whether the clean pass of a training step runs on what `samples`
        returns. The labeled loss of that pass is then the term's, and `loss` is called
        in evaluation only.
      updates: The number of weight updates per batch. `samples` is called before each.
      weight_perturbation: The size of the weight perturbation; see `AdvRegConfig`.
      config: The config that the term was made from, or None. When it changes, steps
        are compiled again.
    """

    name: ClassVar[str]
    needs_input_gradient: bool = False
    replaces_labeled_loss: bool = False
    replaces_samples: bool = False
    updates: int = 1
    weight_perturbation: Any = 0.0
    needs_labels: bool = False
    needs_loss: bool = False
    in_evaluation: ClassVar[bool] = False
    config: Any = None
    embedding_layer: str | None = None
    perturbed_layers: tuple[str, ...] = ()
    perturbs_features: bool = False
    multiplier: Any
    start_epoch: int = 0

    @property
    def perturbs_weights(self) -> bool:
        """Whether `weight_perturbation` is not 0, or a schedule."""
        factor = self.weight_perturbation
        return tf.is_tensor(factor) or factor != 0

    @property
    def update_setting(self) -> str | None:
        """The setting that changes how weights are updated; None for plain updates."""
        if self.perturbs_weights:
            return "weight_perturbation"
        return None if self.updates == 1 else f"updates={self.updates}"

    def check_plain_update(self, caller: str) -> None:
        """Checks that the term needs no updates but those of the optimizer.

        Args:
          caller: Who cannot update the weights in any other way, for the message.

        Raises:
          ValueError: If `update_setting` is not None.
        """
        if self.update_setting:
            raise ValueError(
                f"The {self.name} term has {self.update_setting}, which changes how "
                f"weights are updated, but {caller} does not update weights. Train "
                "with fit or train_on_batch, or leave the setting out."
            )

    def at(self, step: Any, epoch: Any = None) -> Term:
        """Resolves schedules and the start epoch for one step.

        Args:
          step: The number of optimizer updates so far.
          epoch: The epoch of `fit`, or None in evaluation, which ignores
            `start_epoch`.

        Returns:
          A term without schedules; by default the term itself.
        """
        del step, epoch
        return self

    def applies(self, x: Any, y: Any) -> bool:
        """Returns whether a batch holds what the term needs.

        Called when a wrapper is called on a batch outside of `fit` and `evaluate`.

        Args:
          x: The features of the batch.
          y: The labels, or None.

        Returns:
          By default False if the term needs labels and there are none.
        """
        del x
        return y is not None or not self.needs_labels

    def take_neighbors(
        self, x: Any, input_names: list[str]
    ) -> tuple[Any, Neighbors | None]:
        """Splits the features of a training batch into samples and neighbors.

        Args:
          x: The features of the batch.
          input_names: The names of the base model's inputs; empty if unknown.

        Returns:
          The features of the samples, and the neighbors, or None if the term takes none
          from the batch.
        """
        del input_names
        return x, None

    def samples(self, passes: Passes, clean: CleanPass) -> Point:
        """Chooses the input of the clean pass of a training step.

        Args:
          passes: Runs the base model.
          clean: The samples, before their pass; before a second update with the same
            batch, the clean pass of the first.

        Returns:
          Features in the structure of `clean.x`, and perturbations of layers; by
          default those of `clean`.
        """
        del passes
        return Point(clean.x, clean.perturbations)

    def prepare(self, passes: Passes, clean: CleanPass) -> Any:
        """Runs work that needs no weight gradients, such as the attack.

        Args:
          passes: Runs the base model.
          clean: The clean pass.

        Returns:
          The argument `prepared` of `loss`.
        """
        del passes, clean

    @abc.abstractmethod
    def loss(self, passes: Passes, clean: CleanPass, prepared: Any) -> tf.Tensor:
        """Computes the loss, without the multiplier.

        Under a distribution strategy, the losses of all replicas add up to the loss of
        the global batch.

        Args:
          passes: Runs the base model.
          clean: The clean pass.
          prepared: The result of `prepare`.

        Returns:
          The loss, a scalar; or one value per sample if the compiled loss has
          reduction None.
        """
