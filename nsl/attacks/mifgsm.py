"""The momentum iterative fast gradient sign method."""

from typing import Any

import attrs
import tensorflow as tf

from nsl.attacks.attack import State
from nsl.attacks.pgd import PGD
from nsl.attacks.problem import Problem


@attrs.frozen
class _State(State):
    momentum: tf.Tensor


@attrs.frozen(kw_only=True)
class MIFGSM(PGD):
    """The momentum iterative fast gradient sign method.

        g <- decay * g + gradient / |gradient|_1
        delta <- project(delta + step)

    starting at the features, where the step is the steepest-ascent step of norm epsilon
    / steps along g. Dong et al. (2018), https://arxiv.org/abs/1710.06081, equations 6
    and 7; for other norms, equation 9. Its adversarial examples transfer better to
    other models.

    Attributes:
      decay: The decay factor of the momentum (mu in the paper).

    The other attributes are those of `PGD`.
    """

    steps: int = attrs.field(default=10, validator=attrs.validators.ge(1))
    random_start: bool = False
    decay: float = attrs.field(default=1.0, validator=attrs.validators.ge(0))

    def start(self, problem: Problem) -> _State:
        """Starts with zero momentum."""
        point = super().start(problem).perturbation
        return _State.at(point, momentum=problem.none)

    def direction(
        self, state: State, gradient: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, Any]]:
        """Returns the momentum."""
        assert isinstance(state, _State)
        length = tf.reduce_sum(tf.abs(gradient), axis=1, keepdims=True)
        momentum = self.decay * state.momentum
        momentum += tf.math.divide_no_nan(gradient, length)
        return momentum, {"momentum": momentum}

    def length(self, problem: Problem) -> tf.Tensor:
        """Returns the length of a step."""
        if self.step_size is None:
            return problem.radius / self.steps
        return super().length(problem)
