"""What adversarial regularization can minimize: one class for each objective."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

import tensorflow as tf

from nsl.configs import AdvObjective, AdvRegConfig
from nsl.keras.passes import CleanPass, Passes
from nsl.keras.terms.named_objective import NamedObjective
from nsl.keras.terms.output_pair import OutputPair, output_pairs


class AdversarialPasses:
    """The pass over the samples and the pass over their adversarial neighbors.

    Attributes:
      clean: The pass over the samples.

    Args:
      passes: Runs the base model.
      clean: The pass over the samples.
      neighbors: The adversarial neighbors, in the structure of `clean.x`.
      y_pred: The outputs of the base model at the neighbors.
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
        """Computes the compiled loss at the neighbors."""
        return self._passes.labeled_loss(self._neighbors, self._y_pred, self.clean)

    def outputs(self) -> list[OutputPair]:
        """Pairs each output that is class scores at the samples and the neighbors.

        Returns:
          The pairs, at least one.

        Raises:
          ValueError: If it is not known of any output that it is class scores.
        """
        of_samples, of_neighbors = self.clean.y_pred, self._y_pred
        return output_pairs(
            self._passes, self.clean, of_samples, of_neighbors, self._config
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
      bounds_outputs: Whether no neighbors are searched, and the outputs are at least as
        bad for the labels as those of any point of the ball.
    """

    climbs_divergence: ClassVar[bool] = False
    replaces_labeled_loss: ClassVar[bool] = False
    bounds_outputs: ClassVar[bool] = False

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


class _LabeledLoss(AdversarialObjective, objective=AdvObjective.LABELED):
    """The compiled loss at the neighbors, L(x', y).

    Goodfellow et al. (2015), https://arxiv.org/abs/1412.6572, section 6. Alone, with
    `mode='replace'`: Madry et al. (2018), https://arxiv.org/abs/1706.06083, equation
    2.1.
    """

    def __call__(self, passes: AdversarialPasses, config: AdvRegConfig) -> tf.Tensor:
        """Computes the loss; its reduction is that of the compiled one."""
        del config
        return passes.labeled_loss()


class _Trades(AdversarialObjective, objective=AdvObjective.TRADES):
    """KL(p(x) || p(x')), at the neighbor x' that maximizes it.

    Zhang et al. (2019), https://arxiv.org/abs/1901.08573, algorithm 1: the multiplier
    is their 1 / lambda, which their code names beta. Gradients go through both p.
    """

    climbs_divergence = True

    def __call__(self, passes: AdversarialPasses, config: AdvRegConfig) -> tf.Tensor:
        """Computes the mean over the samples, weighted as the labeled loss is."""
        del config
        return tf.add_n([pair.mean(pair.divergence()) for pair in passes.outputs()])


class _Mart(AdversarialObjective, objective=AdvObjective.MART):
    """A boosted crossentropy at the neighbors, and a divergence weighted by doubt.

        BCE(p(x'), y) + multiplier * KL(p(x) || p(x')) * (1 - p_y(x))
        BCE(p, y) = -log p_y - log(1 - max_{k != y} p_k)

    Wang et al. (2020), https://openreview.net/forum?id=rklOg6EFwS, equations 10 and 11;
    the neighbor maximizes the labeled loss, and the multiplier is their lambda.
    """

    replaces_labeled_loss = True

    def __call__(self, passes: AdversarialPasses, config: AdvRegConfig) -> tf.Tensor:
        """Computes the loss, the multiplier included; weights are those of samples."""
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
    # log(1 - p_k) as the logarithm of the other classes' sum is exact for p_k near 1.
    rest = tf.where(_chosen(wrong), lowest, adversarial)
    margin = -tf.reduce_logsumexp(rest, axis=-1)
    doubt = 1 - tf.reduce_sum(targets * tf.exp(clean), axis=-1)
    return pair.mean(crossentropy + margin + multiplier * pair.divergence() * doubt)


def _chosen(scores: tf.Tensor) -> tf.Tensor:
    """Marks the class of the highest score."""
    best = tf.argmax(scores, axis=-1)
    return tf.one_hot(best, scores.shape[-1], on_value=True, off_value=False)


class _LogitPairing(AdversarialObjective, objective=AdvObjective.LOGIT_PAIRING):
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


class _VirtualAdversarial(AdversarialObjective, objective=AdvObjective.VIRTUAL):
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


class _IntervalBounds(AdversarialObjective, objective=AdvObjective.INTERVAL_BOUNDS):
    """The compiled loss at bounds of the logits over the ball, L(z, y).

    Gowal et al. (2018), https://arxiv.org/abs/1810.12715, equation 11; the multiplier
    is their (1 - kappa) / kappa.
    """

    bounds_outputs = True

    def __call__(self, passes: AdversarialPasses, config: AdvRegConfig) -> tf.Tensor:
        """Computes the loss; its reduction is that of the compiled one."""
        del config
        return passes.labeled_loss()
