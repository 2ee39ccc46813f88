"""Runs one call of an attack: all radii, attempts and batches."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import tensorflow as tf

from nsl.attacks.examples import Batch, Examples, Limits, split
from nsl.attacks.model_adapter import ModelAdapter, any_batch_size
from nsl.attacks.problem import Loss, Problem
from nsl.lib.features import is_perturbable
from nsl.progress import Progress

if TYPE_CHECKING:
    from nsl.attacks.attack import Attack

_SMALLEST_BATCH = 16


@attrs.frozen
class Best:
    """The best points found within some limits, for all examples.

    Attributes:
      limits: The limits.
      leaves: The perturbable features, a list of arrays.
      value: The objective, of shape [examples].
      fooled: Whether the attack has succeeded, bool of shape [examples].
    """

    limits: Limits
    leaves: list[np.ndarray]
    value: np.ndarray
    fooled: np.ndarray

    def keep(
        self,
        indices: np.ndarray,
        leaves: list[np.ndarray],
        value: np.ndarray,
        fooled: np.ndarray,
    ) -> None:
        """Keeps points that are better: those that fool, then by objective."""
        larger = value > self.value[indices]
        better = np.where(fooled == self.fooled[indices], larger, fooled)
        for own, new in zip(
            [*self.leaves, self.value, self.fooled],
            [*leaves, value, fooled],
            strict=True,
        ):
            if len(own) == np.count_nonzero(better):
                np.copyto(own, new)
            else:
                own[indices[better]] = new[better]

    def keep_all(self, smaller: list[Best]) -> None:
        """Keeps the points found within smaller or equal radii."""
        for one in smaller:
            at = np.flatnonzero(one.limits.radius <= self.limits.radius)
            leaves = [leaf[at] for leaf in one.leaves]
            self.keep(at, leaves, one.value[at], one.fooled[at])


class Search:
    """Runs an attack on all examples.

    The arguments are those of `Attack.__call__`.

    Raises:
      ValueError: If labels or targets do not fit the model's outputs.
    """

    def __init__(
        self,
        attack: Attack,
        model: ModelAdapter,
        examples: Examples,
        *,
        loss_fn: Loss | None = None,
        criterion: Loss | None = None,
        target: Any = None,
        batch_size: int,
        seed: int = 0,
    ) -> None:
        self._attack, self._model, self._examples = attack, model, examples
        self._loss_fn, self._criterion = loss_fn, criterion
        self._size, self._seed = batch_size, abs(seed)
        jit_compile = attack.jit_compile
        if jit_compile is None:
            jit_compile = bool(tf.config.list_physical_devices("GPU"))
        self._jit_compile = jit_compile and model.is_native
        # Pad batches to a few sizes if each size would be compiled.
        self._pads = self._jit_compile or model.batch_size is not None
        # A function that waits for TensorFlow itself, as `model.predict` does, would
        # wait forever if a graph that runs it held the only thread.
        self._eager = not model.is_native and _inter_op_threads() == 1
        self._attempts = attack.attempts(model.classes)
        self._memory = model.memory()
        self._function, self._traced = self._compiled()
        self._given_targets = target is not None
        self._labels: Any = examples.y
        self._targets: Any = None
        if loss_fn is None:
            self._labels, self._targets = examples.labels_and_targets(
                model.classes, lambda: self._clean, target
            )
        elif examples.y is None:
            self._labels = self._clean

    def run(self, limits: list[Limits], verbose: bool) -> list[Any]:
        """Searches within each of several limits.

        Returns the adversarial features, one structure of arrays for each, in the
        dtypes of the examples and within ball and bounds in these dtypes.
        """
        attack, examples = self._attack, self._examples
        searched = limits
        if attack.minimizes and all(one.scale is limits[0].scale for one in limits):
            # One search for the nearest points serves all radii.
            radius = np.minimum.reduce([one.radius for one in limits])
            searched = [attrs.evolve(limits[0], radius=radius)]
        found = [
            Best(
                one,
                [leaf.copy() for leaf in examples.leaves if is_perturbable(leaf)],
                np.full(examples.count, -np.inf),
                np.zeros(examples.count, bool),
            )
            for one in searched
        ]
        work = examples.count * attack.steps
        with Progress(
            f"{type(attack).__name__} ({attack.norm.value})",
            work * self._attempts * len(found),
            "steps",
            stream=None if verbose else io.StringIO(),
        ) as progress:
            chunks = self._chunks(len(limits))
            for turn, (best, attempt) in enumerate(self._turns(found), 1):
                self._search(best, attempt, chunks, progress)
                progress.reach(turn * work)
        found *= len(limits) // len(found)
        return [self._features(*one) for one in zip(found, limits, strict=True)]

    def _turns(self, found: list[Best]) -> Iterator[tuple[Best, int]]:
        """Yields results and the attempt to make next, smallest radius first."""
        # Without a criterion, success is unknown.
        knows_success = self._loss_fn is None or self._criterion is not None
        done: list[Best] = []
        for best in sorted(found, key=lambda one: one.limits.radius.mean()):
            smaller = [one for one in done if one.limits.scale is best.limits.scale]
            if knows_success:
                best.keep_all(smaller)
            for attempt in range(self._attempts):
                yield best, attempt
            if not knows_success:
                best.keep_all(smaller)
            done.append(best)

    def _chunks(self, radii: int) -> list[tuple[int, list[tuple[str, ...]]]]:
        """Returns step counts, and the parts of the attack to call for each."""
        attack = self._attack
        counts = attack.step_counts()
        ending = ("finish",) if radii > 1 or not attack._keeps_last else ()
        if len(counts) == 1:
            return [(counts[0], [("start", "steps", *ending)])]
        # With drop-outs in between, every combination of parts would be traced.
        chunks: list[tuple[int, list[tuple[str, ...]]]]
        chunks = [(count, [("steps",)]) for count in counts]
        chunks[0][1].insert(0, ("start",))
        chunks[-1][1].extend([ending] if ending else [])
        return chunks

    def _search(
        self, best: Best, attempt: int, chunks: list[Any], progress: Progress
    ) -> None:
        """Makes an attempt on the examples that are still robust."""
        if not self._given_targets and self._loss_fn is None:
            self._targets = self._attack.targets(
                lambda: self._clean, self._labels, attempt
            )
        robust, state, done = np.flatnonzero(~best.fooled), None, 0
        for steps, calls in chunks:
            results = []
            for b, piece in enumerate(split(len(robust), self._size)):
                sequence = np.random.SeedSequence([self._seed, attempt, done, b])
                seed = sequence.generate_state(2).astype(np.int32)
                end = np.int32(done + steps)
                result = self._advance(
                    robust[piece], best.limits, _rows(state, piece), seed, end, calls
                )
                results.append(result)
                progress.advance(steps * len(robust[piece]))
            if not results:
                return
            done += steps
            leaves, state = tf.nest.map_structure(_concatenated, *results)
            finished = state.fooled | (done == self._attack.steps)
            best.keep(
                robust[finished], *_rows((leaves, state.value, state.fooled), finished)
            )
            robust, state = robust[~finished], _rows(state, ~finished)

    def _advance(
        self,
        index: np.ndarray,
        limits: Limits,
        state: Any,
        seed: np.ndarray,
        end: np.int32,
        calls: list[tuple[str, ...]],
    ) -> Any:
        """Runs parts of the attack on some examples; returns their leaves and state."""
        given = self._labels, self._targets, self._memory
        batch, leaves = self._examples.batch(index, limits, *given), None
        for parts in calls:
            function = self._function
            if not (self._pads or self._eager):
                function = self._traced_for(limits, state, seed, end, parts)
            padded = self._padded(batch, state)
            leaves, state = function(*padded, seed, end, parts)
        result = tf.nest.map_structure(np.asarray, (leaves, state))
        return _rows(result, slice(len(index)))

    def _features(self, best: Best, limits: Limits) -> Any:
        """Returns the features found within limits."""
        examples, moved = self._examples, iter(best.leaves)
        leaves = [
            next(moved) if is_perturbable(leaf) else leaf.copy()
            for leaf in examples.leaves
        ]
        if self._attack.minimizes:
            # A point outside this radius may be within another.
            near = -best.value <= limits.radius[:, 0]
            leaves = [
                np.where(near.reshape([-1] + [1] * (leaf.ndim - 1)), leaf, clean)
                for leaf, clean in zip(leaves, examples.leaves, strict=True)
            ]
        x, parts = tf.nest.pack_sequence_as(examples.x, leaves), []
        for piece in split(examples.count, self._size):
            index = np.arange(piece.start, piece.stop)
            batch = examples.batch(index, limits)
            parts.append(batch.inside(examples.take(x, index), self._attack.norm))
        return tf.nest.map_structure(_concatenated, *parts)

    def _compiled(self) -> tuple[Any, dict[Any, Any]]:
        """Returns the compiled attack, and its traces by signature."""
        attack, model = self._attack, self._model
        loss_fn, criterion = self._loss_fn, self._criterion

        def run(
            batch: Batch, state: Any, seed: Any, end: Any, parts: tuple[str, ...]
        ) -> Any:
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
            leaves = tf.nest.flatten(problem.features(state.best))
            return [leaf for leaf in leaves if is_perturbable(leaf)], state

        def make() -> Any:
            if self._eager:
                return lambda *a: run(*tf.nest.map_structure(_as_tensor, a)), {}
            # A new partial: TensorFlow warns about repeated tracing of the same
            # function.
            return tf.function(
                functools.partial(run), autograph=False, jit_compile=self._jit_compile
            ), {}

        modes = self._jit_compile, self._eager
        key = (attack, loss_fn, criterion, *modes, model.classes)
        return model.compiled(key, make)

    @functools.cached_property
    def _clean(self) -> Any:
        """The clean logits, or the outputs if there is a `loss_fn`."""
        x, as_logits = self._examples.x, self._loss_fn is None
        return self._model.predict(x, self._size, as_logits=as_logits)

    def _traced_for(
        self, limits: Limits, state: Any, seed: Any, end: Any, parts: tuple[str, ...]
    ) -> Any:
        """Returns parts of the attack, traced once for any batch size."""
        x, count = self._examples.x, self._examples.count

        def spec(leaf: Any) -> Any:
            if leaf is None or len(leaf) == count:
                return leaf if leaf is None else any_batch_size(leaf)
            return tf.TensorSpec(leaf.shape, leaf.dtype)

        whole = Batch(x, self._labels, self._targets, limits, [])
        specs = tf.nest.map_structure(spec, whole)
        key = (parts, *tf.nest.flatten(specs))
        if key not in self._traced:
            if state is not None:
                state = tf.nest.map_structure(any_batch_size, state)
            specs = attrs.evolve(specs, memory=self._memory)
            self._traced[key] = self._function.get_concrete_function(
                specs, state, seed, end, parts
            )
        return self._traced[key]

    def _padded(self, batch: Batch, state: Any) -> tuple[Batch, Any]:
        """Returns the arguments, padded with repeated examples to a compiled size."""
        count = len(tf.nest.flatten(batch.features)[0])
        size = self._size
        if not self._pads:
            return batch, state
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
        return attrs.evolve(given[0], memory=batch.memory), given[1]


def _shaped(state: Any, like: Any) -> Any:
    """Returns a state with the static shapes of another, which a step may lose."""
    return tf.nest.map_structure(lambda a, b: tf.ensure_shape(a, b.shape), state, like)


def _rows(state: Any, rows: Any) -> Any:
    """Indexes the rows of a state; None stays None."""
    if state is None:
        return None
    return tf.nest.map_structure(lambda leaf: leaf[rows] if leaf.ndim else leaf, state)


def _concatenated(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts) if len(parts) > 1 and parts[0].ndim else parts[0]


def _as_tensor(value: Any) -> Any:
    """Returns an array as a tensor; strings and None stay."""
    return value if value is None or isinstance(value, str) else tf.constant(value)


def _inter_op_threads() -> int:
    """Returns how many TensorFlow ops can run at the same time."""
    chosen = tf.config.threading.get_inter_op_parallelism_threads()
    chosen = chosen or int(os.environ.get("TF_NUM_INTEROP_THREADS", 0))
    if chosen:
        return chosen
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
