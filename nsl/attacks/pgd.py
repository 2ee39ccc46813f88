"""Projected gradient descent (on minus the objective)."""

import attrs
import tensorflow as tf

from nsl.attacks.attack import Attack
from nsl.attacks.examples import Tensors
from nsl.attacks.problem import Problem
from nsl.attacks.steps import initial_state, keep_best


@attrs.define(eq=False, kw_only=True)
class PGD(Attack):
    """Projected gradient descent, on minus the objective.

    From a random point of the ball,

        delta <- project(delta + step)

    onto ball and box at once. Madry et al. (2018), https://arxiv.org/abs/1706.06083.
    Each step takes one forward and one backward pass; the last point takes a forward
    pass.

    The step is the steepest one, of norm `step_size` in those coordinates that can
    still move along it. Were the others counted, most of an L2 step on images would be
    for nothing, for it goes where pixels are black or white already. The steepest step
    of the L1 norm goes along one coordinate: here it fills up what is left to the
    bounds, the coordinate of largest gradient first.

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
        state, direction = self.direction(state, gradient)
        step = problem.threat.norm.ascent_step(
            direction,
            self.length(problem),
            problem.low - perturbation,
            problem.high - perturbation,
        )
        return {**state, "perturbation": problem.project(perturbation + step)}

    def direction(
        self, state: Tensors, gradient: tf.Tensor
    ) -> tuple[Tensors, tf.Tensor]:
        """Returns what steps are made along.

        Args:
          state: The state.
          gradient: The gradient at the present point; rows.

        Returns:
          The state, and rows of any norm.
        """
        return state, gradient

    def length(self, problem: Problem) -> tf.Tensor:
        """Returns the length of a step, a tensor that broadcasts to a column."""
        if self.step_size is None:
            return 2.5 / self.steps * problem.radius
        return tf.constant(self.step_size, problem.dtype)
