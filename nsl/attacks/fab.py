"""The fast adaptive boundary attack (FAB)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import attrs
import numpy as np
import tensorflow as tf

from nsl import configs
from nsl.attacks.attack import Attack
from nsl.attacks.examples import Examples, Tensors
from nsl.attacks.objectives import Objective, likeliest_other
from nsl.attacks.problem import Problem
from nsl.attacks.search import several
from nsl.attacks.steps import initial_state
from nsl.attacks.targets import likeliest_wrong
from nsl.lib.features import is_perturbable
from nsl.lib.hyperplane import shortest_move

_FINAL_STEPS = 3


def _lead(
    logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor | None = None
) -> tf.Tensor:
    """Returns by how much the target leads the true class, z_t - z_y."""
    assert targets is not None
    return tf.gather(logits, targets, axis=1, batch_dims=1) - tf.gather(
        logits, labels, axis=1, batch_dims=1
    )


@attrs.define(eq=False, kw_only=True)
class FAB(Attack):
    """Searches the smallest perturbation that changes the class, in any norm.

    Croce & Hein (2020), "Minimally distorted adversarial examples with a fast adaptive
    boundary attack", https://arxiv.org/abs/1907.02044, targeted as in AutoAttack
    (https://arxiv.org/abs/2003.01690): for each of the likeliest wrong classes t in
    turn, from x_0 = x, with the linear model of z_t - z_y at x_i,

        d_i  the shortest move from x_i to where that is zero, within the bounds,
        d_x  the same from x,
        a    = min(|d_i| / (|d_i| + |d_x|), alpha_max),
        x_{i+1} = clip((1 - a) (x_i + eta d_i) + a (x + eta d_x)),

    and where that is misclassified, x_{i+1} goes back to x + beta (x_{i+1} - x). In the
    end the way from x to the smallest misclassified perturbation is searched for a
    smaller one.

    One run serves a list of epsilons: an example falls at those that its smallest
    perturbation fits into, and comes back unchanged for the others.

    ```python
    attack = nsl.attacks.FAB(norm="l2")
    smaller, larger = attack(model, x, y, epsilon=[0.5, 1.0], bounds=(0, 1))
    ```

    Attributes:
      norm: The norm that is minimized.
      steps: The number of steps for each class.
      classes: How many of the likeliest wrong classes are tried; all of them if there
        are fewer.
      early_stop: Whether an example is done with as soon as it falls at the smallest
        epsilon. If not, the perturbation goes on shrinking.
      alpha_max: The largest share a.
      eta: By how much moves overshoot.
      beta: What remains of the perturbation after a step back.
      minimum_norm: Whether one run serves all epsilons.
    """

    minimum_norm: ClassVar[bool] = True

    steps: int = attrs.field(default=100, validator=attrs.validators.ge(1))
    restarts: int = attrs.field(default=1, init=False, repr=False)
    objective: str | Objective = attrs.field(default=_lead, init=False, repr=False)
    target: configs.AdvTargetConfig | None = attrs.field(
        default=None, init=False, repr=False
    )
    early_stop: bool = True
    classes: int = attrs.field(default=9, validator=attrs.validators.ge(1))
    alpha_max: float = attrs.field(
        default=0.1, validator=[attrs.validators.ge(0), attrs.validators.le(1)]
    )
    eta: float = attrs.field(default=1.05, validator=attrs.validators.ge(1))
    beta: float = attrs.field(
        default=0.9, validator=[attrs.validators.ge(0), attrs.validators.le(1)]
    )

    def attempts(self, classes: int) -> int:
        """Returns the number of wrong classes that are tried."""
        return min(self.classes, classes - 1)

    def targets(
        self, logits: Callable[[], np.ndarray], labels: np.ndarray, attempt: int
    ) -> np.ndarray:
        """Returns the wrong class that an attempt moves towards."""
        return likeliest_wrong(logits(), labels, attempt)

    def fooled(
        self, predicted: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor | None
    ) -> tf.Tensor:
        """Returns which examples are misclassified, as whatever."""
        del targets
        return predicted != labels

    def start(self, problem: Problem, seed: tf.Tensor) -> Tensors:
        """Starts at the examples; one that is misclassified needs no perturbation."""
        del seed
        zero = tf.zeros_like(problem.threat.centers)
        _, fooled = problem.evaluate(zero)
        return self._keep(problem, initial_state(problem, zero), zero, fooled)

    def step(
        self, problem: Problem, state: Tensors, i: tf.Tensor, seed: tf.Tensor
    ) -> Tensors:
        """Moves to the linear boundary, and back if the class changes."""
        del i, seed
        here = state["perturbation"]
        lead, _, normal = problem.gradient(here)
        lead = lead[:, tf.newaxis]
        lead_at_clean = lead - tf.reduce_sum(normal * here, axis=1, keepdims=True)
        from_here = self._move(problem, here, normal, -lead)
        from_clean = self._move(problem, tf.zeros_like(here), normal, -lead_at_clean)

        length = problem.threat.norm.length(from_here)
        clean_length = problem.threat.norm.length(from_clean)
        share = tf.math.divide_no_nan(length, length + clean_length)
        share = tf.minimum(share, self.alpha_max)
        moved = (1 - share) * (here + self.eta * from_here)
        moved += share * self.eta * from_clean
        moved = tf.clip_by_value(moved, problem.low, problem.high)

        _, fooled = problem.evaluate(moved)
        back = tf.where(fooled[:, tf.newaxis], self.beta * moved, moved)
        return {**self._keep(problem, state, moved, fooled), "perturbation": back}

    def finish(self, problem: Problem, state: Tensors) -> Tensors:
        """Searches the way to the best point by the rule of false position."""

        def margin_at(perturbation: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            logits = problem.logits(perturbation)
            own = tf.gather(logits, problem.labels, axis=1, batch_dims=1)
            value = likeliest_other(logits, problem.labels) - own
            predicted = tf.argmax(logits, axis=1, output_type=tf.int32)
            fooled = self.fooled(predicted, problem.labels, None)
            return tf.cast(value, problem.dtype)[:, tf.newaxis], fooled

        near, far = tf.zeros_like(state["best"]), state["best"]
        near_value, _ = margin_at(near)
        far_value, _ = margin_at(far)
        for _ in range(_FINAL_STEPS):
            share = tf.math.divide_no_nan(near_value, near_value - far_value)
            between = near + tf.clip_by_value(share, 0.0, 1.0) * (far - near)
            value, fooled = margin_at(between)
            state = self._keep(problem, state, between, fooled)
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

    def __call__(
        self,
        model: Callable[..., Any],
        x: Any,
        y: Any = None,
        *,
        epsilon: Any,
        target: Any = None,
        loss_fn: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Attacks a model on examples, see `Attack`.

        Args:
          model: A classifier, as `Attack` takes it.
          x: Features.
          y: The true classes.
          epsilon: The radius, or a list of them, which costs no more than the smallest.
          target: Must be None, for the classes are chosen by the attack.
          loss_fn: Must be None, for there is no boundary without classes.
          **kwargs: Further arguments of `Attack`.

        Returns:
          As `Attack`; an example that does not fall is unchanged.

        Raises:
          ValueError: If `target` or `loss_fn` is given, or as `Attack`.
        """
        if target is not None or loss_fn is not None:
            raise ValueError(
                "FAB looks for the nearest boundary between classes, so that it takes "
                "neither target nor loss_fn. Use nsl.attacks.PGD for these."
            )
        columns, is_list = several(epsilon, Examples(x, None, None).count)
        radii = [column[:, 0] for column in columns]
        smallest = np.minimum.reduce(radii)
        nearest = super().__call__(model, x, y, epsilon=smallest, **kwargs)
        lengths = self._lengths(x, nearest)
        within = [_within(x, nearest, lengths <= radius) for radius in radii]
        return within if is_list else within[0]

    def _move(
        self, problem: Problem, start: tf.Tensor, normal: tf.Tensor, gap: tf.Tensor
    ) -> tf.Tensor:
        return shortest_move(start, normal, gap, problem.low, problem.high, self.norm)

    def _keep(
        self, problem: Problem, state: Tensors, moved: tf.Tensor, fooled: tf.Tensor
    ) -> Tensors:
        """Keeps a misclassified point that is nearer than the best one."""
        length = problem.threat.norm.length(moved)[:, 0]
        better = fooled & (-length > state["value"])
        value = tf.where(better, -length, state["value"])
        within = -value <= problem.radius[:, 0]
        return {
            "perturbation": state["perturbation"],
            "best": tf.where(better[:, tf.newaxis], moved, state["best"]),
            "value": value,
            "fooled": state["fooled"] | (within & self.early_stop),
        }

    def _lengths(self, x: Any, moved: Any) -> np.ndarray:
        """Returns the joint norm of what was changed, of shape [examples]."""
        order = {"l1": 1, "l2": 2, "infinity": np.inf}[self.norm.value]
        pairs = zip(tf.nest.flatten(x), tf.nest.flatten(moved), strict=True)
        changes = [
            np.reshape(
                np.asarray(b, np.float64) - np.asarray(a, np.float64), [len(b), -1]
            )
            for a, b in pairs
            if is_perturbable(a)
        ]
        return np.linalg.norm(np.concatenate(changes, axis=1), order, axis=1)


def _within(x: Any, moved: Any, chosen: np.ndarray) -> Any:
    """Returns the moved examples that are chosen, and the others unchanged."""

    def one(before: Any, after: np.ndarray) -> np.ndarray:
        shape = [-1] + [1] * (after.ndim - 1)
        return np.where(chosen.reshape(shape), after, np.asarray(before))

    return tf.nest.map_structure(one, x, moved)
