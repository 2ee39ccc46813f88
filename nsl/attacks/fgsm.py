"""The fast gradient (sign) method."""

from typing import ClassVar

import attrs

from nsl.attacks.attack import FixedRadius, State
from nsl.attacks.problem import Problem


@attrs.frozen(kw_only=True)
class FGSM(FixedRadius):
    """The fast gradient sign method, and its analogues for L1 and L2.

        x_adv = x + argmax <gradient, delta>

    over all delta of norm at most epsilon within the bounds; for L-infinity, epsilon
    times the sign of the gradient, clipped. Goodfellow et al. (2015),
    https://arxiv.org/abs/1412.6572. Optimal for linear models.
    """

    _keeps_last: ClassVar[bool] = True

    steps: int = attrs.field(default=1, init=False)
    restarts: int = attrs.field(default=1, init=False)

    def start(self, problem: Problem) -> State:
        """Starts at the features."""
        return State.at(problem.none)

    def step(self, problem: Problem, state: State) -> State:
        """Takes the steepest-ascent step of length epsilon."""
        _, _, gradient = problem.gradient(state.perturbation)
        step = problem.norm.steepest_step_with_bounds(
            gradient, problem.radius, problem.low, problem.high
        )
        return state.next(step, best=step)
