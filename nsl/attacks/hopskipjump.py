"""HopSkipJump: a search along the decision boundary that needs only class labels."""

from collections.abc import Callable
from typing import Any, ClassVar

import attrs
import tensorflow as tf

from nsl import configs
from nsl.attacks.attack import MinimumNorm, State
from nsl.attacks.objectives import margin
from nsl.attacks.problem import Problem

_STARTS = 64
_HALVINGS = 15
_WIDER = 1.25
_FIRST_SHARE = 0.1


@attrs.frozen(kw_only=True)
class HopSkipJump(MinimumNorm):
    """Minimizes the perturbation of a model that outputs only class labels.

    It starts at a misclassified point: another example of the batch, or a random one.
    Each step t bisects to the boundary and estimates its normal there, from `samples` *
    sqrt(t) random directions u with decisions phi = +-1,

        v = mean((phi - mean(phi)) u),

    then moves along v (under L-infinity along its signs) by |delta| / sqrt(t), halved
    until the point is misclassified, and bisects again. Chen et al. (2020),
    "HopSkipJumpAttack: a query-efficient decision-based attack",
    https://arxiv.org/abs/1904.02144, algorithm 2.

    ```python
    attack = nsl.attacks.HopSkipJump(norm="l2")
    x_adv = attack(forest.predict, x, y, epsilon=0.5)
    ```

    Attributes:
      norm: 'l2' or 'infinity'.
      samples: The number of random directions in the first step.

    The other attributes are those of `MinimumNorm`.

    Raises:
      ValueError: If the norm is another one.
    """

    black_box: ClassVar[bool] = True
    needs_scores: ClassVar[bool] = False

    samples: int = attrs.field(default=100, validator=attrs.validators.ge(2))

    def __attrs_post_init__(self) -> None:
        if self.norm not in (configs.NormType.L2, configs.NormType.INFINITY):
            raise ValueError(
                "HopSkipJump supports the norms 'l2' and 'infinity', but received "
                f"{self.norm.value!r}. For scores, nsl.attacks.Square supports any "
                "norm."
            )

    def problem_settings(self) -> dict[str, Any]:
        """Returns the norm and an objective, whose value is not used."""
        return {"norm": self.norm, "objective": margin}

    def start(self, problem: Problem) -> State:
        """Finds a misclassified point and bisects from it to the boundary."""
        none, seed = problem.none, problem.seed()
        far = tf.fill(tf.shape(none)[:1], problem.dtype.max)

        def attempt(i: tf.Tensor, best: tf.Tensor, length: tf.Tensor) -> Any:
            point = self._candidate(problem, i, seed)
            _, fooled = problem.evaluate(point)
            found = problem.norm.length(point)[:, 0]
            nearer = fooled & (found < length)
            best = tf.where(nearer[:, None], point, best)
            return i + 1, best, tf.where(nearer, found, length)

        _, clean = problem.evaluate(none)
        start = (tf.constant(0), none, tf.where(clean, 0 * far, far))
        _, point, length = _loop(lambda i, *_: i < _STARTS, attempt, start)
        point = self._to_boundary(problem, point)
        return self.keep_nearest(problem, State.at(point), point, length < far)

    def step(self, problem: Problem, state: State) -> State:
        """Estimates the normal of the boundary, moves along it, and bisects."""
        here = state.perturbation
        has_point = state.value > state.value.dtype.min
        length = problem.norm.length(here)
        root_t = tf.sqrt(tf.cast(state.i + 1, problem.dtype))
        direction = self._direction(problem, here, length, root_t, state.i)

        def moved(size: tf.Tensor) -> tf.Tensor:
            return tf.clip_by_value(here + size * direction, problem.low, problem.high)

        def halve(i: tf.Tensor, size: tf.Tensor, done: tf.Tensor) -> Any:
            _, fooled = problem.evaluate(moved(size))
            done |= fooled[:, None]
            return i + 1, tf.where(done, size, size / 2), done

        start = (tf.constant(0), length / root_t, tf.zeros_like(length, tf.bool))
        _, size, done = _loop(
            lambda i, _, done: (i < _HALVINGS) & ~tf.reduce_all(done), halve, start
        )
        point = tf.where(done & has_point[:, None], moved(size), here)
        point = self._to_boundary(problem, point)
        return self.keep_nearest(problem, state, point, has_point).next(point)

    def finish(self, problem: Problem, state: State) -> State:
        """Returns the state unchanged, because every point has been evaluated."""
        del problem
        return state

    def _candidate(self, problem: Problem, i: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns another example of the batch, or a random point of the box."""
        centers = problem.threat.centers
        other = problem.from_point(tf.roll(centers, i // 2 + 1, axis=0))
        seed = tf.random.experimental.stateless_fold_in(seed, i)  # type: ignore[attr-defined]
        drawn = tf.random.stateless_uniform(
            tf.shape(centers), seed, dtype=problem.dtype
        )
        # Without bounds, move farther out with each attempt.
        scale = tf.reduce_max(tf.abs(other), axis=1, keepdims=True) + problem.radius
        scale *= tf.pow(tf.constant(_WIDER, problem.dtype), tf.cast(i, problem.dtype))
        low = tf.where(tf.math.is_finite(problem.low), problem.low, -scale)
        high = tf.where(tf.math.is_finite(problem.high), problem.high, scale)
        point = tf.where(tf.math.floormod(i, 2) == 0, other, low + drawn * (high - low))
        return tf.clip_by_value(point, problem.low, problem.high)

    def _direction(
        self,
        problem: Problem,
        here: tf.Tensor,
        length: tf.Tensor,
        root_t: tf.Tensor,
        i: tf.Tensor,
    ) -> tf.Tensor:
        """Estimates the normal of the boundary from random directions."""
        columns = tf.cast(tf.shape(here)[1], problem.dtype)
        share = tf.where(i == 0, tf.constant(_FIRST_SHARE, problem.dtype), 1 / columns)
        radius = tf.maximum(share * length, 1e-6)
        count = tf.cast(self.samples * root_t, tf.int32)
        seed = problem.seed(i + 1)

        def draw(k: tf.Tensor, faced: tf.Tensor, drawn: tf.Tensor, phis: Any) -> Any:
            key = tf.random.experimental.stateless_fold_in(seed, k)  # type: ignore[attr-defined]
            if self.norm is configs.NormType.L2:
                u = tf.random.stateless_normal(tf.shape(here), key, dtype=here.dtype)
            else:
                u = tf.random.stateless_uniform(
                    tf.shape(here), key, -1.0, 1.0, dtype=here.dtype
                )
            u = problem.threat.masked(u)
            u = tf.math.divide_no_nan(u, tf.norm(u, axis=1, keepdims=True))
            point = tf.clip_by_value(here + radius * u, problem.low, problem.high)
            _, fooled = problem.evaluate(point)
            u = (point - here) / radius
            phi = tf.where(fooled[:, None], 1.0, -1.0)
            phi = tf.cast(phi, here.dtype)
            return k + 1, faced + phi * u, drawn + u, phis + phi

        start = (tf.constant(0), 0 * here, 0 * here, 0 * length)
        _, faced, drawn, phis = _loop(lambda k, *_: k < count, draw, start)
        mean = phis / tf.cast(count, here.dtype)
        one_sided = tf.abs(mean) >= 1.0
        normal = tf.where(one_sided, mean * drawn, faced - mean * drawn)
        return problem.norm.steepest_step(normal)

    def _to_boundary(self, problem: Problem, point: tf.Tensor) -> tf.Tensor:
        """Bisects between the clean example and a misclassified point."""
        length = problem.norm.length(point)

        def at(share: tf.Tensor) -> tf.Tensor:
            if self.norm is configs.NormType.L2:
                return share * point
            return tf.clip_by_value(point, -share * length, share * length)

        def halve(i: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> Any:
            middle = (low + high) / 2
            _, fooled = problem.evaluate(at(middle))
            fooled = fooled[:, None]
            return (
                i + 1,
                tf.where(fooled, low, middle),
                tf.where(fooled, middle, high),
            )

        start = (tf.constant(0), 0 * length, 0 * length + 1)
        _, _, high = _loop(lambda i, *_: i < _HALVINGS, halve, start)
        return at(high)


def _loop(condition: Callable[..., Any], body: Callable[..., Any], start: Any) -> Any:
    return tf.while_loop(condition, body, start, parallel_iterations=1)
