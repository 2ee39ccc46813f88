"""Norms of structures: all tensors of an example have one joint norm."""

from typing import Any

import tensorflow as tf

from nsl import configs
from nsl.lib.features import cast_exactly
from nsl.lib.norms.l2 import L2
from nsl.lib.norms.norm import Norm
from nsl.lib.rows import from_rows, joint_dtype, to_rows, width


def maximize_within_unit_norm(
    weights: Any, norm_type: configs.NormType | str, epsilon: float = 1e-6
) -> Any:
    """Maximizes the inner product with `weights` over vectors of norm at most 1.

    With the gradient of a loss as weights, this is the steepest-ascent direction: the
    sign for L-infinity, the unit vector for L2, and for L1 the coordinate of largest
    absolute value, shared evenly between ties.

    Args:
      weights: A structure of floating tensors of shape [batch, ...].
      norm_type: A `NormType` or its value, or a `Norm`.
      epsilon: The smallest divisor of weights under L2.

    Returns:
      A structure like `weights`. Zero for examples whose weights are all zero.

    Raises:
      ValueError: If `norm_type` is unknown.
    """
    norm = Norm.of(norm_type)
    if not tf.nest.flatten(weights):
        return weights
    rows = to_rows(weights)
    if isinstance(norm, L2):
        return from_rows(norm.normalize(rows, epsilon), weights)
    return from_rows(norm.steepest_step(rows), weights)


def normalize(
    tensor: Any, norm_type: configs.NormType | str, epsilon: float = 1e-6
) -> Any:
    """Divides each example by its norm.

    Args:
      tensor: A floating tensor of shape [batch, ...], or a structure of them, which has
        one joint norm.
      norm_type: A `NormType` or its value, or a `Norm`.
      epsilon: The smallest divisor.

    Returns:
      A structure like `tensor`. Zero examples stay zero.

    Raises:
      ValueError: If `norm_type` is unknown.
    """
    return from_rows(Norm.of(norm_type).normalize(to_rows(tensor), epsilon), tensor)


def project_to_ball(
    tensors: Any, radius: Any, norm_type: configs.NormType | str, epsilon: float = 1e-6
) -> Any:
    """Projects each example onto the ball around the origin.

    The L1 projection is exact: Duchi et al., "Efficient projections onto the l1-ball
    for learning in high dimensions" (2008).

    Args:
      tensors: A structure of floating tensors of shape [batch, ...].
      radius: The radius, a number or a tensor of shape [batch].
      norm_type: A `NormType` or its value, or a `Norm`.
      epsilon: Ignored; accepted for compatibility with NSL 1.4.

    Returns:
      A structure like `tensors`: for each example the point of the ball nearest to
      it in L2.

    Raises:
      ValueError: If `norm_type` is unknown.
    """
    del epsilon
    rows = to_rows(tensors)
    return from_rows(
        Norm.of(norm_type).project(rows, _to_column(radius, rows.dtype)), tensors
    )


def random_in_norm_ball(
    tensor_structure: Any,
    radius: Any,
    norm_type: configs.NormType | str,
    seed: Any = None,
) -> Any:
    """Draws each example uniformly from the ball around the origin.

    For L1 and L2, the first n coordinates of a uniform point on the unit sphere of n+p
    dimensions are uniform in the unit ball of n dimensions: Barthe et al., "A
    probabilistic approach to the geometry of the l_p^n-ball" (2005), corollary 4.

    Args:
      tensor_structure: A structure of floating tensors of shape [batch, ...]. Only
        their shapes and dtypes are used.
      radius: The radius, a number or a tensor of shape [batch].
      norm_type: A `NormType` or its value, or a `Norm`.
      seed: An integer tensor of shape [2] that determines the samples (under XLA they
        are different ones). If None, the seed is drawn at random, controlled by
        `tf.random.set_seed`.

    Returns:
      A structure like `tensor_structure`.

    Raises:
      ValueError: If a tensor is not floating, batch sizes differ, or `norm_type` is
        unknown.
    """
    norm = Norm.of(norm_type)
    tensors = [tf.convert_to_tensor(t) for t in tf.nest.flatten(tensor_structure)]
    if not all(t.dtype.is_floating for t in tensors):
        raise ValueError(
            "random_in_norm_ball needs floating tensors, but received dtypes "
            f"{[t.dtype.name for t in tensors]}."
        )
    batch_sizes = {t.shape[0] for t in tensors} - {None}
    if len(batch_sizes) > 1:
        raise ValueError(
            "random_in_norm_ball needs equal batch sizes, but received shapes "
            f"{[tuple(t.shape) for t in tensors]}."
        )
    if seed is None:
        seed = tf.random.uniform([2], maxval=tf.int32.max, dtype=tf.int32)
    dtype = joint_dtype(tensors)
    columns = sum(width(t) for t in tensors)
    shape = tf.stack([tf.shape(tensors[0])[0], columns])
    rows = norm.random_start(shape, _to_column(radius, dtype), seed, dtype)
    return from_rows(rows, tensor_structure)


def _to_column(radius: Any, dtype: tf.DType) -> tf.Tensor:
    radius = cast_exactly(radius, dtype)
    return radius if radius.shape.rank == 0 else tf.reshape(radius, [-1, 1])
