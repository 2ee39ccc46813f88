"""One call of an attack: all radii, attempts and batches."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import tensorflow as tf

from nsl.attacks.examples import Batch, Examples, Limits, split
from nsl.attacks.labels import read_classes
from nsl.attacks.model_adapter import ModelAdapter
from nsl.attacks.problem import Loss, Problem
from nsl.files.progress import Progress
from nsl.lib.features import is_perturbable
from nsl.lib.rows import joint_dtype

if TYPE_CHECKING:
    from nsl.attacks.attack import Attack

_SMALLEST_BATCH = 16
_SHORTER = 1e-12
_MOST_REACHED = 0.9


@attrs.frozen
class Best:
    """The best that has been found for each example within one radius.

    Attributes:
      radius: The radius, of shape [count, 1].
      best: The perturbation; rows.
      value: The objective, of shape [count].
      fooled: Whether the attack has succeeded, of shape [count].
    """

    radius: np.ndarray
    best: np.ndarray
    value: np.ndarray
    fooled: np.ndarray

    def keep_all(self, smaller: list[Best]) -> None:
        """Keeps what was found within radii that are no larger."""
        for one in smaller:
            indices = np.flatnonzero(one.radius <= self.radius)
            self.keep(indices, _rows(one, indices))

    def keep(self, indices: np.ndarray, other: Any) -> None:
        """Keeps what is better than what there is: has succeeded, or larger.

        Args:
          indices: The examples.
          other: A `State` or `Best` of these.
        """
        larger = other.value > self.value[indices]
        same = other.fooled == self.fooled[indices]
        better = np.where(same, larger, other.fooled)
        for own, new in (
            (self.best, other.best),
            (self.value, other.value),
            (self.fooled, other.fooled),
        ):
            own[indices[better]] = new[better]


class Search:
    """Runs an attack on all examples of a call.

    Attributes:
      work: The number of steps for all examples in all attempts.

    Args:
      attack: The attack.
      model: The model.
      examples: The examples.
      loss_fn: What is maximized instead of the attack's objective, or None.
      criterion: With `loss_fn`, tells which examples are right, or None.
      batch_size: The number of examples in a full batch.
      seed: Determines all that is random.
    """

    def __init__(
        self,
        attack: Attack,
        model: ModelAdapter,
        examples: Examples,
        *,
        loss_fn: Loss | None = None,
        criterion: Loss | None = None,
        batch_size: int,
        seed: int = 0,
    ) -> None:
        self._attack, self._model, self._examples = attack, model, examples
        self._loss_fn, self._criterion = loss_fn, criterion
        self._size, self._seed = batch_size, abs(seed)
        gpu = bool(tf.config.list_physical_devices("GPU"))
        jit_compile = gpu if attack.jit_compile is None else attack.jit_compile
        self._jit_compile = jit_compile and model.is_native
        self._labels: Any = None
        self._targets: Any = None
        self._given_targets = False
        self._memory = model.memory()

    @property
    def work(self) -> int:
        """The number of steps for all examples in all attempts."""
        return self._examples.count * self._attack.steps * self._attempts

    def label(self, target: Any) -> None:
        """Reads labels and targets.

        Args:
          target: The classes to reach, or None for what the attack says.

        Raises:
          ValueError: If they do not fit the model's outputs.
        """
        y, classes = self._examples.y, self._model.classes
        if self._loss_fn is not None:
            self._labels = self._clean if y is None else y
            return
        if y is None:
            self._labels = self._clean.argmax(axis=1).astype(np.int32)
        else:
            self._labels = read_classes(y, classes)
        if target is not None:
            self._examples.check_count(target, "target")
            self._targets = read_classes(target, classes, "target")
            self._given_targets = True
            if np.mean(self._targets == self._labels) > _MOST_REACHED:
                raise ValueError(
                    "target must be the classes to reach, but nearly all of them are "
                    "those that the examples have. Give the true classes as y."
                )

    def run(self, limits: list[Limits], progress: Progress) -> list[Best]:
        """Searches within several limits.

        Args:
          limits: The limits of all examples, several times.
          progress: Is told of each step of an example.

        Returns:
          What was found, for each of the limits.
        """
        attack, function, done = self._attack, self._function(), 0
        compiled, traced = self._model.is_native and not self._pads, set()
        found = [self._nothing(one) for one in limits]
        for here, within, attempt in self._turns(found, limits):
            robust = np.flatnonzero(~here.fooled)
            state: Any = None
            for made, steps, chain in self._chunks(len(limits)):
                after = []
                for b, piece in enumerate(split(len(robust), self._size)):
                    now = _rows(state, piece)
                    batch = self._batch(robust[piece], within)
                    seed = self._numbers(attempt, made, b)
                    for parts in chain:
                        given = (now, seed, np.int32(made + steps), parts)
                        if compiled and parts not in traced:
                            specs = self._specs(within, *given)
                            function.get_concrete_function(*specs)
                            traced.add(parts)
                        now = function(*self._padded(batch, *given))
                    now = tf.nest.map_structure(np.asarray, now)
                    after.append(_rows(now, slice(len(robust[piece]))))
                    progress.advance(steps * len(robust[piece]))
                if not after:
                    break
                state = tf.nest.map_structure(_concatenated, *after)
                ended = state.fooled | (made + steps == attack.steps)
                here.keep(robust[ended], _rows(state, ended))
                robust, state = robust[~ended], _rows(state, ~ended)
            done += self._examples.count * attack.steps
            progress.reach(done)
        return found

    def _turns(
        self, found: list[Best], limits: list[Limits]
    ) -> Iterator[tuple[Best, Limits, int]]:
        """Yields what is found for each radius, smallest first, in each attempt."""
        order = sorted(range(len(limits)), key=lambda k: limits[k].radius.mean())
        for position, k in enumerate(order):
            same = [j for j in order[:position] if limits[j].scale is limits[k].scale]
            smaller = [found[j] for j in same]
            if self._judges:
                found[k].keep_all(smaller)
            for attempt in range(self._attempts):
                self._aim(attempt)
                yield found[k], limits[k], attempt
            if not self._judges:
                found[k].keep_all(smaller)

    def _chunks(self, radii: int) -> Iterator[tuple[int, int, list[tuple[str, ...]]]]:
        """Yields the steps made, those to make now, and what to call for them."""
        attack, made = self._attack, 0
        ending = ("finish",) if radii > 1 or not attack._keeps_last else ()
        for steps in attack.step_counts():
            end = ending if made + steps == attack.steps else ()
            parts = [() if made else ("start",), ("steps",), end]
            # Where fallen examples leave in between, parts in all combinations would
            # have to be traced.
            whole = [("start", "steps", *end)]
            yield (
                made,
                steps,
                whole if steps == attack.steps else [*filter(None, parts)],
            )
            made += steps

    def features(self, perturbation: np.ndarray, limits: Limits) -> Any:
        """Returns perturbed features, inside ball and bounds in their own dtypes.

        Args:
          perturbation: Rows, for all examples.
          limits: The limits they are within.

        Returns:
          A structure of arrays like the examples.
        """
        model, norm = self._model, self._attack.norm

        def place(batch: Batch, rows: Any) -> tuple[Any, tf.Tensor]:
            """Returns features, and the norm of their change in float64."""
            problem = Problem(model, batch, norm=norm)
            found = problem.features(rows)
            return found, problem.distance(found)

        def make() -> Any:
            return tf.function(
                functools.partial(place), autograph=False, reduce_retracing=True
            )

        ranks = tuple(leaf.ndim for leaf in self._examples.leaves)
        function = model.compiled(("place", norm, ranks), make)
        parts = []
        for piece in split(self._examples.count, self._size):
            batch = self._batch(np.arange(piece.start, piece.stop), limits)
            batch = attrs.evolve(batch, labels=None, targets=None, memory=[])
            parts.append(inside(function, batch, perturbation[piece]))
        return tf.nest.map_structure(lambda *p: np.concatenate(p), *parts)

    @functools.cached_property
    def _attempts(self) -> int:
        return self._attack.attempts(self._model.classes)

    @property
    def _judges(self) -> bool:
        """Whether the attack can tell that it has succeeded."""
        return self._loss_fn is None or self._criterion is not None

    @property
    def _pads(self) -> bool:
        """Whether batches are padded to few sizes, each of which is compiled."""
        return self._jit_compile or self._model.batch_size is not None

    def _function(self) -> Any:
        """Returns the compiled parts of the attack."""
        attack, model = self._attack, self._model
        loss_fn, criterion = self._loss_fn, self._criterion

        def run(
            batch: Batch, state: Any, seed: Any, end: Any, parts: tuple[str, ...]
        ) -> Any:
            batch, state = tf.nest.map_structure(_tensor, (batch, state))
            problem = Problem(
                model,
                batch,
                seed=seed,
                loss_fn=loss_fn,
                criterion=criterion,
                **attack.problem_settings(),
            )
            if "start" in parts:
                state = attack.start(problem)
            if "steps" in parts:
                [state] = tf.while_loop(
                    lambda state: state.i < end,
                    lambda state: [_shaped(attack.step(problem, state), state)],
                    [state],
                    parallel_iterations=1,
                    maximum_iterations=attack.steps,
                )
            if "finish" in parts:
                state = attack.finish(problem, state)
            return state

        def make() -> Any:
            # A partial of its own: TensorFlow warns of frequent tracing by code.
            return tf.function(
                functools.partial(run), autograph=False, jit_compile=self._jit_compile
            )

        if not model.is_native:
            return run

        key = (attack, loss_fn, criterion, self._jit_compile, model.classes)
        return model.compiled(key, make)

    @functools.cached_property
    def _clean(self) -> Any:
        """The clean logits; outputs, with `loss_fn`."""
        x, as_logits = self._examples.x, self._loss_fn is None
        return self._model.predict(x, self._size, as_logits=as_logits)

    def _aim(self, attempt: int) -> None:
        if self._given_targets or self._loss_fn is not None:
            return
        self._targets = self._attack.targets(lambda: self._clean, self._labels, attempt)

    def _batch(self, indices: np.ndarray, limits: Limits) -> Batch:
        return self._examples.batch(
            indices, limits, self._labels, self._targets, self._memory
        )

    def _nothing(self, limits: Limits) -> Best:
        leaves = [leaf for leaf in self._examples.leaves if is_perturbable(leaf)]
        count = self._examples.count
        return Best(
            radius=limits.radius,
            best=np.zeros(
                [count, sum(leaf[:1].size for leaf in leaves)],
                joint_dtype(leaves).as_numpy_dtype,
            ),
            value=np.full(count, -np.inf),
            fooled=np.zeros(count, bool),
        )

    def _numbers(self, *position: int) -> np.ndarray:
        sequence = np.random.SeedSequence([self._seed, *position])
        return sequence.generate_state(2).astype(np.int32)

    def _specs(self, limits: Limits, state: Any, *others: Any) -> tuple[Any, ...]:
        """Returns the arguments of the compiled parts as types, for any batch size."""
        count = self._examples.count

        def spec(leaf: Any) -> Any:
            if leaf is None or np.ndim(leaf) == 0:
                return leaf
            dtype = tf.string if leaf.dtype.kind in "OSU" else leaf.dtype
            size = None if len(leaf) == count else len(leaf)
            return tf.TensorSpec([size, *leaf.shape[1:]], dtype)

        whole = self._batch(np.arange(count), limits)
        memory, whole = whole.memory, attrs.evolve(whole, memory=[])
        batch = attrs.evolve(tf.nest.map_structure(spec, whole), memory=memory)
        if state is not None:
            state = tf.nest.map_structure(
                lambda leaf: tf.TensorSpec(
                    [None, *leaf.shape[1:]] if leaf.ndim else [], leaf.dtype
                ),
                state,
            )
        return batch, state, *others

    def _padded(self, batch: Batch, state: Any, *others: Any) -> tuple[Any, ...]:
        """Returns the arguments with examples repeated up to a compiled size."""
        count = len(tf.nest.flatten(batch.features)[0])
        size = self._size
        if not self._pads:
            return batch, state, *others
        while self._model.batch_size is None and size // 4 >= max(
            count, _SMALLEST_BATCH
        ):
            size //= 4

        def padded(leaf: Any) -> Any:
            if leaf is None or np.ndim(leaf) == 0 or len(leaf) != count:
                return leaf
            leaf = np.asarray(leaf)
            return np.concatenate([leaf, np.repeat(leaf[:1], size - count, axis=0)])

        given = tf.nest.map_structure(padded, (batch, state))
        return attrs.evolve(given[0], memory=batch.memory), given[1], *others


def inside(place: Callable[..., Any], batch: Batch, perturbation: np.ndarray) -> Any:
    """Returns perturbed features that are inside the ball in their own dtypes.

    Rounding to the dtype of a feature can lead out of the ball. Then the perturbation
    is shortened to the radius and rounded towards the clean features.

    Args:
      place: Returns the features that rows lead to, and the norm of their change.
      batch: The examples.
      perturbation: Rows, allowed ones.

    Returns:
      A structure of arrays like the features.
    """
    moved, length = tf.nest.map_structure(np.asarray, place(batch, perturbation))
    radius = batch.limits.radius
    outside = length > radius
    if not np.any(outside):
        return moved
    share = np.divide(radius, length, out=np.ones_like(length), where=outside)
    share = np.where(outside, share * (1 - _SHORTER), 1.0)
    shortened = functools.partial(_shortened, share=share)
    return tf.nest.map_structure(shortened, batch.features, moved)


def _shortened(before: np.ndarray, after: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Returns a share of the change of each example, rounded towards the clean one."""
    if not is_perturbable(before):
        return after
    share = share.reshape((len(before), *[1] * (before.ndim - 1)))
    change = np.subtract(after, before, dtype=np.float64)
    change *= share
    shorter = np.add(before, change, dtype=np.float64).astype(before.dtype)
    moved = np.abs(np.subtract(shorter, before, dtype=np.float64))
    beyond = moved > np.abs(change)
    return np.nextafter(shorter, before, out=shorter, where=beyond)


def _tensor(leaf: Any) -> Any:
    return None if leaf is None else tf.convert_to_tensor(leaf)


def _shaped(state: Any, like: Any) -> Any:
    """Returns a state with the static shapes of another, which a step may have lost."""
    return tf.nest.map_structure(lambda a, b: tf.ensure_shape(a, b.shape), state, like)


def _rows(state: Any, rows: Any) -> Any:
    """Returns some rows of a state, or None of None."""
    if state is None:
        return None
    return tf.nest.map_structure(lambda leaf: leaf[rows] if leaf.ndim else leaf, state)


def _concatenated(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts) if parts[0].ndim else parts[0]
