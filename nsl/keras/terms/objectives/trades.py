"""TRADES: the divergence of predictions at adversarial neighbors."""

import tensorflow as tf

from nsl.configs import AdvObjective, AdvRegConfig
from nsl.keras.terms.objectives.objective import AdversarialObjective, AdversarialPasses


class Trades(AdversarialObjective, objective=AdvObjective.TRADES):
    """KL(p(x) || p(x')), at the neighbor x' that maximizes it.

    Zhang et al. (2019), https://arxiv.org/abs/1901.08573, algorithm 1: the multiplier
    is their 1 / lambda, which their code names beta. Gradients go through both p.
    """

    climbs_divergence = True

    def __call__(self, passes: AdversarialPasses, config: AdvRegConfig) -> tf.Tensor:
        """Computes the mean over the samples, weighted as the labeled loss is."""
        del config
        return tf.add_n([pair.mean(pair.divergence()) for pair in passes.outputs()])
