"""Regularization losses at adversarial points."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from nsl import configs
from nsl.lib import distances, features, norms
from nsl.lib.feature_mask import apply_feature_mask


def adv_regularizer(
    adv_neighbors: Any,
    target_scores: Any,
    model_fn: Callable[..., Any],
    loss_fn: Callable[[Any, Any], tf.Tensor],
) -> tf.Tensor:
    """Computes the loss at adversarial neighbors.

    Args:
      adv_neighbors: The neighbors that `gen_adv_neighbor` returned, of shape
        [batch, ...].
      target_scores: The labels passed to `loss_fn`.
      model_fn: Maps features to predictions. Called with the keywords `is_train`, a
        false bool tensor, and `reuse=True`.
      loss_fn: Maps labels and predictions to a scalar loss.

    Returns:
      The loss, a scalar.
    """
    predictions = model_fn(adv_neighbors, is_train=tf.constant(False), reuse=True)
    return loss_fn(target_scores, predictions)


def virtual_adv_regularizer(
    input_layer: Any,
    embedding_fn: Callable[[Any], tf.Tensor],
    virtual_adv_config: configs.VirtualAdvConfig,
    embedding: Any = None,
) -> tf.Tensor:
    """Computes how far a small perturbation can move the embedding of a sample.

    Power iteration, from a random direction, finds the direction that changes the
    embedding most; it needs no labels. Miyato et al. (2018), algorithm 1,
    https://arxiv.org/abs/1704.03976.

    Args:
      input_layer: A floating tensor of shape [batch, ...], or a structure of them.
      embedding_fn: Maps such features to their embedding.
      virtual_adv_config: The norm, size and mask of the perturbation, the distance
        between embeddings, and the number of power iterations.
      embedding: `embedding_fn(input_layer)`, if already computed.

    Returns:
      The distance between the embeddings with and without the perturbation, a scalar.
      Gradients flow through the perturbed embedding only.

    Raises:
      ValueError: If the config sets `embedding_layer` or `norm_per_position`.
    """
    if embedding is None:
        embedding = embedding_fn(input_layer)
    inputs = tf.nest.map_structure(tf.convert_to_tensor, input_layer)
    noise = tf.nest.map_structure(
        lambda x: tf.cast(tf.random.normal(tf.shape(x)), x.dtype), inputs
    )
    return virtual_adversarial_loss(
        inputs, embedding_fn, virtual_adv_config, embedding, noise
    )


def virtual_adversarial_loss(
    input_layer: Any,
    embedding_fn: Callable[[Any], tf.Tensor],
    virtual_adv_config: configs.VirtualAdvConfig,
    embedding: Any,
    noise: Any,
) -> tf.Tensor:
    """Computes `virtual_adv_regularizer` from a given initial direction.

    Args:
      input_layer: As there.
      embedding_fn: As there.
      virtual_adv_config: As there.
      embedding: As there.
      noise: The initial direction of the power iteration, in the structure and shapes
        of `input_layer`.

    Returns:
      As there.

    Raises:
      ValueError: As there.
    """
    neighbor_config = virtual_adv_config.adv_neighbor_config
    if neighbor_config.embedding_layer or neighbor_config.norm_per_position:
        raise ValueError(
            "virtual_adv_regularizer supports neither embedding_layer nor "
            f"norm_per_position, but received {neighbor_config}. Use "
            "nsl.keras.AdversarialRegularization for these."
        )
    # The loss pulls the perturbed embedding towards the clean one, not vice versa.
    embedding = tf.stop_gradient(embedding)

    def direction(perturbation: Any) -> Any:
        masked = apply_feature_mask(perturbation, neighbor_config.feature_mask)
        # No lower bound of the norm: gradients of such small changes are small too.
        unit = norms.normalize(masked, neighbor_config.adv_grad_norm, epsilon=0.0)
        return tf.nest.map_structure(tf.stop_gradient, unit)

    def distance(perturbation: Any) -> tf.Tensor:
        moved = tf.nest.map_structure(tf.add, input_layer, perturbation)
        return distances.pairwise_distance_wrapper(
            embedding,
            embedding_fn(moved),
            distance_config=virtual_adv_config.distance_config,
        )

    def scaled(perturbation: Any, lengths: list[Any]) -> Any:
        parts = zip(tf.nest.flatten(perturbation), lengths, strict=True)
        return tf.nest.pack_sequence_as(
            perturbation,
            [t * features.cast_exactly(length, t.dtype) for t, length in parts],
        )

    steps = features.spread(neighbor_config.adv_step_size, input_layer, "adv_step_size")
    differences = [virtual_adv_config.approx_difference] * len(steps)
    perturbation = direction(noise)
    for _ in range(virtual_adv_config.num_approx_steps):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            probe = scaled(perturbation, differences)
            tape.watch(probe)
            change = distance(probe)
        gradient = tape.gradient(
            change, probe, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        perturbation = direction(gradient)
    return distance(scaled(perturbation, steps))
