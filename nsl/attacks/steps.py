"""What an attack does to one batch, step by step."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import attrs
import numpy as np
import tensorflow as tf

from nsl import configs
from nsl.attacks.examples import Tensors
from nsl.attacks.objectives import Objective, objective_of
from nsl.attacks.problem import Problem
from nsl.attacks.targets import choose_targets


@attrs.define(eq=False, kw_only=True)
class Steps(abc.ABC):
    """What every attack says of itself: where it starts, and what a step does.

    Both run compiled, on matrices whose rows are the perturbations of one example in
    all its features. `nsl.attacks.Attack` runs them.

    Attributes:
      norm: The norm of the ball, a `NormType` or its value.
      steps: The number of steps.
      restarts: How often the attack is made.
      objective: What is maximized: 'cross_entropy', 'margin', 'dlr', or a function
        like those of `nsl.attacks.objectives`.
      target: How the class to reach is chosen; None for any but the true one.
      early_stop: Whether an example that has fallen gets no further steps.
      black_box: Whether the attack uses outputs of the model alone, no gradients.
      keeps_last: Whether the last point is the result, however good it is. Unless
        several epsilons are compared, no time is spent on finding out.
    """

    black_box: ClassVar[bool] = False
    keeps_last: ClassVar[bool] = False

    norm: configs.NormType = attrs.field(
        default=configs.NormType.INFINITY, converter=configs.NormType
    )
    steps: int = attrs.field(default=40, validator=attrs.validators.ge(1))
    restarts: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    objective: str | Objective = attrs.field(default="cross_entropy")
    target: configs.AdvTargetConfig | None = None
    early_stop: bool = False

    @objective.validator
    def _check_objective(self, attribute: Any, value: Any) -> None:
        del attribute
        objective_of(value)

    @abc.abstractmethod
    def start(self, problem: Problem, seed: tf.Tensor) -> Tensors:
        """Returns the state before the first step.

        Args:
          problem: The batch.
          seed: An integer tensor of shape [2].

        Returns:
          Tensors with the batch as first axis, those of `initial_state` among them.
        """

    @abc.abstractmethod
    def step(
        self, problem: Problem, state: Tensors, i: tf.Tensor, seed: tf.Tensor
    ) -> Tensors:
        """Makes one step.

        Args:
          problem: The batch.
          state: The state before it.
          i: The number of steps made before, an integer tensor.
          seed: An integer tensor of shape [2], another one for each step.

        Returns:
          The state after it, of the same shapes and dtypes.
        """

    def finish(self, problem: Problem, state: Tensors) -> Tensors:
        """Returns the state with the last point taken into account.

        Args:
          problem: The batch.
          state: The state after the last step.

        Returns:
          The state.
        """
        values, fooled = problem.evaluate(state["perturbation"])
        return keep_best(state, values, fooled)

    def fooled(
        self, predicted: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor | None
    ) -> tf.Tensor:
        """Returns which examples the attack has succeeded on.

        Args:
          predicted: What the model takes the perturbed examples for, of shape [batch].
          labels: The true classes, of shape [batch].
          targets: The classes to reach, of shape [batch], or None.

        Returns:
          A tensor of shape [batch], bool.
        """
        return predicted != labels if targets is None else predicted == targets

    def attempts(self, classes: int) -> int:
        """Returns how often the attack is made; later attempts try what stands.

        Args:
          classes: The number of classes; 0 with a loss of one's own.

        Returns:
          The number of attempts.
        """
        del classes
        return self.restarts

    def targets(
        self, logits: Callable[[], np.ndarray], labels: np.ndarray, attempt: int
    ) -> np.ndarray | None:
        """Returns the classes to reach in an attempt.

        Args:
          logits: Computes the clean logits, of shape [examples, classes].
          labels: The true classes, of shape [examples].
          attempt: The number of attempts made before.

        Returns:
          An array of shape [examples], or None if any wrong class will do.
        """
        del attempt
        if self.target is None:
            return None
        return choose_targets(logits(), labels, self.target)

    def step_counts(self) -> list[int]:
        """Returns how many steps are made at a time, before fallen examples leave."""
        if not self.early_stop:
            return [self.steps]
        counts: list[int] = []
        while sum(counts) < self.steps:
            # Most fall early, if they do.
            counts.append(min(max(1, sum(counts)), self.steps - sum(counts)))
        return counts


def initial_state(problem: Problem, perturbation: tf.Tensor) -> Tensors:
    """Returns what the state of every attack holds.

    Args:
      problem: The batch.
      perturbation: Where the attack starts; rows.

    Returns:
      "perturbation", the present point, and "best", the best one so far (rows); the
      "value" of the objective there and whether it has "fooled" the model, of shape
      [batch]. Before any evaluation, the value is the lowest there is.
    """
    column = problem.radius[:, 0]
    return {
        "perturbation": perturbation,
        "best": perturbation,
        "value": tf.fill(tf.shape(column), column.dtype.min),
        "fooled": tf.zeros_like(column, tf.bool),
    }


def keep_best(state: Tensors, values: tf.Tensor, fooled: tf.Tensor) -> Tensors:
    """Returns the state with the present point as the best one where it is better.

    Args:
      state: The state.
      values: The objective at the present point, of shape [batch].
      fooled: Whether the attack has succeeded there, of shape [batch].

    Returns:
      The state.
    """
    better = is_better(state, values, fooled)
    return {
        **state,
        "best": tf.where(better[:, None], state["perturbation"], state["best"]),
        "value": tf.where(better, values, state["value"]),
        "fooled": fooled | state["fooled"],
    }


def is_better(state: Tensors, values: tf.Tensor, fooled: tf.Tensor) -> tf.Tensor:
    """Returns where the present point is better than the best one so far.

    Args:
      state: The state.
      values: The objective at the present point, of shape [batch].
      fooled: Whether the attack has succeeded there, of shape [batch].

    Returns:
      A tensor of shape [batch], bool.
    """
    return tf.where(fooled == state["fooled"], values > state["value"], fooled)
