"""The objectives of adversarial regularization, one class each."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

import tensorflow as tf

from nsl.configs import AdvObjective, AdvRegConfig
from nsl.keras.clean_pass import CleanPass
from nsl.keras.passes import Passes
from nsl.keras.terms.named_objective import NamedObjective
from nsl.keras.terms.output_pair import OutputPair, output_pairs


class AdversarialPasses:
    """The pass over the samples and the pass over their adversarial neighbors.

    Attributes:
      clean: The clean pass.

    Args:
      passes: Runs the base model.
      clean: The clean pass.
      neighbors: The adversarial neighbors, in the structure of `clean.x`.
      y_pred: The outputs of the base model at the adversarial neighbors.
      config: The settings.
    """

    def __init__(
        self,
        passes: Passes,
        clean: CleanPass,
        neighbors: Any,
        y_pred: Any,
        config: AdvRegConfig,
    ) -> None:
        self.clean = clean
        self._passes = passes
        self._neighbors = neighbors
        self._y_pred = y_pred
        self._config = config

    def labeled_loss(self) -> tf.Tensor:
        """Computes the compiled loss at the adversarial neighbors."""
        return self._passes.labeled_loss(self._neighbors, self._y_pred, self.clean)

    def outputs(self) -> list[OutputPair]:
        """Pairs the class scores at the samples with those at the neighbors.

        Returns:
          One pair for each output of class scores, at least one.

        Raises:
          ValueError: If no output is known to be class scores; see
            `AdvRegConfig.from_logits`.
        """
        of_samples, of_neighbors = self.clean.y_pred, self._y_pred
        return output_pairs(
            self._passes, self.clean, of_samples, of_neighbors, self._config
        )


class AdversarialObjective(
    NamedObjective, setting="AdvRegConfig.objective", title="objectives"
):
    """A loss that is minimized at the adversarial neighbors of samples.

    A subclass registers a name for `AdvRegConfig(objective=...)`:

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
      climbs_divergence: Whether the attack maximizes the KL divergence of the outputs
        from those of the samples, which needs no labels, instead of the labeled loss.
      replaces_labeled_loss: Whether the objective includes a labeled loss, which
        replaces the compiled one. It then applies `config.multiplier` itself.
      bounds_outputs: Whether the outputs come from interval bounds over the ball
        instead of from adversarial neighbors.
    """

    climbs_divergence: ClassVar[bool] = False
    replaces_labeled_loss: ClassVar[bool] = False
    bounds_outputs: ClassVar[bool] = False

    @abc.abstractmethod
    def __call__(self, passes: AdversarialPasses, config: AdvRegConfig) -> tf.Tensor:
        """Computes the loss, without the multiplier.

        Under a distribution strategy, the losses of all replicas add up to the loss of
        the global batch. `OutputPair.mean` takes care of that.

        Args:
          passes: The passes over the samples and over their adversarial neighbors.
          config: The settings.

        Returns:
          The loss, a scalar; or one value per sample if the compiled loss has
          reduction None.
        """


class _LabeledLoss(AdversarialObjective, objective=AdvObjective.LABELED):
    """The compiled loss at the adversarial neighbors, L(x', y).

    Goodfellow et al. (2015), https://arxiv.org/abs/1412.6572, section 6. With
    `mode='replace'`: Madry et al. (2018), https://arxiv.org/abs/1706.06083, equation
    2.1.
    """

    def __call__(self, passes: AdversarialPasses, config: AdvRegConfig) -> tf.Tensor:
        """Computes the loss, with the reduction of the compiled loss."""
        del config
        return passes.labeled_loss()


class _Trades(AdversarialObjective, objective=AdvObjective.TRADES):
    """KL(p(x) || p(x')), at the neighbor x' that maximizes it.

    Zhang et al. (2019), https://arxiv.org/abs/1901.08573, algorithm 1. The multiplier
    is 1 / lambda in the paper and beta in its code. Gradients flow through p(x) and
    p(x').
    """

    climbs_divergence = True

    def __call__(self, passes: AdversarialPasses, config: AdvRegConfig) -> tf.Tensor:
        """Computes the mean over samples, with the sample weights."""
        del config
        return tf.add_n([pair.mean(pair.divergence()) for pair in passes.outputs()])


class _Mart(AdversarialObjective, objective=AdvObjective.MART):
    """A boosted crossentropy at the neighbors plus a weighted divergence.

        BCE(p(x'), y) + multiplier * KL(p(x) || p(x')) * (1 - p_y(x))
        BCE(p, y) = -log p_y - log(1 - max_{k != y} p_k)

    Wang et al. (2020), https://openreview.net/forum?id=rklOg6EFwS, equations 10 and 11.
    The neighbor maximizes the labeled loss. The multiplier is lambda in the paper.
    """

    replaces_labeled_loss = True

    def __call__(self, passes: AdversarialPasses, config: AdvRegConfig) -> tf.Tensor:
        """Computes the loss, including the multiplier, with the sample weights."""
        return tf.add_n(
            [_mart_loss(pair, config.multiplier) for pair in passes.outputs()]
        )


def _mart_loss(pair: OutputPair, multiplier: Any) -> tf.Tensor:
    targets = pair.targets()
    clean = pair.clean_log_probabilities()
    adversarial = pair.adversarial_log_probabilities()
    crossentropy = -tf.reduce_sum(targets * adversarial, axis=-1)
    lowest = tf.fill(tf.shape(adversarial), adversarial.dtype.min)
    wrong = tf.where(_chosen(targets), lowest, adversarial)
    # log(1 - p_k) as a logsumexp of the other classes is accurate for p_k near 1.
    rest = tf.where(_chosen(wrong), lowest, adversarial)
    margin = -tf.reduce_logsumexp(rest, axis=-1)
    error = 1 - tf.reduce_sum(targets * tf.exp(clean), axis=-1)
    return pair.mean(crossentropy + margin + multiplier * pair.divergence() * error)


def _chosen(scores: tf.Tensor) -> tf.Tensor:
    """Marks the class with the highest score."""
    best = tf.argmax(scores, axis=-1)
    return tf.one_hot(best, scores.shape[-1], on_value=True, off_value=False)


class _LogitPairing(AdversarialObjective, objective=AdvObjective.LOGIT_PAIRING):
    """The labeled loss at samples and neighbors plus the distance of their logits.

        (L(x, y) + L(x', y)) / 2 + multiplier * mean (z(x) - z(x'))^2

    Kannan et al. (2018), https://arxiv.org/abs/1803.06373, section 4.1. The labeled
    loss is the mean over samples and neighbors; the squared distance is averaged over
    samples and classes.
    """

    replaces_labeled_loss = True

    def __call__(self, passes: AdversarialPasses, config: AdvRegConfig) -> tf.Tensor:
        """Computes the loss, including the multiplier."""
        distances = []
        for pair in passes.outputs():
            square = tf.math.squared_difference(pair.clean, pair.adversarial)
            if not pair.binary:
                square = tf.reduce_mean(square, axis=-1)
            distances.append(pair.mean(square))
        labeled = (passes.clean.labeled_loss + passes.labeled_loss()) / 2
        multiplier: Any = config.multiplier
        return labeled + multiplier * tf.add_n(distances)


class _VirtualAdversarial(AdversarialObjective, objective=AdvObjective.VIRTUAL):
    """KL(p(x) || p(x')) with p(x) constant, over labeled and unlabeled samples.

    Miyato et al. (2018), https://arxiv.org/abs/1704.03976, equations 5 and 6. One
    iteration equals one power iteration of the paper, where `adv_step_size` is epsilon
    in the L2 norm; further iterations are projected gradient ascent. Sample weights are
    ignored, so that unlabeled samples, which have weight 0, count fully.
    """

    climbs_divergence = True

    def __call__(self, passes: AdversarialPasses, config: AdvRegConfig) -> tf.Tensor:
        """Computes the mean over all samples, labeled or not."""
        del config
        fixed = [
            dataclasses.replace(pair, clean=tf.stop_gradient(pair.clean))
            for pair in passes.outputs()
        ]
        return tf.add_n([p.mean(p.divergence(), weighted=False) for p in fixed])


class _IntervalBounds(AdversarialObjective, objective=AdvObjective.INTERVAL_BOUNDS):
    """The compiled loss at the worst-case logits of interval bounds, L(z, y).

    Gowal et al. (2018), https://arxiv.org/abs/1810.12715, equation 11. The multiplier
    is (1 - kappa) / kappa in the paper.
    """

    bounds_outputs = True

    def __call__(self, passes: AdversarialPasses, config: AdvRegConfig) -> tf.Tensor:
        """Computes the loss, with the reduction of the compiled loss."""
        del config
        return passes.labeled_loss()
