"""Auto-PGD: projected gradient descent with adaptive step sizes."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import attrs
import numpy as np
import tensorflow as tf

from nsl import configs
from nsl.attacks.attack import FixedRadius, State, doubling
from nsl.attacks.labels import likeliest_wrong
from nsl.attacks.problem import Problem

# Constants from the papers.
_MOMENTUM = 0.75
_RISING_SHARE = 0.75
_FIRST_CHECK, _SOONER, _LEAST_WAIT = 0.22, 0.03, 0.06
_L1_WAIT, _L1_SPARSITY, _L1_SHRINKS = 0.04, 0.2, 0.95
_L1_DIVISOR, _L1_LEAST_STEP = 1.5, 0.1
_LARGE_RADII, _LARGE_SHARES = (3.0, 2.0), (0.3, 0.3)


class _Schedule(NamedTuple):
    """The plan of all steps, in arrays of shape [steps].

    Attributes:
      factors: The radius of each step, as a multiple of epsilon.
      is_first: Whether a step is the first one within its radius.
      waits: The number of steps since the last checkpoint; 0 if the step is not one.
      leaves: Whether a step is the last one within its radius.
    """

    factors: np.ndarray
    is_first: np.ndarray
    waits: np.ndarray
    leaves: np.ndarray


@attrs.frozen
class _MomentumState(State):
    """The state under L2 and L-infinity: points are rows, all else of shape [batch].

    `rises` counts the steps since the last checkpoint that increased the objective;
    `checked_value` is the best objective at that checkpoint.
    """

    best_gradient: tf.Tensor
    length: tf.Tensor
    previous: tf.Tensor
    best_previous: tf.Tensor
    last_value: tf.Tensor
    rises: tf.Tensor
    checked_value: tf.Tensor
    halved: tf.Tensor


@attrs.frozen
class _SparseState(State):
    """The state under L1; `sparsity` is the share of coordinates that a step changes.

    `checked_support` is the number of coordinates in which the best point differed from
    the features at the last checkpoint. Both are of shape [batch].
    """

    best_gradient: tf.Tensor
    length: tf.Tensor
    sparsity: tf.Tensor
    checked_support: tf.Tensor


@attrs.frozen(kw_only=True)
class AutoPGD(FixedRadius):
    """Projected gradient descent with momentum and adaptive step sizes (Auto-PGD).

    Under L-infinity and L2, with z = project(x + step * direction(gradient)),

        x <- project(x + 0.75 (z - x) + 0.25 (x - previous x))

    where points are clipped to the bounds and then projected onto the ball. The step
    size starts at 2 epsilon. At increasingly frequent checkpoints it is halved, and the
    search returns to the best point, for examples whose objective rose in less than 75%
    of the steps, or that found no new best point since the last checkpoint with the
    same step size. Croce & Hein (2020), https://arxiv.org/abs/2003.01690, algorithm 1.
    Momentum is restored along with the best point; otherwise it would lead back to the
    points just abandoned.

    Under L1, steps follow the signs of only the largest gradient coordinates. Their
    share is the share of coordinates in which the best point differs from the features,
    divided by 1.5. At checkpoints, the step size returns to epsilon if that number has
    decreased, and is divided by 1.5 otherwise. Croce & Hein (2021),
    https://arxiv.org/abs/2103.01208, algorithm 1.

    With `large_radii`, the first 30% of the steps are within 3 epsilon, the next 30%
    within 2 epsilon, and the rest within epsilon. At each change of radius the search
    restarts from the best point so far, projected onto the smaller ball; under L1 with
    its sparsity. Only points within epsilon count as adversarial. Croce & Hein (2021)
    use it for L1.

    `AutoPGD(objective='dlr', target_classes=9)` is the targeted attack of AutoAttack.

    Attributes:
      target_classes: If not 0, the number of wrong classes to target, likeliest first;
        each restart attacks each of them. Any wrong class counts as success.
      random_start: Whether to start at a random point of the ball.
      large_radii: Whether to search larger balls first.

    The other attributes are those of `FixedRadius`.
    """

    steps: int = attrs.field(default=100, validator=attrs.validators.ge(1))
    target_classes: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    random_start: bool = True
    large_radii: bool = False

    def attempts(self, classes: int) -> int:
        """Returns the number of restarts times that of target classes."""
        return self.restarts * max(1, min(self.target_classes, classes - 1))

    def targets(
        self, logits: Callable[[], np.ndarray], labels: np.ndarray, attempt: int
    ) -> np.ndarray | None:
        """Returns the wrong class that an attempt targets."""
        if not self.target_classes:
            return super().targets(logits, labels, attempt)
        return likeliest_wrong(logits(), labels, attempt // self.restarts)

    def problem_settings(self) -> dict[str, Any]:
        """Returns those of `FixedRadius`, and whether any wrong class counts."""
        return {**super().problem_settings(), "any_class": self.target_classes > 0}

    def step_counts(self) -> list[int]:
        """Returns the step counts between which fooled examples drop out."""
        if not (self.early_stop and self.large_radii):
            return super().step_counts()
        # No example counts as fooled before the last radius.
        before = int(np.sum(self._schedule().factors > 1.0))
        counts = [before, *doubling(self.steps - before, self.steps)]
        return [count for count in counts if count]

    def start(self, problem: Problem) -> State:
        """Starts at a random point, or at the features."""
        factor, point = float(self._schedule().factors[0]), problem.none
        if self.random_start and self._sparse and self.large_radii:
            # Projecting noise as wide as the ball zeroes most coordinates, so the
            # first steps are sparse. A uniformly drawn point has no zeros.
            shape, seed = tf.shape(point), problem.seed()
            drawn = tf.random.stateless_normal(shape, seed, dtype=problem.dtype)
            drawn = problem.masked(factor * problem.radius * drawn)
            point = problem.project(drawn, factor)
        elif self.random_start:
            point = problem.random_start(problem.seed(), factor)
        return self._start_stage(problem, point, factor)

    def _start_stage(self, problem: Problem, point: tf.Tensor, factor: Any) -> State:
        """Returns the initial state for steps within `factor` times epsilon."""
        radius, zero = factor * problem.radius[:, 0], point[:, 0] * 0
        if self._sparse:
            coordinates = tf.cast(tf.shape(point)[1], problem.dtype)
            support, sparsity = zero + coordinates, zero + _L1_SPARSITY
            if self.large_radii:
                support = _support(point)
                sparsity = support / coordinates / _L1_DIVISOR
            return _SparseState.at(
                point,
                best_gradient=problem.none,
                length=radius,
                sparsity=sparsity,
                checked_support=support,
            )
        return _MomentumState.at(
            point,
            best_gradient=problem.none,
            length=2 * radius,
            previous=point,
            best_previous=point,
            last_value=zero + problem.dtype.min,
            rises=zero,
            checked_value=zero + problem.dtype.min,
            halved=tf.zeros_like(zero, tf.bool),
        )

    def step(self, problem: Problem, state: Any) -> State:
        """Evaluates the current point, adapts the step size and takes a step."""
        values, fooled, gradient = problem.gradient(state.perturbation)
        schedule = self._schedule()
        factor: Any = 1.0
        if self.large_radii:
            factors = tf.constant(schedule.factors, problem.dtype)
            factor = factors[state.i]
            # Only points within epsilon count.
            fooled &= factor <= 1.0
        better = state.is_better(values, fooled)[:, None]
        state = attrs.evolve(
            state.keep_best(values, fooled),
            best_gradient=tf.where(better, gradient, state.best_gradient),
        )
        waits = tf.constant(schedule.waits, problem.dtype)[state.i]

        def continue_stage() -> State:
            if self._sparse:
                return self._sparse_step(problem, state, gradient, waits > 0, factor)
            previous = tf.where(better, state.previous, state.best_previous)
            return self._momentum_step(
                problem,
                attrs.evolve(state, best_previous=previous),
                values,
                gradient,
                waits,
                factor,
            )

        def next_stage() -> State:
            following = factors[tf.minimum(state.i + 1, self.steps - 1)]
            point = problem.project(state.best, following)
            fresh = self._start_stage(problem, point, following)
            return attrs.evolve(fresh, i=state.i + 1)

        if not self.large_radii:
            return continue_stage()
        ends_stage = tf.constant(schedule.leaves)[state.i]
        return tf.cond(ends_stage, next_stage, continue_stage)

    def _momentum_step(
        self,
        problem: Problem,
        state: _MomentumState,
        values: tf.Tensor,
        gradient: tf.Tensor,
        waits: tf.Tensor,
        factor: Any,
    ) -> State:
        is_first = tf.constant(self._schedule().is_first)[state.i]
        check, zero = waits > 0, tf.zeros_like(values)
        rises = state.rises + tf.cast(values > state.last_value, values.dtype)
        stuck = tf.logical_not(state.halved) & (state.checked_value >= state.value)
        halve = check & ((rises < _RISING_SHARE * waits) | stuck)
        length = tf.where(halve, state.length / 2, state.length)
        back = halve[:, None]
        point = tf.where(back, state.best, state.perturbation)
        previous = tf.where(back, state.best_previous, state.previous)
        gradient = tf.where(back, state.best_gradient, gradient)
        direction = problem.norm.steepest_step(gradient)
        # Projecting onto ball and box at once would keep coordinates at their bounds,
        # where they use up the radius; clipping first fools more examples.
        ahead = point + length[:, None] * direction
        ahead = problem.clip_and_project(ahead, factor)
        share = tf.where(is_first, tf.constant(1.0, problem.dtype), _MOMENTUM)
        moved = point + share * (ahead - point) + (1 - share) * (point - previous)
        moved = problem.clip_and_project(moved, factor)
        return state.next(
            moved,
            previous=point,
            length=length,
            last_value=values,
            rises=tf.where(check | is_first, zero, rises),
            halved=tf.where(check, halve, state.halved),
            checked_value=tf.where(check, state.value, state.checked_value),
        )

    def _sparse_step(
        self,
        problem: Problem,
        state: _SparseState,
        gradient: tf.Tensor,
        check: tf.Tensor,
        factor: Any,
    ) -> State:
        support = _support(state.best)
        coordinates = tf.cast(tf.shape(state.best)[1], problem.dtype)
        sparser = support < _L1_SHRINKS * state.checked_support
        radius = factor * problem.radius[:, 0]
        shorter = tf.maximum(state.length / _L1_DIVISOR, _L1_LEAST_STEP * radius)
        length = tf.where(check, tf.where(sparser, radius, shorter), state.length)
        sparsity = support / coordinates / _L1_DIVISOR
        sparsity = tf.where(check, sparsity, state.sparsity)
        back = (check & sparser)[:, None]
        point = tf.where(back, state.best, state.perturbation)
        gradient = tf.where(back, state.best_gradient, gradient)
        gradient = problem.movable(gradient, point)
        size = tf.abs(gradient)
        most = tf.shape(size)[1]
        number = tf.clip_by_value(tf.cast(sparsity * coordinates, tf.int32), 1, most)
        descending = tf.sort(size, axis=1, direction="DESCENDING")
        smallest = tf.gather(descending, number - 1, batch_dims=1, axis=1)[:, None]
        signs = tf.where(size >= smallest, tf.sign(gradient), tf.zeros_like(size))
        count = tf.reduce_sum(tf.abs(signs), axis=1, keepdims=True)
        step = length[:, None] * tf.math.divide_no_nan(signs, count)
        return state.next(
            problem.project(point + step, factor),
            length=length,
            sparsity=sparsity,
            checked_support=tf.where(check, support, state.checked_support),
        )

    @property
    def _sparse(self) -> bool:
        return self.norm is configs.NormType.L1

    def _schedule(self) -> _Schedule:
        stages = [(1.0, self.steps)]
        if self.large_radii:
            large = [int(round(share * self.steps, 6)) for share in _LARGE_SHARES]
            stages = [*zip(_LARGE_RADII, large, strict=True)]
            stages += [(1.0, self.steps - sum(large))]
        # With few steps, all are within epsilon.
        factors, counts = zip(*[stage for stage in stages if stage[1]], strict=True)
        waits = _sparse_waits if self._sparse else _waits
        repeated = np.repeat(factors, counts)
        return _Schedule(
            factors=repeated,
            is_first=np.concatenate([np.arange(count) == 0 for count in counts]),
            waits=np.concatenate([waits(count)[:count] for count in counts]),
            leaves=np.append(repeated[1:] != repeated[:-1], False),
        )


def _support(rows: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(rows != 0, rows.dtype), axis=1)


def _sparse_waits(steps: int) -> list[int]:
    """Returns `_waits` for L1, where checkpoints are equally spaced."""
    wait = max(1, int(_L1_WAIT * steps))
    return [wait if i and i % wait == 0 else 0 for i in range(steps + 1)]


def _waits(steps: int) -> list[int]:
    """Returns the number of steps since the last checkpoint for each step.

    It is 0 for steps that are not checkpoints.
    """
    waits = [0] * (steps + 1)
    last, at, wait = 0, _FIRST_CHECK, _FIRST_CHECK
    while (step := math.ceil(round(at * steps, 6))) <= steps:
        waits[step] = step - last
        wait = max(wait - _SOONER, _LEAST_WAIT)
        last, at = step, at + wait
    return waits
