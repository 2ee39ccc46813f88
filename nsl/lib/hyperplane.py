"""The smallest perturbation that moves a point onto a hyperplane, within bounds."""

from typing import Any

import tensorflow as tf

from nsl.configs import NormType

# Newton's method below is exact after a few steps; this is only a safeguard.
_MAX_STEPS = 100


def shortest_move(
    rows: tf.Tensor,
    normal: tf.Tensor,
    gap: tf.Tensor,
    low: tf.Tensor,
    high: tf.Tensor,
    norm_type: Any,
) -> tf.Tensor:
    """Returns the smallest perturbation that reaches a hyperplane, within bounds.

    For each row x, the d of smallest norm with

        <normal, d> = gap  and  low <= x + d <= high.

    If the box does not reach the hyperplane, d goes as far towards it as the box
    allows. The solution is exact: Croce and Hein (2020), section 3.1,
    https://arxiv.org/abs/1907.02044. They sort the coordinates; here, for L2 and
    L-infinity, Newton's method solves the same equation. It terminates at the exact
    root, because the function is concave and piecewise linear.

    Args:
      rows: Points within the bounds, a floating tensor of shape [batch, coordinates].
      normal: The normal of each row's hyperplane, of the shape of `rows`.
      gap: The required change of the inner product with the normal, of shape
        [batch, 1].
      low: The lower bounds, broadcastable to `rows`; -infinity where there is none.
      high: The upper bounds.
      norm_type: The norm to minimize, a `NormType` or its value.

    Returns:
      The perturbations, of the shape and dtype of `rows`. Zero where the normal is.
    """
    direction = tf.where(gap < 0, -tf.sign(normal), tf.sign(normal))
    # The gain per unit of each coordinate, and how far the coordinate can move.
    gain = tf.abs(normal)
    room = tf.maximum(tf.where(direction < 0, rows - low, high - rows), 0.0)
    room = tf.where(gain > 0, room, tf.zeros_like(room))
    norm_type = NormType(norm_type)
    if norm_type == NormType.L1:
        length = _greedy(tf.abs(gap), gain, room)
    elif norm_type == NormType.L2:
        length = _proportional(tf.abs(gap), gain, room, shape=gain)
    else:
        shape = tf.cast(gain > 0, gain.dtype)
        length = _proportional(tf.abs(gap), gain, room, shape=shape)
    return direction * length


def _greedy(gap: tf.Tensor, gain: tf.Tensor, room: tf.Tensor) -> tf.Tensor:
    """Uses the coordinates in descending order of gain."""
    order = tf.argsort(gain, axis=1, direction="DESCENDING")
    sorted_gain = tf.gather(gain, order, batch_dims=1)
    sorted_room = tf.gather(room, order, batch_dims=1)
    reach = sorted_gain * sorted_room
    missing = gap - tf.cumsum(reach, axis=1, exclusive=True)
    length = tf.math.divide_no_nan(tf.maximum(missing, 0.0), sorted_gain)
    length = tf.minimum(length, sorted_room)
    return tf.gather(length, tf.argsort(order, axis=1), batch_dims=1)


def _proportional(
    gap: tf.Tensor, gain: tf.Tensor, room: tf.Tensor, shape: tf.Tensor
) -> tf.Tensor:
    """Returns min(t * shape, room) for the t that closes the gap.

    The gain is concave in t, so Newton's method from t = 0 never overshoots; it is
    piecewise linear, so the method ends once no further coordinate reaches its limit.
    """
    slope = gain * shape

    def step(t: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        free = t * shape < room
        missing = gap - tf.reduce_sum(
            tf.where(free, tf.zeros_like(gain), gain * room), axis=1, keepdims=True
        )
        free_slope = tf.reduce_sum(
            tf.where(free, slope, tf.zeros_like(slope)), axis=1, keepdims=True
        )
        longer = tf.maximum(tf.math.divide_no_nan(missing, free_slope), t)
        return longer, tf.reduce_any(longer > t)

    t, _ = tf.while_loop(
        lambda _, changed: changed,
        step,
        (tf.zeros_like(gap), tf.constant(True)),
        maximum_iterations=_MAX_STEPS,
    )
    return tf.minimum(t * shape, room)
