"""The labeled loss of the samples' adversarial neighbors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import keras
import tensorflow as tf

from nsl.configs import AdvMode, AdvNeighborConfig, AdvRegConfig
from nsl.keras.terms.term import CleanPass, Passes, Term
from nsl.lib.adversarial_neighbor import projected_gradient_ascent


class AdversarialTerm(Term):
    """The labeled loss at the adversarial neighbor of each sample.

    The neighbor is found by gradient ascent on the labeled loss. The first gradient
    is a by-product of the clean pass; those of further iterations are taken with
    `training=False` and leave no trace in the model's state. With `mode='replace'` all
    are taken so, and the neighbors go through the clean pass of a training step in the
    place of the samples.

    Args:
      config: Multiplier and settings of the ascent.
      protected_keys: Features of these names are never perturbed.
    """

    name = "adversarial"
    in_evaluation = True

    def __init__(
        self, config: AdvRegConfig, protected_keys: Collection[str] = ()
    ) -> None:
        self.config = config
        replaces = config.mode is AdvMode.REPLACE
        self.multiplier = 1.0 if replaces else config.multiplier
        self.replaces_labeled_loss = replaces
        self.needs_input_gradient = not replaces
        self._protected_keys = frozenset(protected_keys)
        self.seed_generator = (
            keras.random.SeedGenerator()
            if config.adv_neighbor_config.random_init
            else None
        )

    def samples(self, model: Passes, clean: CleanPass) -> Any:
        """Returns the adversarial neighbors if they replace the samples."""
        if not self.replaces_labeled_loss:
            return clean.x
        return self.perturb(model, clean, self.config.adv_neighbor_config)

    def prepare(self, model: Passes, clean: CleanPass) -> Any:
        """Finds the adversarial neighbors, in the structure of the features."""
        if self.replaces_labeled_loss and clean.training:
            return clean.x
        return self.perturb(model, clean, self.config.adv_neighbor_config)

    def perturb(
        self, model: Passes, clean: CleanPass, config: AdvNeighborConfig
    ) -> Any:
        """Climbs the labeled loss from the samples of the clean pass.

        Args:
          model: The regularized model.
          clean: The clean pass, or what is known before it. Its input gradient is
            computed if it is not known.
          config: Settings of the ascent.

        Returns:
          The perturbed features, in the structure of `clean.x`.
        """

        def gradient_fn(attacked: Any) -> Any:
            x = self._join(attacked, clean.x)
            return self._attacked(model.input_gradient(x, clean))

        seed = gradients = None
        if config.random_init:
            generator = self.seed_generator or keras.random.SeedGenerator()
            seed = generator.next()
        elif clean.input_gradient is None:
            gradients = gradient_fn(clean.x)
        else:
            gradients = self._attacked(clean.input_gradient)
        attacked = projected_gradient_ascent(
            self._attacked(clean.x),
            gradients,
            config,
            gradient_fn=gradient_fn,
            seed=seed,
            use_while_loop=True,
        )
        return self._join(attacked, clean.x)

    def loss(self, model: Passes, clean: CleanPass, prepared: Any) -> tf.Tensor:
        """Computes the labeled loss at the adversarial neighbors `prepared`."""
        if prepared is clean.x:
            assert clean.labeled_loss is not None
            return clean.labeled_loss
        [y_pred] = model.run_neighbors([prepared], clean)
        return model.labeled_loss(
            prepared, clean.y, y_pred, clean.sample_weight, clean.training
        )

    def _attacked(self, x: Any) -> Any:
        if isinstance(x, Mapping) and self._protected_keys:
            return {k: v for k, v in x.items() if k not in self._protected_keys}
        return x

    def _join(self, attacked: Any, x: Any) -> Any:
        return {**x, **attacked} if isinstance(x, Mapping) else attacked
