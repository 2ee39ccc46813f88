"""Adversarial logit pairing: equal logits at samples and neighbors."""

import tensorflow as tf

from nsl.configs import AdvObjective, AdvRegConfig
from nsl.keras.terms.objectives.objective import AdversarialObjective, AdversarialPasses


class LogitPairing(AdversarialObjective, objective=AdvObjective.LOGIT_PAIRING):
    """The labeled loss at samples and neighbors, and the distance of their logits.

        (L(x, y) + L(x', y)) / 2 + multiplier * mean (z(x) - z(x'))^2

    Kannan et al. (2018), https://arxiv.org/abs/1803.06373, section 4.1: the labeled
    part is that of a batch that holds samples and neighbors, and the square is averaged
    over samples and classes.
    """

    replaces_labeled_loss = True

    def __call__(self, passes: AdversarialPasses, config: AdvRegConfig) -> tf.Tensor:
        """Computes the loss, the multiplier included."""
        distances = []
        for pair in passes.outputs():
            square = tf.math.squared_difference(pair.clean, pair.adversarial)
            if not pair.binary:
                square = tf.reduce_mean(square, axis=-1)
            distances.append(pair.mean(square))
        labeled = (passes.clean.labeled_loss + passes.labeled_loss()) / 2
        return labeled + config.multiplier * tf.add_n(distances)
