"""The momentum iterative fast gradient sign method."""

import attrs
import tensorflow as tf

from nsl.attacks.examples import Tensors
from nsl.attacks.pgd import PGD
from nsl.attacks.problem import Problem


@attrs.define(eq=False, kw_only=True)
class MIFGSM(PGD):
    """The momentum iterative fast gradient sign method.

        g <- decay * g + gradient / |gradient|_1
        delta <- project(delta + step)

    from the features, with the steepest step of norm epsilon / steps along g. Dong et
    al. (2018), https://arxiv.org/abs/1710.06081, equations 6 and 7; for other norms,
    equation 9.
    Adversarial examples found so transfer better to other models.

    Attributes:
      decay: The share of the direction so far that is kept (mu in the paper).
    """

    steps: int = attrs.field(default=10, validator=attrs.validators.ge(1))
    random_start: bool = False
    decay: float = attrs.field(default=1.0, validator=attrs.validators.ge(0))

    def start(self, problem: Problem, seed: tf.Tensor) -> Tensors:
        """Starts without momentum."""
        state = super().start(problem, seed)
        return {**state, "momentum": tf.zeros_like(problem.threat.centers)}

    def direction(
        self, state: Tensors, gradient: tf.Tensor
    ) -> tuple[Tensors, tf.Tensor]:
        """Returns the decayed sum of the gradients so far."""
        length = tf.reduce_sum(tf.abs(gradient), axis=1, keepdims=True)
        momentum = self.decay * state["momentum"]
        momentum += tf.math.divide_no_nan(gradient, length)
        return {**state, "momentum": momentum}, momentum

    def length(self, problem: Problem) -> tf.Tensor:
        """Returns the length of a step."""
        if self.step_size is None:
            return problem.radius / self.steps
        return super().length(problem)
