"""A graph loss of one's own: labels that spread without one class taking all."""

from typing import Any

import keras
import tensorflow as tf

import nsl

BALANCE = 0.5


class BalancedPropagation(nsl.keras.GraphLoss, objective="balanced_propagation"):
    """The objective 'propagation', with classes that win too much held back.

    As there, the first part is the labeled loss of what the neighbors of a sample
    predict together, and the second holds each sample against that, sharpened. With
    very few labels sharpening lets one class grow until all samples have it. So each
    target is divided by the share that its class has among the targets of the batch,
    to the power BALANCE (Berthelot et al., 2020, "ReMixMatch",
    https://arxiv.org/abs/1911.09785, call it distribution alignment): at 1 all classes
    would get equal shares, at 0 nothing is changed.
    """

    def __call__(self, outputs: Any, config: nsl.configs.GraphRegConfig) -> tf.Tensor:
        """Computes the loss of an output that holds probabilities."""
        mean = nsl.lib.neighbor_mean_prediction(
            tf.stack(outputs.neighbors, axis=1), outputs.weights
        )
        there = tf.cast(tf.reduce_any(outputs.weights > 0, axis=1), tf.float32)
        counts = there * outputs.loss.sample_weight
        values = counts * outputs.loss.per_sample(mean)
        labeled = self.mean(tf.reduce_sum(values), tf.reduce_sum(counts))

        log_target = tf.nn.log_softmax(tf.math.log(mean + 1e-7) / config.temperature)
        shares = tf.reduce_sum(there[:, tf.newaxis] * tf.exp(log_target), axis=0)
        shares = tf.math.log(shares / tf.reduce_sum(shares) + 1e-6)
        target = tf.stop_gradient(tf.nn.softmax(log_target - BALANCE * shares))
        values = there * keras.losses.kl_divergence(target, outputs.samples)
        return labeled + self.mean_over_samples(values, outputs.weights)
