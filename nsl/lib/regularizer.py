"""Losses at adversarial points."""

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
      adv_neighbors: What `gen_adv_neighbor` returned, of shape [batch, ...].
      target_scores: The labels that `loss_fn` takes.
      model_fn: Predictions of features. It is called with `is_train`, a false tensor,
        and `reuse=True` as keywords.
      loss_fn: A scalar loss of labels and predictions.

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

    The direction of the perturbation is that of largest change, which power iteration
    finds from a random one; no labels are needed. Miyato et al. (2018), algorithm 1,
    https://arxiv.org/abs/1704.03976.

    Args:
      input_layer: A floating tensor of shape [batch, ...], or a structure of them.
      embedding_fn: The embedding of such features.
      virtual_adv_config: Norm, length and mask of the perturbation, the distance
        between embeddings, and the number of power iterations.
      embedding: `embedding_fn(input_layer)`, if known.

    Returns:
      The distance between the embeddings with and without the perturbation, a scalar.
      Its gradient goes through the perturbed embedding alone.
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
      noise: The direction that power iteration starts from, in the structure and
        shapes of `input_layer`.

    Returns:
      As there.
    """
    neighbor_config = virtual_adv_config.adv_neighbor_config
    if neighbor_config.embedding_layer or neighbor_config.norm_per_position:
        raise ValueError(
            "virtual_adv_regularizer knows no layers, and perturbs input_layer in one "
            f"norm, but received {neighbor_config}. Use embedding_layer and "
            "norm_per_position with nsl.keras.AdversarialRegularization."
        )
    # What is pulled is the perturbed embedding, not the clean one towards it.
    embedding = tf.stop_gradient(embedding)

    def direction(perturbation: Any) -> Any:
        masked = apply_feature_mask(perturbation, neighbor_config.feature_mask)
        # No lower bound of the norm: the gradient of so small a change is itself small.
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
