"""One output of a classifier at samples and at their adversarial neighbors."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from nsl.configs import AdvRegConfig
from nsl.keras.compiled_losses import OutputLoss
from nsl.keras.passes import CleanPass, Passes
from nsl.lib import keras_internals
from nsl.lib.replicas import share_of_mean


@dataclasses.dataclass(frozen=True)
class OutputPair:
    """One output at the samples and at their neighbors.

    Attributes:
      clean: Logits at the samples, float32 or float64, of shape [batch, ..., classes].
        Where the model gives probabilities, those that they were computed of if Keras
        kept them, otherwise their logarithms.
      adversarial: Logits at the neighbors, of the same shape.
      binary: Whether each element is the logit of a yes by itself, instead of that of
        one class along the last axis.
      loss: The compiled loss of the output, with its labels and weights; None if the
        model was compiled without one.
      mask: True for the positions that count, of shape [batch, ...], or None.
    """

    clean: tf.Tensor
    adversarial: tf.Tensor
    binary: bool
    loss: OutputLoss | None
    mask: tf.Tensor | None = None

    def clean_log_probabilities(self) -> tf.Tensor:
        """Computes log p(x), with no and yes along a new last axis if binary."""
        return _log_probabilities(self.clean, self.binary)

    def adversarial_log_probabilities(self) -> tf.Tensor:
        """Computes log p(x'), with no and yes along a new last axis if binary."""
        return _log_probabilities(self.adversarial, self.binary)

    def divergence(self) -> tf.Tensor:
        """Computes KL(p(x) || p(x')), of the shape of the output without classes."""
        log_p = self.clean_log_probabilities()
        log_q = self.adversarial_log_probabilities()
        return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=-1)

    def targets(self) -> tf.Tensor:
        """Returns the labels as probabilities, of the shape of log-probabilities."""
        if self.loss is None:
            raise ValueError("This objective needs labels: compile with a loss.")
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
        """Averages losses as Keras's 'sum_over_batch_size' does.

        Args:
          values: Losses, of shape [batch, ...].
          weighted: Whether they are multiplied by the weights of the samples. Otherwise
            each counts once, those of weight 0 too.

        Returns:
          This replica's share of the sum divided by the number of positions that count
          in the global batch.
        """
        positions = tf.shape(values)[:1]
        kept = tf.ones([positions[0], 1], values.dtype)
        if self.mask is not None:
            kept = tf.reshape(tf.cast(self.mask, values.dtype), [positions[0], -1])
        # What one position has several of, as answers of yes or no, is averaged first.
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
    """Pairs the outputs that are class scores.

    These are the outputs with a crossentropy of Keras as compiled loss or, if
    `config.from_logits` tells what they are, all that have a loss.

    Args:
      passes: Runs the base model.
      clean: The pass over the samples, for labels and weights.
      y_pred: Outputs at the samples.
      adversarial: Outputs at the neighbors.
      config: The settings.

    Returns:
      The pairs, at least one.

    Raises:
      ValueError: If it is not known of any output that it is class scores.
    """
    losses = passes.output_losses(clean)
    pairs = []
    flat = (keras.tree.flatten(y_pred), keras.tree.flatten(adversarial))
    for loss, at_sample, at_neighbor in zip(losses, *flat, strict=True):
        # Without any labels, all outputs are compared that the config knows.
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
            f"The objective {config.objective!r} compares the probabilities of "
            "classes, so it must know whether the outputs of the model are logits or "
            "probabilities, but the compiled loss does not tell: it is "
            f"{passes.compiled_with!r}. Compile with a crossentropy of Keras, "
            "or say AdvRegConfig(from_logits=True) or False."
        )
    return pairs


def _logits(output: tf.Tensor, from_logits: bool, binary: bool) -> tf.Tensor:
    if not from_logits:
        # Keras keeps what went into its softmax or sigmoid. The logarithm of a
        # probability that was rounded to 0 would be cut off.
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
