"""Objectives that white-box attacks maximize: one value per example.

An objective takes logits z of shape [batch, classes] and the true classes y of shape
[batch]. It returns a tensor of shape [batch] that grows as y becomes less likely. Given
target classes t of shape [batch], it grows as t becomes more likely.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

from nsl.lib.registry import Registry

_STRAIGHT_BELOW = -30.0

Objective: TypeAlias = Callable[[tf.Tensor, tf.Tensor, tf.Tensor | None], tf.Tensor]


def cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor | None = None
) -> tf.Tensor:
    """Computes the cross-entropy of the true class, or the negative one of the target.

    With d the logarithm of the summed exponentials of all other logits, minus the
    class's own, it is log(1 + exp(d)). Its gradient vanishes in float32 for
    overconfident models, so that below d = -30 (1e-13) the tangent there replaces it.

    Args:
      logits: A floating tensor of shape [batch, classes].
      labels: The true classes, an integer tensor of shape [batch].
      targets: The target classes, an integer tensor of shape [batch], or None.

    Returns:
      -log softmax(z)_y, or log softmax(z)_t; a tensor of shape [batch].
    """
    classes = labels if targets is None else targets
    others = tf.reduce_logsumexp(_others(logits, classes), axis=1)
    lead = others - logit_of(logits, classes)
    curved = tf.maximum(lead, _STRAIGHT_BELOW)
    found = tf.nn.softplus(curved) + math.exp(_STRAIGHT_BELOW) * (lead - curved)
    return found if targets is None else -found


def margin(
    logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor | None = None
) -> tf.Tensor:
    """Computes the margin of the likeliest wrong class, or of the target.

    Carlini & Wagner (2017), https://arxiv.org/abs/1608.04644, f_6 without its upper
    limit. Arguments as in `cross_entropy`.

    Returns:
      max_{j != y} z_j - z_y, or z_t - max_{j != t} z_j, of shape [batch]; positive if
      the attack has succeeded.
    """
    if targets is None:
        return likeliest_other(logits, labels) - logit_of(logits, labels)
    return logit_of(logits, targets) - likeliest_other(logits, targets)


def dlr(
    logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor | None = None
) -> tf.Tensor:
    """Computes the difference of logits ratio (DLR) loss.

    The loss is invariant to the scale and offset of the logits, so its gradient does
    not vanish for overconfident models. Croce & Hein (2020),
    https://arxiv.org/abs/2003.01690, equations 6 and 7; pi sorts the logits in
    descending order. Arguments as in `cross_entropy`.

    Returns:
      -(z_y - max_{j != y} z_j) / (z_pi1 - z_pi3), or
      -(z_y - z_t) / (z_pi1 - (z_pi3 + z_pi4) / 2); a tensor of shape [batch].

    Raises:
      ValueError: If there are fewer than three classes; with targets, four.
    """
    needed = 3 if targets is None else 4
    classes = logits.shape[-1]
    if classes is not None and classes < needed:
        raise ValueError(
            f"The objective 'dlr' needs at least {needed} classes"
            f"{'' if targets is None else ' with targets'}, but the model has "
            f"{classes}. Use 'margin' or 'cross_entropy'."
        )
    largest = tf.math.top_k(logits, k=needed).values
    if targets is None:
        lead = logit_of(logits, labels) - likeliest_other(logits, labels)
        spread = largest[:, 0] - largest[:, 2]
    else:
        lead = logit_of(logits, labels) - logit_of(logits, targets)
        spread = largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2
    return -lead / (spread + 1e-12)


def likeliest_other(logits: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """Returns the largest logit of all other classes, of shape [batch]."""
    return tf.reduce_max(_others(logits, classes), axis=1)


def _others(logits: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """Returns the logits with the lowest finite number at each example's class."""
    lowest = tf.fill(tf.shape(logits), logits.dtype.min)
    return tf.where(_one_hot(logits, classes), lowest, logits)


def logit_of(logits: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """Returns the logit of each example's class, of shape [batch]."""
    chosen = tf.where(_one_hot(logits, classes), logits, tf.zeros_like(logits))
    return tf.reduce_sum(chosen, axis=1)


def _one_hot(logits: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    return tf.one_hot(classes, tf.shape(logits)[1], on_value=True, off_value=False)


OBJECTIVES: Registry[Objective] = Registry(
    "objective",
    "objectives",
    "Or pass a function of (logits, labels, targets) that returns a value per example.",
)
for _objective in (cross_entropy, margin, dlr):
    OBJECTIVES.add(_objective.__name__, _objective)


def check_objective(instance: Any, attribute: Any, value: Any) -> None:
    """Validates an attrs field; raises ValueError for the name of no objective."""
    del instance, attribute
    objective_of(value)


def objective_of(name: str | Objective) -> Objective:
    """Returns the objective with a name; returns a function unchanged.

    Raises:
      ValueError: If the name is unknown; the message lists the known ones.
    """
    return name if callable(name) else OBJECTIVES[name]
