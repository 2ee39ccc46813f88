"""The base of all attacks: batches, restarts, several epsilons, state left alone."""

from __future__ import annotations

import abc
import functools
import io
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import attrs
import numpy as np
import tensorflow as tf

from nsl import configs
from nsl.attacks.examples import Examples, Tensors
from nsl.attacks.model import fixed_batch_size, state_kept
from nsl.attacks.objectives import Objective, objective_of
from nsl.attacks.problem import Problem
from nsl.attacks.program import Program
from nsl.attacks.search import Search, several
from nsl.attacks.targets import choose_targets
from nsl.files.progress import Progress

_BATCH_SIZE = 256


@attrs.define(eq=False, kw_only=True)
class Attack(abc.ABC):
    """Searches inputs close to given ones that a model gets wrong.

    ```python
    attack = nsl.attacks.PGD(steps=40)
    x_adv = attack(model, x, y, epsilon=0.3, bounds=(0, 1))
    ```

    An attack makes `steps` steps, as often as `restarts` says, and keeps for each
    example the best point it has seen: first one that the model gets wrong (for a
    targeted attack, takes for the target), then the one of largest objective. A
    restart only tries examples that still stand.

    A subclass says what the `start` is and what a `step` does. Both run compiled, on
    matrices whose rows are the perturbations of one example in all its features.

    Attributes:
      norm: The norm of the ball, a `NormType` or its value.
      steps: The number of steps.
      restarts: How often the attack is made.
      objective: What is maximized: 'cross_entropy', 'margin', 'dlr', or a function
        like those of `nsl.attacks.objectives`.
      target: How the class to reach is chosen; None for any but the true one.
      early_stop: Whether an example that has fallen gets no further steps.
      jit_compile: Whether XLA compiles the steps. None: where there is a GPU.
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
    jit_compile: bool | None = None
    _programs: weakref.WeakKeyDictionary[Any, dict[Any, Program]] = attrs.field(
        init=False, repr=False, factory=weakref.WeakKeyDictionary
    )

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

    def __call__(
        self,
        model: Callable[..., Any],
        x: Any,
        y: Any = None,
        *,
        epsilon: Any,
        bounds: Any = None,
        feature_mask: Any = None,
        target: Any = None,
        from_logits: bool | None = None,
        loss_fn: Callable[[Any, Any], tf.Tensor] | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        verbose: bool = True,
    ) -> Any:
        """Attacks a model on examples.

        Args:
          model: A callable from features to logits or probabilities of shape
            [batch, classes], or [batch, 1] for two classes. If it takes `training`,
            that is False. Its state is left as it was.
          x: Features, an array or a structure of arrays with the batch as first axis.
            Floating ones are perturbed, all others stay.
          y: The true classes, integers of shape [batch] or one-hot; with `loss_fn`
            whatever that takes. None takes what the model says of the clean features.
          epsilon: The radius of the ball around an example, measured jointly over all
            of its features: a number, or an array of shape [batch]. A list or tuple
            of those gives several results: there an example that has fallen within a
            smaller radius keeps what was found, so that success grows with epsilon.
          bounds: The pair (low, high) of what a feature may be, each a number or a
            structure keyed by feature, or None. A feature that is out of its bounds
            may stay where it is or move towards them.
          feature_mask: Factors in [0, 1] of the gradient, broadcastable to the
            features. Where one is 0, the feature stays.
          target: The classes to reach, integers of shape [batch]. None takes what
            `self.target` says.
          from_logits: Whether the model gives logits. None: unless all outputs of the
            first batch are in [0, 1] and have sums of 1 (or are one per example).
          loss_fn: For any other output: a function of (y, outputs) that returns one
            loss per example, which is maximized instead of the objective.
          seed: Determines all that is random.
          batch_size: How many examples are attacked at once.
          verbose: Whether progress is shown on a terminal.

        Returns:
          The adversarial features, arrays in the structure and dtypes of `x`; for a
          list of epsilons a list of them.

        Raises:
          ValueError: If arguments do not fit each other, or the outputs of the model
            are not of the shape needed.
        """
        examples = Examples(x, bounds, feature_mask)
        radii, is_list = several(epsilon, examples.count)
        size = fixed_batch_size(model) or batch_size or _BATCH_SIZE
        program = self._program(model, examples, from_logits, loss_fn)
        first_batch = functools.partial(examples.first, size)
        with state_kept(model), program.lent(model, first_batch):
            search = Search(self, program, examples, size, seed)
            search.label(y, target)
            with Progress(
                f"{type(self).__name__} ({self.norm.value})",
                search.work * len(radii),
                "steps",
                stream=None if verbose else io.StringIO(),
            ) as progress:
                found = search.within(radii, progress)
        results = [
            tf.nest.pack_sequence_as(examples.structure, leaves) for leaves in found
        ]
        return results if is_list else results[0]

    def _program(
        self,
        model: Callable[..., Any],
        examples: Examples,
        from_logits: bool | None,
        loss_fn: Callable[[Any, Any], tf.Tensor] | None,
    ) -> Program:
        """Returns what is compiled for a model, or is going to be."""
        jit_compile = self.jit_compile
        if jit_compile is None:
            jit_compile = bool(tf.config.list_physical_devices("GPU"))
        program = Program(
            self,
            examples.structure,
            loss_fn=loss_fn,
            from_logits=from_logits,
            jit_compile=jit_compile,
            fixed_size=fixed_batch_size(model),
        )
        # A bound method is a new object each time it is asked for.
        owner = getattr(model, "__self__", model)
        method = getattr(model, "__func__", None)
        key = (method, str(examples.structure), loss_fn, from_logits, jit_compile)
        try:
            return self._programs.setdefault(owner, {}).setdefault(key, program)
        except TypeError:  # It cannot be hashed or referred to weakly.
            return program


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
