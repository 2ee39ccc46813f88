"""The fast gradient (sign) method."""

from typing import ClassVar

import attrs
import tensorflow as tf

from nsl.attacks.attack import Attack
from nsl.attacks.examples import Tensors
from nsl.attacks.problem import Problem
from nsl.attacks.steps import initial_state


@attrs.define(eq=False, kw_only=True)
class FGSM(Attack):
    """The fast gradient sign method, and its like for L1 and L2.

        x_adv = x + argmax <gradient, delta>

    over all delta of norm at most epsilon within the bounds: epsilon times the sign
    of the gradient, clipped, for the infinity norm. Goodfellow et al. (2015),
    https://arxiv.org/abs/1412.6572. For a linear model nothing is worse.
    """

    keeps_last: ClassVar[bool] = True

    steps: int = attrs.field(default=1, init=False)
    restarts: int = attrs.field(default=1, init=False)

    def start(self, problem: Problem, seed: tf.Tensor) -> Tensors:
        """Starts at the features."""
        del seed
        return initial_state(problem, tf.zeros_like(problem.threat.centers))

    def step(
        self, problem: Problem, state: Tensors, i: tf.Tensor, seed: tf.Tensor
    ) -> Tensors:
        """Goes along the gradient as far as epsilon."""
        del i, seed
        _, _, gradient = problem.gradient(state["perturbation"])
        step = problem.threat.norm.steepest_step_with_bounds(
            gradient, problem.radius, problem.low, problem.high
        )
        return {**state, "perturbation": step, "best": step}
