"""The adversarial loss as a function, for custom training loops."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from nsl.configs import AdvMode, AdvObjective, AdvRegConfig
from nsl.lib.adversarial_neighbor import gen_adv_neighbor, is_perturbable


def adversarial_loss(
    features: Any,
    labels: Any,
    model: Callable[..., Any],
    loss_fn: Callable[..., tf.Tensor],
    sample_weights: Any = None,
    adv_config: AdvRegConfig | None = None,
    predictions: Any = None,
    labeled_loss: tf.Tensor | None = None,
    gradient_tape: tf.GradientTape | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
) -> tf.Tensor:
    """Computes the loss of a model at the adversarial neighbors of its samples.

    What has been computed already can be handed in: `predictions`, or the whole
    `labeled_loss`, together with the tape that recorded it and watches `features`.

    ```python
    with tf.GradientTape() as tape:
        with tf.GradientTape() as tape_x:
            tape_x.watch(x)
            labeled_loss = loss_fn(y, model(x, training=True))
        adv_loss = nsl.keras.adversarial_loss(
            x, y, model, loss_fn, labeled_loss=labeled_loss, gradient_tape=tape_x,
            model_kwargs={"training": True})
        loss = labeled_loss + 0.2 * adv_loss
    gradients = tape.gradient(loss, model.trainable_weights)
    ```

    Args:
      features: A tensor or nested structure of tensors, the batch first.
      labels: Labels, as `loss_fn` takes them.
      model: A callable from features to predictions, as a Keras model.
      loss_fn: A callable from `(labels, predictions, sample_weights)` to a loss, as a
        `keras.losses.Loss`; without weights `(labels, predictions)` is enough.
      sample_weights: Weights of the samples, of shape `[batch_size]`, or None.
      adv_config: Settings of the adversarial neighbor; the multiplier is not applied,
        and the objective must be 'labeled'.
      predictions: `model(features)`, if known.
      labeled_loss: `loss_fn(labels, model(features))`, if known.
      gradient_tape: The tape that recorded `predictions` or `labeled_loss` and watched
        `features`. In graph mode it is not needed.
      model_kwargs: Further arguments of each call of `model`. If `training` is among
        them, the iterations that search the neighbors run with `training=False`.

    Returns:
      `loss_fn` at the adversarial neighbors. No gradient flows through the choice of
      the neighbors.

    Raises:
      ValueError: If the objective is another one, or the config says how weights are
        updated.
    """
    if adv_config is None:
        adv_config = AdvRegConfig()
    if adv_config.objective is not AdvObjective.LABELED:
        raise ValueError(
            "adversarial_loss computes the labeled loss at adversarial neighbors, but "
            f"received AdvRegConfig(objective={adv_config.objective!r}). Other "
            "objectives are trained with nsl.keras.AdversarialRegularization."
        )
    if adv_config.mode is AdvMode.FREE or adv_config.weight_perturbation != 0:
        setting = (
            "mode='free'" if adv_config.mode is AdvMode.FREE else "weight_perturbation"
        )
        raise ValueError(
            f"adversarial_loss does not update weights, but received {setting}, which "
            "says how to. Leave it out, or train with "
            "nsl.keras.AdversarialRegularization."
        )
    model_kwargs = dict(model_kwargs or {})
    # Searching the neighbors must not move batch statistics or drop units.
    searched = {"training": False} if "training" in model_kwargs else {}
    search_model = functools.partial(model, **{**model_kwargs, **searched})
    model = functools.partial(model, **model_kwargs)

    def weighted_loss(y_true: Any, y_pred: Any) -> tf.Tensor:
        if sample_weights is None:
            return loss_fn(y_true, y_pred)
        return loss_fn(y_true, y_pred, sample_weights)

    if labeled_loss is None:
        gradient_tape = gradient_tape or tf.GradientTape()
        with gradient_tape:
            gradient_tape.watch(
                [f for f in tf.nest.flatten(features) if is_perturbable(f)]
            )
            if predictions is None:
                predictions = model(features)
            labeled_loss = weighted_loss(labels, predictions)
    neighbors, _ = gen_adv_neighbor(
        features,
        labeled_loss,
        config=adv_config.adv_neighbor_config,
        gradient_tape=gradient_tape,
        pgd_model_fn=search_model,
        pgd_loss_fn=weighted_loss,
        pgd_labels=labels,
    )
    return weighted_loss(labels, model(neighbors))
