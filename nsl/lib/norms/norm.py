"""What every norm can do."""

import abc
from typing import Any, ClassVar

import tensorflow as tf

from nsl import configs

# Of the searches for a joint projection. They end by themselves after far fewer.
MAX_ROUNDS = 100


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


def room(rows: tf.Tensor, low: Any, high: Any) -> tf.Tensor:
    """Returns how far each coordinate can go from 0 in the direction of its sign."""
    return tf.where(rows > 0, high, -low)


def wider(shape: tf.Tensor, columns: int) -> tf.Tensor:
    """Returns the shape of rows with so many columns more."""
    return tf.stack([shape[0], shape[1] + columns])
