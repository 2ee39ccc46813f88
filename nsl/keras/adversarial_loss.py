"""The adversarial loss for custom training loops."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from nsl.configs import AdvObjective, AdvRegConfig
from nsl.keras.terms import AdversarialTerm
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
    """Computes the loss of a model at the adversarial neighbors of samples.

    To avoid a second pass over the samples, pass `predictions` or `labeled_loss`,
    together with the tape that recorded them and watches `features`.

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
      features: A tensor or structure of tensors with the batch as first axis. Dense
        floating tensors are perturbed.
      labels: Labels, as `loss_fn` takes them.
      model: A callable from features to predictions, such as a Keras model.
      loss_fn: A callable from `(labels, predictions, sample_weights)` to a loss, such
        as a `keras.losses.Loss`; without weights, from `(labels, predictions)`.
      sample_weights: Sample weights of shape `[batch_size]`, or None.
      adv_config: The settings, by default `AdvRegConfig()`. The objective must be
        'labeled'. The multiplier is ignored.
      predictions: `model(features)`, if known.
      labeled_loss: `loss_fn(labels, model(features))`, if known.
      gradient_tape: The tape that recorded `predictions` or `labeled_loss` and watched
        `features`. Optional in graph mode.
      model_kwargs: Further arguments of `model`. If `training` is one of them, the
        attack runs with `training=False`.

    Returns:
      The result of `loss_fn` at the adversarial neighbors. The neighbors are constants:
      no gradients flow through the attack.

    Raises:
      ValueError: If the config has another objective than 'labeled', `mode='free'` or
        a `weight_perturbation`.
    """
    if adv_config is None:
        adv_config = AdvRegConfig()
    if adv_config.objective is not AdvObjective.LABELED:
        raise ValueError(
            "adversarial_loss computes the labeled loss at adversarial neighbors, but "
            f"received AdvRegConfig(objective={adv_config.objective!r}). Use "
            "nsl.keras.AdversarialRegularization for other objectives."
        )
    AdversarialTerm(adv_config).check_plain_update("adversarial_loss")
    model_kwargs = dict(model_kwargs or {})
    # The attack must not update batch statistics or apply dropout.
    attack_kwargs = {"training": False} if "training" in model_kwargs else {}
    attacked_model = functools.partial(model, **{**model_kwargs, **attack_kwargs})
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
        pgd_model_fn=attacked_model,
        pgd_loss_fn=weighted_loss,
        pgd_labels=labels,
    )
    return weighted_loss(labels, model(neighbors))
