"""Target classes of attacks."""

from typing import Any

import tensorflow as tf

from nsl import configs


def get_target_indices(
    logits: Any, labels: Any, adv_target_config: configs.AdvTargetConfig
) -> tf.Tensor:
    """Chooses the target class of an attack on each sample.

    Args:
      logits: A floating tensor of shape [batch, classes].
      labels: The true classes, an integer tensor of shape [batch].
      adv_target_config: How to choose the class. A random one may be the true one.

    Returns:
      An integer tensor of shape [batch]: `labels` for the ground truth, otherwise
      int32.

    Raises:
      ValueError: If the second most likely class is requested but there are fewer than
        two classes.
    """
    logits = tf.convert_to_tensor(logits)
    method = adv_target_config.target_method
    if method is configs.AdvTargetType.GROUND_TRUTH:
        return tf.convert_to_tensor(labels)
    if method is configs.AdvTargetType.LEAST:
        return tf.argmin(logits, axis=-1, output_type=tf.int32)
    if method is configs.AdvTargetType.SECOND:
        classes = logits.shape[-1]
        if classes is not None and classes < 2:
            raise ValueError(
                "AdvTargetType.SECOND needs at least two classes, but the logits have "
                f"shape {tuple(logits.shape)}."
            )
        return tf.math.top_k(logits, k=2).indices[..., 1]
    seed = adv_target_config.random_seed
    return tf.random.uniform(
        tf.shape(logits)[:-1],
        maxval=tf.shape(logits)[-1],
        dtype=tf.int32,
        seed=None if seed is None else int(seed),
    )
