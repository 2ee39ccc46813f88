"""Geometry of norm balls: steepest steps, projections and uniform samples.

Every function takes a structure of tensors whose first axis is the batch, and measures
all tensors of one example together: the norm is that of their concatenation. A new
norm is one new subclass of `Norm`.
"""

import abc
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from nsl import configs
from nsl.lib.features import cast_exactly
from nsl.lib.rows import from_rows, joint_dtype, to_rows, width

# Of the searches for a joint projection. They end by themselves after far fewer.
_MAX_ROUNDS = 100


class Norm(abc.ABC):
    """A norm on the rows of a matrix, and the geometry of its balls.

    One row holds all coordinates of one example. A radius is a scalar or a column.
    """

    _of: ClassVar[dict[configs.NormType, "Norm"]] = {}

    def __init_subclass__(cls, norm_type: configs.NormType, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Norm._of[norm_type] = cls()

    @staticmethod
    def of(norm_type: configs.NormType | str) -> "Norm":
        """Returns the norm of a type.

        Args:
          norm_type: A `NormType` or its value.

        Returns:
          The norm.

        Raises:
          ValueError: If there is no such norm; lists those there are.
        """
        return Norm._of[configs.NormType(norm_type)]

    @abc.abstractmethod
    def length(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns the norm of each row, of shape [batch, 1]."""

    @abc.abstractmethod
    def project(self, perturbation: tf.Tensor, radius: Any) -> tf.Tensor:
        """Returns the point of the ball that is nearest in L2 to each row."""

    @abc.abstractmethod
    def project_with_bounds(
        self, perturbation: tf.Tensor, radius: Any, low: Any, high: Any
    ) -> tf.Tensor:
        """Returns the point of ball and box that is nearest in L2 to each row.

        Args:
          perturbation: Rows.
          radius: The radius of the ball, a scalar or a column.
          low: Lower bounds of the coordinates, at most 0; broadcast to the rows.
          high: Upper bounds of the coordinates, at least 0; broadcast to the rows.

        Returns:
          Rows.
        """

    @abc.abstractmethod
    def steepest_step(self, gradient: tf.Tensor) -> tf.Tensor:
        """Returns the vector of norm 1 along which each row's objective grows most.

        A row of zeros stays zero.
        """

    @abc.abstractmethod
    def steepest_step_with_bounds(
        self, gradient: tf.Tensor, length: Any, low: Any, high: Any
    ) -> tf.Tensor:
        """Returns the step in ball and box along which each row's objective grows most.

        Args:
          gradient: Rows.
          length: The radius of the ball, a scalar or a column.
          low: Lower bounds of the coordinates, at most 0; broadcast to the rows.
          high: Upper bounds of the coordinates, at least 0; broadcast to the rows.

        Returns:
          Rows d of norm at most `length` that maximize <gradient, d>.
        """

    def ascent_step(
        self, gradient: tf.Tensor, length: Any, low: Any, high: Any
    ) -> tf.Tensor:
        """Returns the steepest step, to be projected onto ball and box afterwards.

        Args:
          gradient: Rows.
          length: The norm of the step in the coordinates that can move, a scalar or a
            column.
          low: Lower bounds of the step's coordinates, at most 0; broadcast to the rows.
          high: Upper bounds of the step's coordinates, at least 0; broadcast to the
            rows.

        Returns:
          Rows, which may leave the box.
        """
        del low, high
        return length * self.steepest_step(gradient)

    @abc.abstractmethod
    def random_start(
        self, shape: tf.Tensor, radius: Any, seed: tf.Tensor, dtype: tf.DType
    ) -> tf.Tensor:
        """Returns rows drawn uniformly from the ball."""

    def normalize(self, rows: tf.Tensor, epsilon: float) -> tf.Tensor:
        """Returns each row divided by its norm, or by `epsilon` if that is larger."""
        return tf.math.divide_no_nan(rows, tf.maximum(self.length(rows), epsilon))


class _L1(Norm, norm_type=configs.NormType.L1):
    def length(self, rows: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.abs(rows), axis=1, keepdims=True)

    def project(self, perturbation: tf.Tensor, radius: Any) -> tf.Tensor:
        # Duchi et al. (2008), figure 1. Their threshold is the largest of the values
        # that each count of non-zero coordinates would ask for, so no search for the
        # count is needed; it is negative exactly for rows inside the ball.
        size = tf.abs(perturbation)
        descending = tf.sort(size, axis=1, direction="DESCENDING")
        count = tf.range(1, tf.shape(size)[1] + 1)
        excess = tf.cumsum(descending, axis=1) - radius
        threshold = tf.reduce_max(
            excess / tf.cast(count, size.dtype), axis=1, keepdims=True
        )
        shrunk = tf.maximum(size - tf.maximum(threshold, 0.0), 0.0)
        return tf.sign(perturbation) * shrunk

    def project_with_bounds(
        self, perturbation: tf.Tensor, radius: Any, low: Any, high: Any
    ) -> tf.Tensor:
        # The optimality conditions give sizes clip(size - t, 0, bound) for one t >= 0
        # per row, 0 if those are inside the ball: Croce & Hein (2021), proposition
        # 2.1. Their sum falls piecewise linearly with t. Newton's method finds the
        # piece of the root in a few rounds; because the sum is not convex in t, it is
        # kept in a bracket that every third round halves.
        size = tf.abs(perturbation)
        bound = tf.where(perturbation > 0, high, -low)
        radius = tf.cast(radius, size.dtype)

        tolerance = 8 * np.finfo(size.dtype.as_numpy_dtype).eps * radius

        def clipped(threshold: tf.Tensor) -> tf.Tensor:
            return tf.clip_by_value(size - threshold, 0.0, bound)

        def unsettled(_: Any, threshold: Any, left: Any, right: Any) -> tf.Tensor:
            return tf.reduce_any(left < right)

        def refine(
            i: tf.Tensor, threshold: tf.Tensor, left: tf.Tensor, right: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            sizes = clipped(threshold)
            excess = tf.reduce_sum(sizes, axis=1, keepdims=True) - radius
            left = tf.where(excess >= -tolerance, threshold, left)
            right = tf.where(excess <= tolerance, threshold, right)
            free = tf.cast((sizes > 0) & (sizes < bound), size.dtype)
            slope = tf.reduce_sum(free, axis=1, keepdims=True)
            newton = threshold + tf.math.divide_no_nan(excess, slope)
            halves = (newton <= left) | (newton >= right) | (i % 3 == 2)
            following = tf.where(halves, (left + right) / 2, newton)
            # Either the root is found or there is no number left between the ends.
            settled = (following <= left) | (following >= right)
            return (
                i + 1,
                tf.where(settled, right, following),
                tf.where(settled, right, left),
                right,
            )

        zero = tf.zeros_like(size[:, :1])
        _, threshold, _, _ = tf.while_loop(
            unsettled,
            refine,
            (tf.constant(0), zero, zero, tf.reduce_max(size, axis=1, keepdims=True)),
            parallel_iterations=1,
            maximum_iterations=_MAX_ROUNDS,
        )
        return tf.sign(perturbation) * clipped(threshold)

    def steepest_step(self, gradient: tf.Tensor) -> tf.Tensor:
        size = tf.abs(gradient)
        largest = tf.equal(size, tf.reduce_max(size, axis=1, keepdims=True))
        share = tf.cast(largest, gradient.dtype)
        share /= tf.reduce_sum(share, axis=1, keepdims=True)
        return tf.sign(gradient) * share

    def steepest_step_with_bounds(
        self, gradient: tf.Tensor, length: Any, low: Any, high: Any
    ) -> tf.Tensor:
        # Each coordinate goes as far as it can, the largest of the gradient first.
        size = tf.abs(gradient)
        room = tf.where(gradient > 0, high, -low)
        room = tf.where(size > 0, tf.minimum(room, length), tf.zeros_like(size))
        order = tf.argsort(size, axis=1, direction="DESCENDING")
        sorted_room = tf.gather(room, order, batch_dims=1, axis=1)
        left = length - tf.cumsum(sorted_room, axis=1, exclusive=True)
        taken = tf.clip_by_value(left, 0.0, sorted_room)
        places = tf.argsort(order, axis=1)
        return tf.sign(gradient) * tf.gather(taken, places, batch_dims=1, axis=1)

    def ascent_step(
        self, gradient: tf.Tensor, length: Any, low: Any, high: Any
    ) -> tf.Tensor:
        # The steepest step is one coordinate, and for nothing where that is at a bound.
        return self.steepest_step_with_bounds(gradient, length, low, high)

    def random_start(
        self, shape: tf.Tensor, radius: Any, seed: tf.Tensor, dtype: tf.DType
    ) -> tf.Tensor:
        # Coordinates of the density exp(-|x|), divided by the norm of themselves and
        # one more: Barthe et al. (2005), corollary 4.
        sizes_seed, signs_seed = tf.unstack(tf.random.split(seed, 2))
        uniform = tf.random.stateless_uniform(_widen(shape, 1), sizes_seed, dtype=dtype)
        sizes = -tf.math.log1p(-uniform)
        signs = tf.sign(
            tf.random.stateless_uniform(shape, signs_seed, -1.0, 1.0, dtype=dtype)
        )
        return radius * signs * sizes[:, :-1] / self.length(sizes)


class _L2(Norm, norm_type=configs.NormType.L2):
    def length(self, rows: tf.Tensor) -> tf.Tensor:
        # Scaled by the largest coordinate, so that no square over- or underflows.
        largest = tf.reduce_max(tf.abs(rows), axis=1, keepdims=True)
        scaled = tf.math.divide_no_nan(rows, largest)
        return largest * tf.sqrt(
            tf.maximum(tf.reduce_sum(tf.square(scaled), axis=1, keepdims=True), 1.0)
        )

    def project(self, perturbation: tf.Tensor, radius: Any) -> tf.Tensor:
        length = self.length(perturbation)
        outside = length > radius
        scale = tf.math.divide_no_nan(tf.cast(radius, length.dtype), length)
        return perturbation * tf.where(outside, scale, tf.ones_like(length))

    def project_with_bounds(
        self, perturbation: tf.Tensor, radius: Any, low: Any, high: Any
    ) -> tf.Tensor:
        # The optimality conditions give clip(s x, low, high) for one s <= 1 per row,
        # 1 if that is inside the ball.
        scale = self._largest_scale(perturbation, radius, low, high, 1.0)
        return tf.clip_by_value(scale * perturbation, low, high)

    def steepest_step(self, gradient: tf.Tensor) -> tf.Tensor:
        return tf.math.divide_no_nan(gradient, self.length(gradient))

    def steepest_step_with_bounds(
        self, gradient: tf.Tensor, length: Any, low: Any, high: Any
    ) -> tf.Tensor:
        # As for the projection, but s may be any number.
        direction = self.steepest_step(gradient)
        scale = self._largest_scale(direction, length, low, high, direction.dtype.max)
        return tf.clip_by_value(scale * direction, low, high)

    def ascent_step(
        self, gradient: tf.Tensor, length: Any, low: Any, high: Any
    ) -> tf.Tensor:
        # Coordinates at a bound do not count, but are pushed on in proportion: else the
        # projection, which scales all of them, would take them off it again.
        at_bound = tf.where(gradient > 0, high, -low) <= 0
        moving = tf.where(at_bound, tf.zeros_like(gradient), gradient)
        return length * tf.math.divide_no_nan(gradient, self.length(moving))

    def _largest_scale(
        self, rows: tf.Tensor, radius: Any, low: Any, high: Any, limit: float
    ) -> tf.Tensor:
        """Returns the largest s up to a limit with clip(s x, low, high) in the ball."""
        # From below, with the coordinates at a bound known for the present s, the s
        # at which the norm is the radius can only grow, so that it is found in
        # finitely many rounds (in practice, few).
        size = tf.abs(rows)
        bound = tf.where(rows > 0, high, -low)
        radius = tf.cast(radius, size.dtype)
        total = self.length(rows)
        most = tf.fill(tf.shape(total), tf.cast(limit, size.dtype))
        # Less is a matter of rounding.
        notable = 1 + 8 * np.finfo(size.dtype.as_numpy_dtype).eps

        def grows(scale: tf.Tensor, before: tf.Tensor) -> tf.Tensor:
            return tf.reduce_any(scale > notable * before)

        def refine(scale: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            at_bound = scale * size >= bound
            fixed = tf.where(at_bound, bound, tf.zeros_like(bound))
            free = tf.where(at_bound, tf.zeros_like(size), size)
            room = radius**2 - tf.reduce_sum(fixed**2, axis=1, keepdims=True)
            square = tf.reduce_sum(free**2, axis=1, keepdims=True)
            largest = tf.sqrt(tf.maximum(room, 0.0) / square)
            grown = tf.where(square > 0, tf.minimum(largest, most), most)
            return tf.maximum(scale, grown), scale

        start = tf.where(total > 0, tf.minimum(radius / total, most), most)
        scale, _ = tf.while_loop(
            grows,
            refine,
            (start, -tf.ones_like(start)),
            parallel_iterations=1,
            maximum_iterations=_MAX_ROUNDS,
        )
        return scale

    def random_start(
        self, shape: tf.Tensor, radius: Any, seed: tf.Tensor, dtype: tf.DType
    ) -> tf.Tensor:
        # As for L1, with the density exp(-x^2 / 2) and two more coordinates.
        normal = tf.random.stateless_normal(_widen(shape, 2), seed, dtype=dtype)
        return radius * normal[:, :-2] / self.length(normal)


class _Infinity(Norm, norm_type=configs.NormType.INFINITY):
    def length(self, rows: tf.Tensor) -> tf.Tensor:
        return tf.reduce_max(tf.abs(rows), axis=1, keepdims=True)

    def project(self, perturbation: tf.Tensor, radius: Any) -> tf.Tensor:
        return tf.clip_by_value(perturbation, -radius, radius)

    def project_with_bounds(
        self, perturbation: tf.Tensor, radius: Any, low: Any, high: Any
    ) -> tf.Tensor:
        # The ball is a box as well.
        return tf.clip_by_value(self.project(perturbation, radius), low, high)

    def steepest_step(self, gradient: tf.Tensor) -> tf.Tensor:
        return tf.sign(gradient)

    def steepest_step_with_bounds(
        self, gradient: tf.Tensor, length: Any, low: Any, high: Any
    ) -> tf.Tensor:
        return self.project_with_bounds(length * tf.sign(gradient), length, low, high)

    def random_start(
        self, shape: tf.Tensor, radius: Any, seed: tf.Tensor, dtype: tf.DType
    ) -> tf.Tensor:
        return radius * tf.random.stateless_uniform(shape, seed, -1.0, 1.0, dtype=dtype)


def maximize_within_unit_norm(
    weights: Any, norm_type: configs.NormType | str, epsilon: float = 1e-6
) -> Any:
    """Maximizes the inner product with `weights` over vectors of norm at most 1.

    With the gradient of a loss as weights this is the steepest step: their sign for
    the infinity norm, the unit vector for L2, and for L1 the coordinate of largest
    absolute value, shared evenly where several are equal.

    Args:
      weights: A structure of floating tensors with the batch as first axis.
      norm_type: A `NormType` or its value.
      epsilon: Under L2, weights of a smaller norm are divided by this instead.

    Returns:
      A structure like `weights`. Where all weights of an example are zero, zeros.

    Raises:
      ValueError: If `norm_type` is no norm.
    """
    norm = Norm.of(norm_type)
    if not tf.nest.flatten(weights):
        return weights
    rows = to_rows(weights)
    if isinstance(norm, _L2):
        return from_rows(norm.normalize(rows, epsilon), weights)
    return from_rows(norm.steepest_step(rows), weights)


def normalize(
    tensor: Any, norm_type: configs.NormType | str, epsilon: float = 1e-6
) -> Any:
    """Divides each example by its norm.

    Args:
      tensor: A floating tensor with the batch as first axis, or a structure of them,
        which has one joint norm.
      norm_type: A `NormType` or its value.
      epsilon: Lower bound of the divisor.

    Returns:
      A structure like `tensor`. An example of zeros stays so.

    Raises:
      ValueError: If `norm_type` is no norm.
    """
    return from_rows(Norm.of(norm_type).normalize(to_rows(tensor), epsilon), tensor)


def project_to_ball(
    tensors: Any, radius: Any, norm_type: configs.NormType | str, epsilon: float = 1e-6
) -> Any:
    """Projects each example onto the ball around the origin.

    The L1 projection is exact: Duchi et al., "Efficient projections onto the l1-ball
    for learning in high dimensions" (2008).

    Args:
      tensors: A structure of floating tensors with the batch as first axis.
      radius: The radius, a number or a tensor of shape [batch].
      norm_type: A `NormType` or its value.
      epsilon: Unused, for no division can fail. NSL 1.4 had it.

    Returns:
      A structure like `tensors`: for each example the point of the ball nearest to
      it in L2.

    Raises:
      ValueError: If `norm_type` is no norm.
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
    dimensions are uniform in the unit ball of n: Barthe et al., "A probabilistic
    approach to the geometry of the l_p^n-ball" (2005), corollary 4.

    Args:
      tensor_structure: A structure of floating tensors with the batch as first axis.
        Their shapes and dtypes count, not their values.
      radius: The radius, a number or a tensor of shape [batch].
      norm_type: A `NormType` or its value.
      seed: An integer tensor of shape [2] that alone determines what is drawn (XLA
        draws other numbers from it). None draws one, which `tf.random.set_seed`
        governs.

    Returns:
      A structure like `tensor_structure`.

    Raises:
      ValueError: If a tensor is not floating, first axes differ, or `norm_type` is no
        norm.
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
            "random_in_norm_ball needs tensors of one batch size, but received shapes "
            f"{[tuple(t.shape) for t in tensors]}."
        )
    if seed is None:
        seed = tf.random.uniform([2], maxval=tf.int32.max, dtype=tf.int32)
    dtype = joint_dtype(tensors)
    columns = sum(width(t) for t in tensors)
    shape = tf.stack([tf.shape(tensors[0])[0], columns])
    rows = norm.random_start(shape, _to_column(radius, dtype), seed, dtype)
    return from_rows(rows, tensor_structure)


def _widen(shape: tf.Tensor, columns: int) -> tf.Tensor:
    return tf.stack([shape[0], shape[1] + columns])


def _to_column(radius: Any, dtype: tf.DType) -> tf.Tensor:
    radius = cast_exactly(radius, dtype)
    return radius if radius.shape.rank == 0 else tf.reshape(radius, [-1, 1])
