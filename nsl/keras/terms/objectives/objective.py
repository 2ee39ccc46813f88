"""What an objective of adversarial regularization is, and what it is told."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import tensorflow as tf

from nsl.configs import AdvRegConfig
from nsl.keras.terms.named_objective import NamedObjective
from nsl.keras.terms.objectives.output_pair import OutputPair, output_pairs
from nsl.keras.terms.term import CleanPass, Passes


class AdversarialPasses:
    """The pass over the samples and the pass over their adversarial neighbors.

    Attributes:
      clean: The pass over the samples.

    Args:
      model: The regularized model.
      clean: The pass over the samples.
      neighbors: The adversarial neighbors, in the structure of `clean.x`.
      y_pred: The outputs of the base model at the neighbors.
      config: The settings.
    """

    def __init__(
        self,
        model: Passes,
        clean: CleanPass,
        neighbors: Any,
        y_pred: Any,
        config: AdvRegConfig,
    ) -> None:
        self.clean = clean
        self._model = model
        self._neighbors = neighbors
        self._y_pred = y_pred
        self._config = config

    def labeled_loss(self) -> tf.Tensor:
        """Computes the compiled loss at the neighbors."""
        clean = self.clean
        return self._model.labeled_loss(
            self._neighbors, clean.y, self._y_pred, clean.sample_weight, clean.training
        )

    def outputs(self) -> list[OutputPair]:
        """Pairs each output that is class scores at the samples and the neighbors.

        Returns:
          The pairs, at least one.

        Raises:
          ValueError: If it is not known of any output that it is class scores.
        """
        return output_pairs(
            self._model, self.clean, self.clean.y_pred, self._y_pred, self._config
        )


class AdversarialObjective(
    NamedObjective, setting="AdvRegConfig.objective", title="objectives"
):
    """What is minimized at the adversarial neighbors of samples.

    A subclass names itself, and `AdvRegConfig(objective=...)` takes the name:

    ```python
    class Distance(nsl.keras.AdversarialObjective, objective="distance"):
        climbs_divergence = True

        def __call__(self, passes, config):
            return tf.add_n([
                pair.mean(tf.norm(pair.clean - pair.adversarial, axis=-1))
                for pair in passes.outputs()
            ])
    ```

    Attributes:
      climbs_divergence: Whether the neighbors maximize the divergence of the outputs
        from those of the samples, for which no label is needed, instead of the labeled
        loss.
      replaces_labeled_loss: Whether the objective has a labeled loss of its own, which
        takes the place of the compiled one. It then multiplies by `config.multiplier`
        itself.
    """

    climbs_divergence: ClassVar[bool] = False
    replaces_labeled_loss: ClassVar[bool] = False

    @abc.abstractmethod
    def __call__(self, passes: AdversarialPasses, config: AdvRegConfig) -> tf.Tensor:
        """Computes the loss, before the multiplier.

        With several replicas it is this replica's share of the loss of the global
        batch, as `OutputPair.mean` computes it.

        Args:
          passes: The passes over the samples and over their neighbors.
          config: The settings.

        Returns:
          A scalar or, as the compiled loss may be, one value a sample.
        """
