"""Projected gradient descent (on minus the objective)."""

from typing import Any

import attrs
import tensorflow as tf

from nsl.attacks.attack import FixedRadius, State
from nsl.attacks.problem import Problem


@attrs.frozen(kw_only=True)
class PGD(FixedRadius):
    """Projected gradient descent, on minus the objective.

    From a random point of the ball,

        delta <- project(delta + step)

    onto ball and box at once, where the neighbors of training (`nsl.lib`) are projected
    onto the ball and then clipped, as in NSL 1.4. Madry et al. (2018), https://arxiv.org/abs/1706.06083.
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
      random_start: Whether attempts start at a random point of the ball instead of at
        the features.
    """

    step_size: float | None = None
    random_start: bool = True

    def start(self, problem: Problem) -> State:
        """Starts at a random point, or at the features."""
        if self.random_start:
            return State.at(problem.random_start(problem.seed()))
        return State.at(problem.none)

    def step(self, problem: Problem, state: State) -> State:
        """Evaluates the present point and moves on along the gradient."""
        here = state.perturbation
        values, fooled, gradient = problem.gradient(here)
        direction, more = self.direction(state, gradient)
        step = problem.norm.ascent_step(
            direction, self.length(problem), problem.low - here, problem.high - here
        )
        state = state.keep_best(values, fooled)
        return state.next(problem.project(here + step), **more)

    def direction(
        self, state: State, gradient: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, Any]]:
        """Returns rows to step along, of any norm, and fields of the next state."""
        del state
        return gradient, {}

    def length(self, problem: Problem) -> tf.Tensor:
        """Returns the length of a step, a tensor that broadcasts to a column."""
        if self.step_size is None:
            return 2.5 / self.steps * problem.radius
        return tf.constant(self.step_size, problem.dtype)
