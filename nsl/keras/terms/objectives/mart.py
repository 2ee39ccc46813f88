"""MART: adversarial training that minds what is misclassified when clean."""

from typing import Any

import tensorflow as tf

from nsl.configs import AdvObjective, AdvRegConfig
from nsl.keras.terms.objectives.objective import AdversarialObjective, AdversarialPasses
from nsl.keras.terms.objectives.output_pair import OutputPair


class Mart(AdversarialObjective, objective=AdvObjective.MART):
    """A boosted crossentropy at the neighbors, and a divergence weighted by doubt.

        BCE(p(x'), y) + multiplier * KL(p(x) || p(x')) * (1 - p_y(x))
        BCE(p, y) = -log p_y - log(1 - max_{k != y} p_k)

    Wang et al. (2020), https://openreview.net/forum?id=rklOg6EFwS, equations 10 and 11;
    the neighbor maximizes the labeled loss, and the multiplier is their lambda.
    """

    replaces_labeled_loss = True

    def __call__(self, passes: AdversarialPasses, config: AdvRegConfig) -> tf.Tensor:
        """Computes the loss, the multiplier included; weights are those of samples."""
        return tf.add_n([_loss(pair, config.multiplier) for pair in passes.outputs()])


def _loss(pair: OutputPair, multiplier: Any) -> tf.Tensor:
    targets = pair.targets()
    clean = pair.clean_log_probabilities()
    adversarial = pair.adversarial_log_probabilities()
    crossentropy = -tf.reduce_sum(targets * adversarial, axis=-1)
    lowest = tf.fill(tf.shape(adversarial), adversarial.dtype.min)
    wrong = tf.where(_chosen(targets), lowest, adversarial)
    # log(1 - p_k) as the logarithm of the other classes' sum is exact for p_k near 1.
    rest = tf.where(_chosen(wrong), lowest, adversarial)
    margin = -tf.reduce_logsumexp(rest, axis=-1)
    doubt = 1 - tf.reduce_sum(targets * tf.exp(clean), axis=-1)
    return pair.mean(crossentropy + margin + multiplier * pair.divergence() * doubt)


def _chosen(scores: tf.Tensor) -> tf.Tensor:
    """Marks the class of the highest score."""
    best = tf.argmax(scores, axis=-1)
    return tf.one_hot(best, scores.shape[-1], on_value=True, off_value=False)
