"""Class scores at samples and at their adversarial neighbors."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from nsl.configs import AdvRegConfig
from nsl.keras.clean_pass import CleanPass
from nsl.keras.compiled_losses import OutputLoss
from nsl.keras.passes import Passes
from nsl.lib import keras_internals
from nsl.lib.replicas import share_of_mean


@dataclasses.dataclass(frozen=True)
class OutputPair:
    """The logits of one output at the samples and at their adversarial neighbors.

    Attributes:
      clean: Logits at the samples, float32 or float64, of shape [batch, ..., classes].
        If the model returns probabilities, these are the inputs of its softmax or
        sigmoid where Keras keeps them, and else the logarithms of the probabilities
        (log-odds if binary).
      adversarial: Logits at the neighbors, of the same shape and dtype.
      binary: Whether each element is the logit of a binary classification of its own,
        instead of one class along the last axis.
      loss: The compiled loss of the output with its labels and sample weights, or None.
      mask: False for padding, bool of shape [batch, ...], or None if there is none.
    """

    clean: tf.Tensor
    adversarial: tf.Tensor
    binary: bool
    loss: OutputLoss | None
    mask: tf.Tensor | None = None

    def clean_log_probabilities(self) -> tf.Tensor:
        """Computes log p(x), of shape [..., classes]; [..., 2] if binary."""
        return _log_probabilities(self.clean, self.binary)

    def adversarial_log_probabilities(self) -> tf.Tensor:
        """Computes log p(x'), of shape [..., classes]; [..., 2] if binary."""
        return _log_probabilities(self.adversarial, self.binary)

    def divergence(self) -> tf.Tensor:
        """Computes KL(p(x) || p(x')), of shape [batch, ...], without the class axis."""
        log_p = self.clean_log_probabilities()
        log_q = self.adversarial_log_probabilities()
        return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=-1)

    def targets(self) -> tf.Tensor:
        """Returns the labels as probabilities.

        Returns:
          A tensor with the shape and dtype of `clean_log_probabilities`.

        Raises:
          ValueError: If the output was compiled without a loss.
        """
        if self.loss is None:
            raise ValueError(
                "The objective needs labels, but this output of the model was compiled "
                "without a loss. Compile with a loss."
            )
        scores = self.clean_log_probabilities()
        labels = tf.convert_to_tensor(self.loss.labels)
        if self.binary:
            labels = tf.cast(tf.reshape(labels, tf.shape(self.clean)), scores.dtype)
            return tf.stack([1 - labels, labels], axis=-1)
        if labels.shape.rank == scores.shape.rank and labels.shape[-1] != 1:
            return tf.cast(labels, scores.dtype)
        labels = tf.reshape(labels, tf.shape(scores)[:-1])
        return tf.one_hot(
            tf.cast(labels, tf.int32), scores.shape[-1], dtype=scores.dtype
        )

    def mean(self, values: tf.Tensor, weighted: bool = True) -> tf.Tensor:
        """Averages losses as Keras's reduction 'sum_over_batch_size' does.

        Padding is left out. Under a distribution strategy, the results of all replicas
        add up to the mean over the global batch.

        Args:
          values: Losses, of shape [batch, ...].
          weighted: Whether to multiply by the sample weights. If not, samples of weight
            0 count as well.

        Returns:
          This replica's share of the mean, a scalar.
        """
        positions = tf.shape(values)[:1]
        kept = tf.ones([positions[0], 1], values.dtype)
        if self.mask is not None:
            kept = tf.reshape(tf.cast(self.mask, values.dtype), [positions[0], -1])
        # A position may have several values, such as the classes of a multi-label
        # output, which are averaged.
        values = tf.reshape(values, [positions[0], tf.shape(kept)[1], -1])
        values = tf.reduce_mean(values, axis=-1) * kept
        weights = self.loss.sample_weight if weighted and self.loss else None
        if weights is not None:
            values *= tf.cast(weights, values.dtype)[:, tf.newaxis]
        return share_of_mean(tf.reduce_sum(values), tf.reduce_sum(kept))


def output_pairs(
    passes: Passes,
    clean: CleanPass,
    y_pred: Any,
    adversarial: Any,
    config: AdvRegConfig,
) -> list[OutputPair]:
    """Pairs the outputs of class scores.

    These are the outputs compiled with a Keras crossentropy or, if `config.from_logits`
    is set, all outputs with a loss.

    Args:
      passes: Runs the base model.
      clean: The clean pass, for labels and sample weights.
      y_pred: The outputs at the samples.
      adversarial: The outputs at the adversarial neighbors.
      config: The settings.

    Returns:
      The pairs, at least one.

    Raises:
      ValueError: If no output is known to be class scores.
    """
    losses = passes.output_losses(clean)
    pairs = []
    flat = (keras.tree.flatten(y_pred), keras.tree.flatten(adversarial))
    for loss, at_sample, at_neighbor in zip(losses, *flat, strict=True):
        # If no output has a loss, config.from_logits describes all of them.
        if loss is None and any(losses):
            continue
        from_logits, binary = config.from_logits, None
        if loss is not None:
            from_logits = loss.from_logits if from_logits is None else from_logits
            binary = loss.binary
        if from_logits is None:
            continue
        if binary is None:
            binary = at_sample.shape.rank == 1 or at_sample.shape[-1] == 1
        pairs.append(
            OutputPair(
                clean=_logits(at_sample, from_logits, binary),
                adversarial=_logits(at_neighbor, from_logits, binary),
                binary=binary,
                loss=loss,
                mask=keras_internals.mask_of(at_neighbor),
            )
        )
    if not pairs:
        raise ValueError(
            f"The objective {config.objective!r} compares class probabilities, so it "
            "needs to know whether the model returns logits or probabilities. Expected "
            "a compiled loss that implies it, but received "
            f"{passes.loss_argument!r}. Compile with a crossentropy of Keras, or set "
            "AdvRegConfig(from_logits=True) or AdvRegConfig(from_logits=False)."
        )
    return pairs


def _logits(output: tf.Tensor, from_logits: bool, binary: bool) -> tf.Tensor:
    if not from_logits:
        # Keras keeps the input of its softmax or sigmoid. The logarithm of a
        # probability that underflowed to 0 would be clipped.
        kept = keras_internals.logits_of(output)
        if kept is not None and kept.shape.rank == output.shape.rank:
            output, from_logits = kept, True
    if output.dtype != tf.float64:
        output = tf.cast(output, tf.float32)
    if from_logits:
        return output
    output = tf.clip_by_value(output, keras.config.epsilon(), 1.0)
    if not binary:
        return tf.math.log(output)
    others = tf.clip_by_value(1.0 - output, keras.config.epsilon(), 1.0)
    return tf.math.log(output) - tf.math.log(others)


def _log_probabilities(logits: tf.Tensor, binary: bool) -> tf.Tensor:
    if binary:
        sides = [tf.math.log_sigmoid(-logits), tf.math.log_sigmoid(logits)]
        return tf.stack(sides, axis=-1)
    return tf.nn.log_softmax(logits)
