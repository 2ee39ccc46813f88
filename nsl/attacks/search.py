"""One call of an attack: all epsilons, attempts and batches, on the host."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import tensorflow as tf

from nsl.attacks.examples import Examples, Tensors, split
from nsl.attacks.program import Program
from nsl.attacks.steps import Steps
from nsl.attacks.targets import as_classes
from nsl.files.progress import Progress


class Found:
    """The best that has been found for each example within one radius.

    Attributes:
      radius: The radius of each example, of shape [count, 1].
      leaves: The features, leaf by leaf.
      fooled: Whether the attack has succeeded, of shape [count].
      value: The objective, of shape [count].

    Args:
      leaves: The clean features.
      radius: The radius of each example.
    """

    def __init__(self, leaves: list[np.ndarray], radius: np.ndarray) -> None:
        self.radius = radius
        self.leaves = [leaf.copy() for leaf in leaves]
        self.fooled = np.zeros(len(radius), bool)
        self.value = np.full(len(radius), -np.inf)

    def keep(
        self,
        indices: np.ndarray,
        leaves: list[np.ndarray],
        fooled: np.ndarray,
        value: np.ndarray,
    ) -> None:
        """Keeps what is better than what there is: has succeeded, or larger.

        Args:
          indices: Which examples it is of.
          leaves: Their features.
          fooled: Whether the attack has succeeded on them.
          value: Their objective.
        """
        larger = value > self.value[indices]
        same = fooled == self.fooled[indices]
        better = np.where(same, larger, fooled)
        for own, new in zip(self.leaves, leaves, strict=True):
            own[indices[better]] = new[better]
        self.fooled[indices[better]] = fooled[better]
        self.value[indices[better]] = value[better]

    def keep_from(self, smaller: Found) -> None:
        """Keeps what was found within radii that are no larger."""
        [indices] = np.nonzero((smaller.radius <= self.radius)[:, 0])
        self.keep(
            indices,
            [leaf[indices] for leaf in smaller.leaves],
            smaller.fooled[indices],
            smaller.value[indices],
        )


class Search:
    """Runs an attack on all examples of a call.

    Args:
      attack: The attack.
      program: The compiled attack, with its model.
      examples: The examples.
      size: The number of examples in a full batch.
      seed: Determines all that is random.
    """

    def __init__(
        self,
        attack: Steps,
        program: Program,
        examples: Examples,
        size: int,
        seed: int,
    ) -> None:
        self._attack = attack
        self._program = program
        self._examples = examples
        self._size = size
        self._seed = seed
        self._labels = np.zeros(0, np.int32)
        self._given_targets = False
        self._attempts = attack.attempts(program.classes)
        self._judged = False

    @property
    def work(self) -> int:
        """The number of steps for all examples in all attempts."""
        return self._examples.count * self._attack.steps * self._attempts

    def label(self, y: Any, target: Any) -> None:
        """Says what the examples are, and which classes to reach.

        Args:
          y: Labels, or None for what the model says.
          target: Classes, or None for what the attack says.
        """
        if self._program.loss_fn is not None:
            labels = self._outputs() if y is None else y
            self._program.labels = tf.nest.map_structure(lambda _: 0, labels)
            for i, leaf in enumerate(tf.nest.flatten(labels)):
                self._examples.add(f"y/{i}", leaf)
            return
        classes = self._program.classes
        if y is None:
            self._labels = self._outputs().argmax(axis=1).astype(np.int32)
        else:
            self._labels = as_classes(y, classes, "y")
        self._examples.add("y/0", self._labels)
        if target is not None:
            self._given_targets = True
            self._examples.add("target", as_classes(target, classes, "target"))

    def within(self, radii: list[np.ndarray], progress: Progress) -> list[list[Any]]:
        """Attacks within several radii.

        Args:
          radii: The radius of each example, of shape [count, 1], several times.
          progress: Is told how much is done of `steps` steps of each example in each
            attempt for each radius.

        Returns:
          The leaves of the features, for each radius.
        """
        self._judged = len(radii) > 1
        found = [Found(self._examples.leaves, radius) for radius in radii]
        order = sorted(range(len(radii)), key=lambda k: float(radii[k].mean()))
        own_loss = self._program.loss_fn is not None
        done = 0.0
        for position, k in enumerate(order):
            self._examples.add("radius", radii[k])
            smaller = [found[j] for j in order[:position]]
            if not own_loss:
                for one in smaller:
                    found[k].keep_from(one)
            for attempt in range(self._attempts):
                standing = np.flatnonzero(~found[k].fooled)
                self._aim(attempt)
                self._attempt(found[k], standing, attempt, progress)
                done += self.work / self._attempts
                progress.reach(done)
            if own_loss:
                for one in smaller:
                    found[k].keep_from(one)
        return [one.leaves for one in found]

    def _aim(self, attempt: int) -> None:
        if self._given_targets or self._program.loss_fn is not None:
            return
        targets = self._attack.targets(self._outputs, self._labels, attempt)
        if targets is not None:
            self._examples.add("target", targets)

    def _attempt(
        self, found: Found, standing: np.ndarray, attempt: int, progress: Progress
    ) -> None:
        """Makes all steps for the examples that stand, dropping those that fall."""
        fixed = self._examples.fixed | self._program.memory()
        pool: Tensors | None = None
        first = 0
        for count in self._attack.step_counts():
            last = first + count == self._attack.steps
            left: list[tuple[np.ndarray, Tensors]] = []
            for k, piece in enumerate(split(len(standing), self._size)):
                indices = standing[piece]
                state, leaves = self._program.run(
                    self._examples.take(indices),
                    fixed,
                    None if pool is None else {n: v[piece] for n, v in pool.items()},
                    size=self._size,
                    seed=self._numbers(attempt, first, k),
                    first=first,
                    count=count,
                    finish=last and (self._judged or not self._attack.keeps_last),
                )
                progress.advance(count * len(indices))
                ended = state["fooled"] | last
                found.keep(
                    indices[ended],
                    [leaf[ended] for leaf in leaves],
                    state["fooled"][ended],
                    state["value"][ended],
                )
                if not last:
                    kept = {name: value[~ended] for name, value in state.items()}
                    left.append((indices[~ended], kept))
            first += count
            if last or not any(len(indices) for indices, _ in left):
                return
            standing = np.concatenate([indices for indices, _ in left])
            pool = {
                name: np.concatenate([state[name] for _, state in left])
                for name in left[0][1]
            }

    def _numbers(self, *position: int) -> np.ndarray:
        sequence = np.random.SeedSequence([abs(self._seed), *position])
        return sequence.generate_state(2).astype(np.int32)

    @functools.cached_property
    def _clean(self) -> Any:
        fixed = self._examples.fixed | self._program.memory()
        parts = [
            self._program.predict(
                self._examples.take(np.arange(piece.start, piece.stop)),
                fixed,
                self._size,
            )
            for piece in split(self._examples.count, self._size)
        ]
        return tf.nest.map_structure(lambda *p: np.concatenate(p), *parts)

    def _outputs(self) -> Any:
        """Returns the clean logits; outputs, with a loss of one's own."""
        return self._clean


def several(epsilon: Any, count: int) -> tuple[list[np.ndarray], bool]:
    """Returns epsilons as columns, and whether several were asked for.

    Args:
      epsilon: A number, an array of shape [count], or a list or tuple of those.
      count: The number of examples.

    Returns:
      Arrays of shape [count, 1], and whether `epsilon` is a list or tuple.

    Raises:
      ValueError: If one is negative, not finite, or of another shape.
    """
    is_list = isinstance(epsilon, list | tuple)
    radii = []
    for one in epsilon if is_list else [epsilon]:
        radius = np.asarray(one, np.float64)
        if radius.shape not in ((), (count,)) or not np.all(
            np.isfinite(radius) & (radius >= 0)
        ):
            raise ValueError(
                "epsilon must be a number of at least 0, an array with one for each "
                f"of the {count} examples, or a list of those, but received {one!r}."
            )
        radii.append(np.broadcast_to(radius.reshape(-1, 1), (count, 1)))
    return radii, is_list
