"""The Square attack: random search over windows, without gradients."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import tensorflow as tf

from nsl import configs
from nsl.attacks import square_windows
from nsl.attacks.attack import FixedRadius, State, doubling
from nsl.attacks.objectives import Objective, check_objective
from nsl.attacks.problem import Problem
from nsl.attacks.square_windows import Windows
from nsl.lib.features import is_perturbable

_MOST_QUERIES_AT_ONCE = 250


@attrs.frozen(kw_only=True)
class Square(FixedRadius):
    """Perturbs one square window at a time, and keeps it if the objective grows.

    Andriushchenko et al. (2020), "Square attack: a query-efficient black-box
    adversarial attack via random search", https://arxiv.org/abs/1912.00049. It uses
    only the model's outputs, so it also works when gradients are masked.

    Under L-infinity it starts with vertical stripes of +-epsilon, and each query sets a
    window to +-epsilon, with one sign per channel. Under L2 it starts with a grid of
    bumps, and each query adds a bump to a window and takes its mass from a second
    window. L1 works like L2, with masses in the L1 norm. The area of the windows
    shrinks on the schedule of the paper, stretched to the number of queries.

    Windows need a position for each coordinate. A single floating feature of shape
    (height, width, channels) or (height, width) is an image, channels last. Anything
    else (vectors, several features) is a row of all perturbable coordinates, and
    windows are segments of it.

    Attributes:
      norm: The norm of the ball.
      steps: The number of queries per example, in addition to that at the start.
      initial_share: The share of all pixels in the first windows.
      objective: The objective, see `FixedRadius`; the paper uses the margin.
      early_stop: Whether fooled examples get no further queries.

    The other attributes are those of `FixedRadius`.
    """

    black_box: ClassVar[bool] = True

    steps: int = attrs.field(default=5000, validator=attrs.validators.ge(1))
    objective: str | Objective = attrs.field(
        default="margin", validator=check_objective
    )
    early_stop: bool = True
    initial_share: float = attrs.field(
        default=0.8,
        validator=[attrs.validators.gt(0.0), attrs.validators.le(1.0)],
    )

    def step_counts(self) -> list[int]:
        """Returns the numbers of queries between which fooled examples drop out."""
        most = _MOST_QUERIES_AT_ONCE
        return doubling(self.steps, most) if self.early_stop else [self.steps]

    def start(self, problem: Problem) -> State:
        """Starts with stripes or, under L2 and L1, with a grid of bumps."""
        canvas, seed = _Canvas(problem), problem.seed()
        if self.norm == configs.NormType.INFINITY:
            stripes = [canvas.batch, 1, canvas.width, canvas.channels]
            signs = _signs(canvas.uniform(stripes, seed))
            drawn = tf.repeat(canvas.radius * signs, canvas.height, axis=1)
        else:
            drawn = self._grid(canvas, seed)
        point = self._fit(problem, canvas, drawn)
        return State.at(point).keep_best(*problem.evaluate(point))

    def step(self, problem: Problem, state: State) -> State:
        """Tries one window for each example, and keeps it if the objective grows."""
        canvas, seed = _Canvas(problem), problem.seed(state.i + 1)
        level = square_windows.level(state.i + 1, self.steps)
        before = canvas.images(state.best)
        if self.norm == configs.NormType.INFINITY:
            drawn = self._set_window(canvas, level, before, seed)
        else:
            drawn = self._move_mass(canvas, level, before, seed)
        point = self._fit(problem, canvas, drawn)
        values, fooled = problem.evaluate(point)
        return state.next(point).keep_best(values, fooled)

    def finish(self, problem: Problem, state: State) -> State:
        """Returns the state unchanged, because every point has been evaluated."""
        del problem
        return state

    def _fit(self, problem: Problem, canvas: _Canvas, drawn: tf.Tensor) -> tf.Tensor:
        """Scales what was drawn to the radius and clips it to the bounds."""
        rows = problem.threat.masked(canvas.rows(drawn))
        if self.norm == configs.NormType.INFINITY:
            rows = tf.clip_by_value(rows, -problem.radius, problem.radius)
        else:
            length = problem.norm.length(rows)
            rows = tf.math.divide_no_nan(rows, length) * problem.radius
        return tf.clip_by_value(rows, problem.low, problem.high)

    def _grid(self, canvas: _Canvas, seed: tf.Tensor) -> tf.Tensor:
        tiles, bumps = square_windows.tiling(canvas.height, canvas.width)
        count = int(tiles.max()) + 1
        drawn = canvas.uniform([canvas.batch, count, 1 + canvas.channels], seed)
        turned, signs = drawn[:, :, :1] < 0.5, _signs(drawn[:, :, 1:])
        upright, flat = (tf.constant(b[..., None], canvas.dtype) for b in bumps)
        pattern = tf.where(tf.gather(turned, tiles, axis=1), flat, upright)
        return pattern * tf.gather(signs, tiles, axis=1)

    def _set_window(
        self, canvas: _Canvas, level: tf.Tensor, before: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """Sets a window to +-epsilon: algorithm 2 of the paper."""
        windows = Windows(canvas.height, canvas.width, self.initial_share, bumps=False)
        drawn = canvas.uniform([canvas.batch, 2 + canvas.channels], seed)
        window = windows.areas(level, windows.corners(level, drawn[:, :2]))
        signs = _signs(drawn[:, tf.newaxis, tf.newaxis, 2:])
        return tf.where(window, canvas.radius * signs, before)

    def _move_mass(
        self, canvas: _Canvas, level: tf.Tensor, before: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """Adds a bump with the mass of another window: algorithm 3 of the paper."""
        windows = Windows(canvas.height, canvas.width, self.initial_share, bumps=True)
        power = 1.0 if self.norm == configs.NormType.L1 else 2.0

        def mass(images: tf.Tensor, axes: list[int]) -> tf.Tensor:
            return tf.reduce_sum(tf.abs(images) ** power, axis=axes, keepdims=True)

        def unit(images: tf.Tensor) -> tf.Tensor:
            return tf.math.divide_no_nan(images, mass(images, [1, 2]) ** (1 / power))

        drawn = canvas.uniform([canvas.batch, 5 + canvas.channels], seed)
        here, there = (windows.corners(level, drawn[:, i : i + 2]) for i in (1, 3))
        window, source = windows.areas(level, here), windows.areas(level, there)
        chosen = 2 * level + tf.cast(drawn[:, 0] < 0.5, tf.int32)
        bumps = tf.constant(windows.bumps)
        bump = square_windows.place(bumps, chosen, here[:, 0], here[:, 1])
        signs = _signs(drawn[:, tf.newaxis, tf.newaxis, 5:])

        zero = tf.zeros_like(before)
        unused = tf.maximum(canvas.radius**power - mass(before, [1, 2, 3]), 0.0)
        moved = mass(tf.where(window | source, before, zero), [1, 2])
        size = (unused / canvas.channels + moved) ** (1 / power)
        filled = unit(
            unit(tf.cast(bump, canvas.dtype) * signs)
            + unit(tf.where(window, before, zero))
        )
        return tf.where(window, filled * size, tf.where(source, zero, before))


class _Canvas:
    """The rows of a batch as images of shape [batch, height, width, channels].

    If the coordinates are not an image, the height is 1. The radius has shape
    [batch, 1, 1, 1].
    """

    def __init__(self, problem: Problem) -> None:
        none = problem.none
        self._row_shape = none.shape
        self.dtype = none.dtype
        self.batch = tf.shape(none)[0]
        self.radius = problem.radius[:, :, None, None]
        leaves = tf.nest.flatten(problem.batch.features)
        shapes = [leaf.shape[1:] for leaf in leaves if is_perturbable(leaf)]
        if len(shapes) == 1 and len(shapes[0]) in (2, 3):
            self.height, self.width, self.channels = (*shapes[0], 1)[:3]
        else:
            self.height, self.width, self.channels = 1, none.shape[1], 1

    def images(self, rows: tf.Tensor) -> tf.Tensor:
        """Reshapes rows to images."""
        return tf.reshape(rows, [-1, self.height, self.width, self.channels])

    def rows(self, images: tf.Tensor) -> tf.Tensor:
        """Reshapes images to rows."""
        rows = tf.reshape(
            images, [self.batch, self.height * self.width * self.channels]
        )
        return tf.ensure_shape(tf.cast(rows, self.dtype), self._row_shape)

    def uniform(self, shape: Any, seed: tf.Tensor) -> tf.Tensor:
        """Draws numbers from [0, 1)."""
        return tf.random.stateless_uniform(shape, seed, dtype=self.dtype)


def _signs(uniform: tf.Tensor) -> tf.Tensor:
    return tf.where(uniform < 0.5, -tf.ones_like(uniform), tf.ones_like(uniform))
