"""Projected gradient descent (on minus the objective)."""

import attrs
import tensorflow as tf

from nsl.attacks.attack import Attack, initial_state, keep_best
from nsl.attacks.examples import Tensors
from nsl.attacks.problem import Problem


@attrs.define(eq=False, kw_only=True)
class PGD(Attack):
    """Projected gradient descent, on minus the objective.

    From a random point of the ball,

        delta <- project(delta + step_size * direction(gradient))

    onto ball and box at once, where the direction is the steepest one of norm 1.
    Madry et al. (2018), https://arxiv.org/abs/1706.06083. Each step takes one forward
    and one backward pass; the last point takes a forward pass.

    Under L1 and L2, coordinates that are at a bound and would leave the box do not
    count in the direction: the step has its full length in the others.

    Attributes:
      step_size: The length of a step. None: 2.5 epsilon / steps, with which a point
        can reach the border of the ball and move along it.
      random_start: Whether the first attempt starts at a random point of the ball
        instead of at the features. Further ones always do.
    """

    step_size: float | None = None
    random_start: bool = True

    def start(self, problem: Problem, seed: tf.Tensor) -> Tensors:
        """Starts at a random point, or at the features."""
        if self.random_start:
            return initial_state(problem, problem.random_start(seed))
        return initial_state(problem, tf.zeros_like(problem.threat.centers))

    def step(
        self, problem: Problem, state: Tensors, i: tf.Tensor, seed: tf.Tensor
    ) -> Tensors:
        """Evaluates the present point and moves on along the gradient."""
        del i, seed
        perturbation = state["perturbation"]
        values, fooled, gradient = problem.gradient(perturbation)
        state = keep_best(state, values, fooled)
        state, direction = self.direction(problem, state, gradient)
        moved = perturbation + self.length(problem) * direction
        return {**state, "perturbation": problem.project(moved)}

    def direction(
        self, problem: Problem, state: Tensors, gradient: tf.Tensor
    ) -> tuple[Tensors, tf.Tensor]:
        """Returns the direction of a step.

        Args:
          problem: The batch.
          state: The state.
          gradient: The gradient at the present point; rows.

        Returns:
          The state, and rows of norm 1.
        """
        gradient = problem.movable(gradient, state["perturbation"])
        return state, problem.threat.norm.steepest_step(gradient)

    def length(self, problem: Problem) -> tf.Tensor:
        """Returns the length of a step, a tensor that broadcasts to a column."""
        if self.step_size is None:
            return 2.5 / self.steps * problem.radius
        return tf.constant(self.step_size, problem.dtype)
