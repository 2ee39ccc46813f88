"""The labeled loss at adversarial neighbors."""

import tensorflow as tf

from nsl.configs import AdvObjective, AdvRegConfig
from nsl.keras.terms.objectives.objective import AdversarialObjective, AdversarialPasses


class LabeledLoss(AdversarialObjective, objective=AdvObjective.LABELED):
    """The compiled loss at the neighbors, L(x', y).

    Goodfellow et al. (2015), https://arxiv.org/abs/1412.6572, section 6. Alone, with
    `mode='replace'`: Madry et al. (2018), https://arxiv.org/abs/1706.06083, equation
    2.1.
    """

    def __call__(self, passes: AdversarialPasses, config: AdvRegConfig) -> tf.Tensor:
        """Computes the loss; its reduction is that of the compiled one."""
        del config
        return passes.labeled_loss()
