"""The fast adaptive boundary attack (FAB)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import tensorflow as tf

from nsl.attacks.attack import MinimumNorm, State
from nsl.attacks.labels import likeliest_wrong
from nsl.attacks.objectives import logit_of, margin
from nsl.attacks.problem import Problem
from nsl.lib.hyperplane import shortest_move

_FINAL_STEPS = 3


def _lead(
    logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor | None = None
) -> tf.Tensor:
    """Returns how far the target is ahead of the true class, z_t - z_y."""
    assert targets is not None
    return logit_of(logits, targets) - logit_of(logits, labels)


@attrs.frozen(kw_only=True)
class FAB(MinimumNorm):
    """Searches for the smallest perturbation that changes the class, in any norm.

    Croce & Hein (2020), "Minimally distorted adversarial examples with a fast adaptive
    boundary attack", https://arxiv.org/abs/1907.02044, targeted as in AutoAttack
    (https://arxiv.org/abs/2003.01690). For each of the likeliest wrong classes t,
    starting at x_0 = x, and with z_t - z_y linearized at x_i,

        d_i  the smallest perturbation from x_i to its zero, within the bounds,
        d_x  the same from x,
        a    = min(|d_i| / (|d_i| + |d_x|), alpha_max),
        x_{i+1} = clip((1 - a) (x_i + eta d_i) + a (x + eta d_x)).

    If x_{i+1} is misclassified, it moves back to x + beta (x_{i+1} - x). Finally, a
    line search from x towards the smallest misclassified perturbation looks for a
    smaller one.

    ```python
    attack = nsl.attacks.FAB(norm="l2")
    smaller, larger = attack(model, x, y, epsilon=[0.5, 1.0], bounds=(0, 1))
    ```

    Attributes:
      target_classes: The number of wrong classes to target, likeliest first; all of
        them if there are fewer.
      alpha_max: The upper limit of a.
      eta: The factor by which steps overshoot.
      beta: The share of the perturbation that remains after a step back.

    The other attributes are those of `MinimumNorm`.
    """

    steps: int = attrs.field(default=100, validator=attrs.validators.ge(1))
    target_classes: int = attrs.field(default=9, validator=attrs.validators.ge(1))
    alpha_max: float = attrs.field(
        default=0.1, validator=[attrs.validators.ge(0), attrs.validators.le(1)]
    )
    eta: float = attrs.field(default=1.05, validator=attrs.validators.ge(1))
    beta: float = attrs.field(
        default=0.9, validator=[attrs.validators.ge(0), attrs.validators.le(1)]
    )

    def attempts(self, classes: int) -> int:
        """Returns the number of wrong classes to target."""
        return min(self.target_classes, classes - 1)

    def targets(
        self, logits: Callable[[], np.ndarray], labels: np.ndarray, attempt: int
    ) -> np.ndarray:
        """Returns the wrong class that an attempt targets."""
        return likeliest_wrong(logits(), labels, attempt)

    def problem_settings(self) -> dict[str, Any]:
        """Returns the norm and the objective; any wrong class is a success."""
        return {"norm": self.norm, "objective": _lead, "any_class": True}

    def start(self, problem: Problem) -> State:
        """Starts at the features; misclassified examples need no perturbation."""
        _, fooled = problem.evaluate(problem.none)
        state = State.at(problem.none)
        return self.keep_nearest(problem, state, problem.none, fooled)

    def step(self, problem: Problem, state: State) -> State:
        """Moves to the linearized boundary, and back if the class changes."""
        here = state.perturbation
        lead, _, normal = problem.gradient(here)
        lead = lead[:, tf.newaxis]
        lead_at_clean = lead - tf.reduce_sum(normal * here, axis=1, keepdims=True)
        from_here = self._move(problem, here, normal, -lead)
        from_clean = self._move(problem, problem.none, normal, -lead_at_clean)

        length = problem.norm.length(from_here)
        clean_length = problem.norm.length(from_clean)
        share = tf.math.divide_no_nan(length, length + clean_length)
        share = tf.minimum(share, self.alpha_max)
        moved = (1 - share) * (here + self.eta * from_here)
        moved += share * self.eta * from_clean
        moved = tf.clip_by_value(moved, problem.low, problem.high)

        _, fooled = problem.evaluate(moved)
        state = self.keep_nearest(problem, state, moved, fooled)
        return state.next(tf.where(fooled[:, tf.newaxis], self.beta * moved, moved))

    def finish(self, problem: Problem, state: State) -> State:
        """Searches the line to the best point by the method of false position."""

        def margin_at(perturbation: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            logits = problem.logits(perturbation)
            value = margin(logits, problem.labels)
            predicted = tf.argmax(logits, axis=1, output_type=tf.int32)
            fooled = predicted != problem.labels
            return tf.cast(value, problem.dtype)[:, tf.newaxis], fooled

        near, far = problem.none, state.best
        near_value, _ = margin_at(near)
        far_value, _ = margin_at(far)
        for _ in range(_FINAL_STEPS):
            share = tf.math.divide_no_nan(near_value, near_value - far_value)
            between = near + tf.clip_by_value(share, 0.0, 1.0) * (far - near)
            value, fooled = margin_at(between)
            state = self.keep_nearest(problem, state, between, fooled)
            is_far = fooled[:, tf.newaxis]
            far, far_value = (
                tf.where(is_far, between, far),
                tf.where(is_far, value, far_value),
            )
            near, near_value = (
                tf.where(is_far, near, between),
                tf.where(is_far, near_value, value),
            )
        return state

    def _move(
        self, problem: Problem, start: tf.Tensor, normal: tf.Tensor, gap: tf.Tensor
    ) -> tf.Tensor:
        return shortest_move(start, normal, gap, problem.low, problem.high, self.norm)
