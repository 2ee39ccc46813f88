"""Projected gradient descent (on the negative objective)."""

from typing import Any

import attrs
import tensorflow as tf

from nsl.attacks.attack import FixedRadius, State
from nsl.attacks.problem import Problem


@attrs.frozen(kw_only=True)
class PGD(FixedRadius):
    """Projected gradient descent, on the negative objective.

    Starting at a random point of the ball,

        delta <- project(delta + step)

    where the projection is onto the intersection of ball and box. (The neighbors of
    adversarial regularization, in `nsl.lib`, are projected onto the ball and then
    clipped, as in NSL 1.4.) Madry et al. (2018), https://arxiv.org/abs/1706.06083. Each
    step takes one forward and one backward pass; the last point takes one more forward
    pass.

    The step is the steepest-ascent step, whose norm is `step_size` over the coordinates
    that can still move along it. If the others counted, most of an L2 step on images
    would be lost on pixels that are already black or white. The steepest-ascent step of
    the L1 norm moves a single coordinate; here it moves coordinates up to their bounds,
    in descending order of the gradient, until the norm is used up.

    Attributes:
      step_size: The norm of a step. None uses 2.5 epsilon / steps, which lets a point
        reach the boundary of the ball and move along it.
      random_start: Whether to start at a random point of the ball instead of the
        features.

    The other attributes are those of `FixedRadius`.
    """

    step_size: float | None = None
    random_start: bool = True

    def start(self, problem: Problem) -> State:
        """Starts at a random point, or at the features."""
        if self.random_start:
            return State.at(problem.random_start(problem.seed()))
        return State.at(problem.none)

    def step(self, problem: Problem, state: State) -> State:
        """Evaluates the current point and takes a step along the gradient."""
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
        """Returns the direction of a step, rows of any norm, and new state fields."""
        del state
        return gradient, {}

    def length(self, problem: Problem) -> tf.Tensor:
        """Returns the norm of a step, a tensor that broadcasts to a column."""
        if self.step_size is None:
            return 2.5 / self.steps * problem.radius
        return tf.constant(self.step_size, problem.dtype)
