"""Virtual adversarial training: smooth predictions, without labels."""

import dataclasses

import tensorflow as tf

from nsl.configs import AdvObjective, AdvRegConfig
from nsl.keras.terms.objectives.objective import AdversarialObjective, AdversarialPasses


class VirtualAdversarial(AdversarialObjective, objective=AdvObjective.VIRTUAL):
    """KL(p(x) || p(x')) with p(x) held fixed, over labeled and unlabeled samples.

    Miyato et al. (2018), https://arxiv.org/abs/1704.03976, equations 5 and 6. The
    neighbor of one iteration is what one power iteration finds, with `adv_step_size` as
    their epsilon under the L2 norm; further iterations are projected ascent. Samples
    without a label, which a weight of 0 marks, count like all others.
    """

    climbs_divergence = True

    def __call__(self, passes: AdversarialPasses, config: AdvRegConfig) -> tf.Tensor:
        """Computes the mean over all samples."""
        del config
        fixed = [
            dataclasses.replace(pair, clean=tf.stop_gradient(pair.clean))
            for pair in passes.outputs()
        ]
        return tf.add_n([p.mean(p.divergence(), weighted=False) for p in fixed])
