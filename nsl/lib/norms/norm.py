"""The base class of norms."""

import abc
from typing import Any, ClassVar

import tensorflow as tf

from nsl import configs
from nsl.lib.registry import Registry

# A safeguard for the iterative projections, which converge in far fewer rounds.
MAX_ROUNDS = 100


class Norm(abc.ABC):
    """A norm on the rows of a matrix, and the geometry of its balls.

    A row holds all coordinates of one example. A radius is a scalar or a column.

    A subclass must define `length` and `steepest_step`; use it as an instance:
    `nsl.attacks.PGD(norm=MyNorm())`. The other methods have defaults that are valid for
    any norm that does not grow when coordinates shrink; override them where an exact
    solution is known.
    """

    _known: ClassVar[Registry["Norm"]] = Registry(
        "norm_type", "norms", "Any other is an instance of a subclass of nsl.lib.Norm."
    )

    def __init_subclass__(
        cls, norm_type: configs.NormType | None = None, **kwargs: Any
    ) -> None:
        super().__init_subclass__(**kwargs)
        if norm_type is not None:
            Norm._known.add(norm_type, cls())

    @property
    def value(self) -> str:
        """The name of the norm, like the value of a `NormType`."""
        return type(self).__name__

    @staticmethod
    def of(norm_type: "configs.NormType | str | Norm") -> "Norm":
        """Returns the norm for a type.

        Args:
          norm_type: A `NormType` or its value, or a norm.

        Returns:
          The norm.

        Raises:
          ValueError: If the norm is unknown; the message lists the known ones.
        """
        if isinstance(norm_type, Norm):
            return norm_type
        return Norm._known[norm_type]

    @abc.abstractmethod
    def length(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns the norm of each row, of shape [batch, 1]."""

    def project(self, perturbation: tf.Tensor, radius: Any) -> tf.Tensor:
        """Projects each row onto the ball, to its nearest point in L2.

        The default scales down rows outside the ball, which is only exact for L2.
        """
        length = self.length(perturbation)
        scale = tf.math.divide_no_nan(tf.cast(radius, length.dtype), length)
        return perturbation * tf.where(length > radius, scale, tf.ones_like(length))

    def project_with_bounds(
        self, perturbation: tf.Tensor, radius: Any, low: Any, high: Any
    ) -> tf.Tensor:
        """Projects each row onto the intersection of ball and box, nearest in L2.

        The default clips rows and then scales them down.

        Args:
          perturbation: Rows.
          radius: The radius of the ball, a scalar or a column.
          low: Lower bounds of the coordinates, at most 0; broadcast to the rows.
          high: Upper bounds of the coordinates, at least 0; broadcast to the rows.

        Returns:
          Rows.
        """
        return self.project(tf.clip_by_value(perturbation, low, high), radius)

    @abc.abstractmethod
    def steepest_step(self, gradient: tf.Tensor) -> tf.Tensor:
        """Returns the steepest-ascent direction of each row, of norm 1.

        A zero row stays zero.
        """

    def steepest_step_with_bounds(
        self, gradient: tf.Tensor, length: Any, low: Any, high: Any
    ) -> tf.Tensor:
        """Returns the steepest-ascent step of each row within ball and box.

        Args:
          gradient: Rows.
          length: The radius of the ball, a scalar or a column.
          low: Lower bounds of the coordinates, at most 0; broadcast to the rows.
          high: Upper bounds of the coordinates, at least 0; broadcast to the rows.

        Returns:
          Rows d of norm at most `length` that maximize <gradient, d>. The default is
          the steepest-ascent step, clipped, which need not be the maximum.
        """
        return tf.clip_by_value(length * self.steepest_step(gradient), low, high)

    def ascent_step(
        self, gradient: tf.Tensor, length: Any, low: Any, high: Any
    ) -> tf.Tensor:
        """Returns a steepest-ascent step, before projection onto ball and box.

        Args:
          gradient: Rows.
          length: The norm of the step, over the coordinates that can move; a scalar or
            a column.
          low: Lower bounds of the step's coordinates, at most 0; broadcast to the rows.
          high: Upper bounds of the step's coordinates, at least 0; broadcast to the
            rows.

        Returns:
          Rows, which may leave the box.
        """
        del low, high
        return length * self.steepest_step(gradient)

    def random_start(
        self, shape: tf.Tensor, radius: Any, seed: tf.Tensor, dtype: tf.DType
    ) -> tf.Tensor:
        """Draws rows from the ball.

        Subclasses draw uniformly. The default draws normally distributed directions and
        uniform lengths.
        """
        directions, lengths = tf.unstack(tf.random.split(seed, 2))
        drawn = tf.random.stateless_normal(shape, directions, dtype=dtype)
        share = tf.random.stateless_uniform(
            tf.stack([shape[0], 1]), lengths, dtype=dtype
        )
        return radius * share * tf.math.divide_no_nan(drawn, self.length(drawn))

    def normalize(self, rows: tf.Tensor, epsilon: float) -> tf.Tensor:
        """Returns each row divided by its norm, or by `epsilon` if that is larger."""
        return tf.math.divide_no_nan(rows, tf.maximum(self.length(rows), epsilon))


def room(rows: tf.Tensor, low: Any, high: Any) -> tf.Tensor:
    """Returns how far each coordinate can move from 0 in the direction of its sign."""
    return tf.where(rows > 0, high, -low)


def wider(shape: tf.Tensor, columns: int) -> tf.Tensor:
    """Returns the shape of rows with additional columns."""
    return tf.stack([shape[0], shape[1] + columns])
