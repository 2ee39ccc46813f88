"""Values that decay during training."""

from typing import Any

import tensorflow as tf

from nsl import configs


def decay_over_time(
    global_step: Any, decay_config: configs.DecayConfig, init_value: Any = 1.0
) -> tf.Tensor:
    """Returns the decayed value of `init_value` at a training step.

    With t = global_step / decay_steps and r = decay_rate, the value is multiplied by
    r^t (exponential), 1 / (1 + r t) (inverse time) or exp(-r t) (natural exponential).
    Works eagerly and in graphs. Use the result as the weight of a loss to fade the loss
    out, or subtract it from `init_value` to let a regularizer grow.

    Args:
      global_step: The training step, a scalar.
      decay_config: The type of decay, its rate and the smallest value.
      init_value: The value at step 0, a scalar.

    Returns:
      A float32 scalar, at least `decay_config.min_value`.
    """
    step = tf.cast(global_step, tf.float32)
    time = step / tf.cast(decay_config.decay_steps, tf.float32)
    rate = tf.cast(decay_config.decay_rate, tf.float32)
    if decay_config.decay_type is configs.DecayType.EXPONENTIAL_DECAY:
        factor = tf.pow(rate, time)
    elif decay_config.decay_type is configs.DecayType.INVERSE_TIME_DECAY:
        factor = 1.0 / (1.0 + rate * time)
    else:
        factor = tf.exp(-rate * time)
    value = tf.cast(init_value, tf.float32) * factor
    return tf.maximum(value, tf.cast(decay_config.min_value, tf.float32))
