"""Projected gradient descent that chooses its steps itself."""

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

# The numbers of the papers.
_MOMENTUM = 0.75
_RISING_SHARE = 0.75
_FIRST_CHECK, _SOONER, _LEAST_WAIT = 0.22, 0.03, 0.06
_L1_WAIT, _L1_SPARSITY, _L1_SHRINKS = 0.04, 0.2, 0.95
_L1_DIVISOR, _L1_LEAST_STEP = 1.5, 0.1
_LARGE_RADII, _LARGE_SHARES = (3.0, 2.0), (0.3, 0.3)


class _Schedule(NamedTuple):
    """What each step is, in arrays of shape [steps].

    `factors` are radii as multiples of epsilon; `waits` the numbers of steps since the
    last checkpoint, 0 where there is none; a step that `leaves` goes over to the next
    radius.
    """

    factors: np.ndarray
    is_first: np.ndarray
    waits: np.ndarray
    leaves: np.ndarray


@attrs.frozen
class _MomentumState(State):
    """Under L2 and L-infinity: points are rows, all others of shape [batch].

    `rises` counts the steps since the last checkpoint in which the objective rose;
    `checked_value` is the best objective there.
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
    """Under L1: `sparsity` is the share of the coordinates that a step changes.

    `checked_support` counts the coordinates in which the best point differed from the
    features at the last checkpoint. Both are of shape [batch].
    """

    best_gradient: tf.Tensor
    length: tf.Tensor
    sparsity: tf.Tensor
    checked_support: tf.Tensor


@attrs.frozen(kw_only=True)
class AutoPGD(FixedRadius):
    """Projected gradient descent with momentum that chooses its step sizes itself.

    For the infinity norm and L2, with z = project(x + step * direction(gradient)),

        x <- project(x + 0.75 (z - x) + 0.25 (x - previous x))

    where points are clipped to the bounds before they are projected onto the ball.
    The step is 2 epsilon at first. At checkpoints that grow more frequent it is
    halved, and the search goes back to the best point, for examples whose objective
    rose in less than 3 of 4 steps, or has no new best point since the last checkpoint
    in spite of an unchanged step. Croce & Hein (2020),
    https://arxiv.org/abs/2003.01690, algorithm 1. The point before the best one comes
    back with it: the momentum of the points left behind would lead to them again.

    For L1, steps go along the signs of the largest coordinates of the gradient alone.
    Their share is that of the coordinates in which the best point differs from the
    features, divided by 1.5; the step goes back to epsilon where this number falls,
    and is divided by 1.5 otherwise. Croce & Hein (2021),
    https://arxiv.org/abs/2103.01208, algorithm 1.

    With `large_radii`, 3 of 10 steps are made within 3 epsilon, 3 within 2 epsilon and
    the others within epsilon. Each time the search begins anew from the best point so
    far, projected onto the smaller ball; under L1 as sparse as that is. Only points
    within epsilon count as successes. Croce & Hein (2021) have it for L1.

    `AutoPGD(objective='dlr', target_classes=9)` is the targeted attack of AutoAttack.

    Attributes:
      target_classes: If not 0, each restart is made for so many wrong classes, from
        the likeliest on, with each of them as target. It succeeds with any wrong
        class.
      random_start: Whether attempts start at a random point of the ball.
      large_radii: Whether the search first goes beyond epsilon, and comes back.
    """

    steps: int = attrs.field(default=100, validator=attrs.validators.ge(1))
    target_classes: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    random_start: bool = True
    large_radii: bool = False

    def attempts(self, classes: int) -> int:
        """Returns how often the attack is made: for each class, if it has targets."""
        return self.restarts * max(1, min(self.target_classes, classes - 1))

    def targets(
        self, logits: Callable[[], np.ndarray], labels: np.ndarray, attempt: int
    ) -> np.ndarray | None:
        """Returns the wrong class whose turn it is."""
        if not self.target_classes:
            return super().targets(logits, labels, attempt)
        return likeliest_wrong(logits(), labels, attempt // self.restarts)

    def problem_settings(self) -> dict[str, Any]:
        """Returns those of any attack; where each class has its turn, any will do."""
        return {**super().problem_settings(), "any_class": self.target_classes > 0}

    def step_counts(self) -> list[int]:
        """Returns after how many steps fallen examples leave."""
        if not (self.early_stop and self.large_radii):
            return super().step_counts()
        # None falls before the last radius.
        before = int(np.sum(self._schedule().factors > 1.0))
        counts = [before, *doubling(self.steps - before, self.steps)]
        return [count for count in counts if count]

    def start(self, problem: Problem) -> State:
        """Starts at a random point, or at the features."""
        factor, point = float(self._schedule().factors[0]), problem.none
        if self.random_start and self._sparse and self.large_radii:
            # Noise as wide as the ball loses most coordinates on its way into it, so
            # that the first steps go along few. A point drawn uniformly has them all.
            shape, seed = tf.shape(point), problem.seed()
            drawn = tf.random.stateless_normal(shape, seed, dtype=problem.dtype)
            drawn = problem.masked(factor * problem.radius * drawn)
            point = problem.project(drawn, factor)
        elif self.random_start:
            point = problem.random_start(problem.seed(), factor)
        return self._start_stage(problem, point, factor)

    def _start_stage(self, problem: Problem, point: tf.Tensor, factor: Any) -> State:
        """Returns the state in which steps within `factor` times epsilon begin."""
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
        """Evaluates the present point, checks the step size and moves on."""
        values, fooled, gradient = problem.gradient(state.perturbation)
        schedule, factor = self._schedule(), 1.0
        if self.large_radii:
            factors = tf.constant(schedule.factors, problem.dtype)
            factor = factors[state.i]
            # Only what is within epsilon counts.
            fooled &= factor <= 1.0
        better = state.is_better(values, fooled)[:, None]
        state = attrs.evolve(
            state.keep_best(values, fooled),
            best_gradient=tf.where(better, gradient, state.best_gradient),
        )
        waits = tf.constant(schedule.waits, problem.dtype)[state.i]

        def go_on() -> State:
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

        def go_over() -> State:
            following = factors[tf.minimum(state.i + 1, self.steps - 1)]
            point = problem.project(state.best, following)
            fresh = self._start_stage(problem, point, following)
            return attrs.evolve(fresh, i=state.i + 1)

        if not self.large_radii:
            return go_on()
        return tf.cond(tf.constant(schedule.leaves)[state.i], go_over, go_on)

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
        stuck = ~state.halved & (state.checked_value >= state.value)
        halve = check & ((rises < _RISING_SHARE * waits) | stuck)
        length = tf.where(halve, state.length / 2, state.length)
        back = halve[:, None]
        point = tf.where(back, state.best, state.perturbation)
        previous = tf.where(back, state.best_previous, state.previous)
        gradient = tf.where(back, state.best_gradient, gradient)
        direction = problem.norm.steepest_step(gradient)
        # In the nearest allowed point, coordinates that reached a bound stay there and
        # use up the ball; taking all of them along, fewer examples are robust.
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
        # Few steps are all within epsilon.
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
    """Returns the same as `_waits` for L1, where checkpoints are as far apart."""
    wait = max(1, int(_L1_WAIT * steps))
    return [wait if i and i % wait == 0 else 0 for i in range(steps + 1)]


def _waits(steps: int) -> list[int]:
    """Returns for each step the number of steps since the last checkpoint.

    It is 0 for a step that is no checkpoint itself.
    """
    waits = [0] * (steps + 1)
    last, at, wait = 0, _FIRST_CHECK, _FIRST_CHECK
    while (step := math.ceil(round(at * steps, 6))) <= steps:
        waits[step] = step - last
        wait = max(wait - _SOONER, _LEAST_WAIT)
        last, at = step, at + wait
    return waits
