"""The compiled parts of one attack on one model."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from nsl.attacks.examples import Tensors, pad, padded_size
from nsl.attacks.model import AttackedModel, kept_variables
from nsl.attacks.objectives import objective_of
from nsl.attacks.problem import Problem
from nsl.attacks.steps import Steps

_SMALLEST_BATCH = 16


class Program:
    """Runs the steps of an attack on batches.

    Each part is traced once, for any size of batch; under XLA, and for a model that
    takes one size alone, once for each of few sizes that batches are padded to.

    The model is held only while an attack runs, so that what is compiled for it does
    not keep it alive.

    Attributes:
      loss_fn: What is maximized instead of the attack's objective, or None.
      classes: The number of classes, once the model has been called.
      labels: The structure of the labels.

    Args:
      attack: The attack.
      structure: The structure of the features.
      loss_fn: What is maximized instead of the attack's objective, or None.
      from_logits: Whether the model gives logits; None if that is to be found out.
      jit_compile: Whether XLA compiles.
      fixed_size: The only batch size that the model takes, or None.
    """

    def __init__(
        self,
        attack: Steps,
        structure: Any,
        *,
        loss_fn: Callable[[Any, Any], tf.Tensor] | None,
        from_logits: bool | None,
        jit_compile: bool,
        fixed_size: int | None,
    ) -> None:
        self.loss_fn = loss_fn
        self.classes = 0
        self.labels: Any = 0
        self._attack = attack
        self._structure = structure
        self._from_logits = from_logits
        self._jit_compile = jit_compile
        self._fixed_size = fixed_size
        self._functions: dict[Any, Callable[..., Any]] = {}
        self._model: AttackedModel | None = None
        self._memory: list[int] | None = None

    @property
    def model(self) -> AttackedModel:
        """The model, which is only there within `lent`."""
        assert self._model is not None
        return self._model

    @contextlib.contextmanager
    def lent(
        self, model: Callable[..., Any], first_batch: Callable[[], Any]
    ) -> Iterator[None]:
        """Lends the model to the program.

        Args:
          model: The model.
          first_batch: Returns features, to find out what the model is like.

        Yields:
          None.
        """
        self._model = AttackedModel(model, self._from_logits)
        try:
            if self._memory is None:
                outputs = self._model.prepare(first_batch())
                if self.loss_fn is None:
                    self.classes = self._model.classes(outputs)
                self._from_logits = self._model.from_logits
                self._memory = self._model.memory
            self._model.memory = self._memory
            yield
        finally:
            self._model = None

    def memory(self) -> Tensors:
        """Returns what the variables hold that a call of the model changes."""
        variables = kept_variables(self.model.model)
        return {
            f"memory/{k}": tf.identity(variables[i])
            for k, i in enumerate(self.model.memory)
        }

    def predict(self, batch: Tensors, fixed: Tensors, size: int) -> Any:
        """Returns the logits of clean examples; outputs, with a loss of one's own.

        Args:
          batch: What is given for each example.
          fixed: What is the same for all.
          size: The size of a full batch.

        Returns:
          A structure of arrays.
        """
        count = len(batch["x/0"])
        batch = pad(batch, self._padded(count, size))
        outputs = self._call([self._predict], batch, {}, fixed)
        return tf.nest.map_structure(lambda t: t.numpy()[:count], outputs)

    def run(
        self,
        batch: Tensors,
        fixed: Tensors,
        state: Tensors | None,
        *,
        size: int,
        seed: np.ndarray,
        first: int,
        count: int,
        finish: bool,
    ) -> tuple[Tensors, list[np.ndarray]]:
        """Makes steps of the attack on one batch.

        Args:
          batch: What is given for each example.
          fixed: What is the same for all.
          state: The state before these steps, on the host; None starts the attack.
          size: The size of a full batch.
          seed: Two integers.
          first: The number of steps made before.
          count: The number of steps to make.
          finish: Whether the last point is to be evaluated then.

        Returns:
          The state after the steps; and the best features, leaf by leaf.
        """
        examples = len(batch["x/0"])
        padded = self._padded(examples, size)
        batch = pad(batch, padded)
        numbers = {"first": np.int32(first), "count": np.int32(count)}
        fixed = {**fixed, **numbers, "seed": seed}
        start = [] if state else [self._start]
        end = [self._finish] if finish else []
        parts = [*start, self._advance, *end, self._restore]
        # Where fallen examples leave in between, parts in all combinations would have
        # to be traced.
        at_once = count == self._attack.steps
        state = pad(state, padded) if state else {}
        for chain in [parts] if at_once else [[part] for part in parts]:
            state = self._call(chain, batch, state, fixed)
        found = {key: value.numpy()[:examples] for key, value in state.items()}
        leaves = _numbered(found, "leaf")
        return {key: found[key] for key in found if key[:5] != "leaf/"}, leaves

    def _predict(self, batch: Tensors, state: Tensors, fixed: Tensors) -> Any:
        del state
        given = batch | fixed
        features, memory = self._features(given), _numbered(given, "memory")
        if self.loss_fn is not None:
            return self.model(features, memory)
        return self.model.logits(features, memory)

    def _start(self, batch: Tensors, state: Tensors, fixed: Tensors) -> Tensors:
        del state
        return self._attack.start(self._problem(batch | fixed), fixed["seed"])

    def _advance(self, batch: Tensors, state: Tensors, fixed: Tensors) -> Tensors:
        problem = self._problem(batch | fixed)
        first, end = fixed["first"], fixed["first"] + fixed["count"]

        def step(i: tf.Tensor, state: Tensors) -> tuple[tf.Tensor, Tensors]:
            seed = tf.random.experimental.stateless_fold_in(fixed["seed"], i + 1)
            following = self._attack.step(problem, state, i, seed)
            return i + 1, {
                key: tf.ensure_shape(value, state[key].shape)
                for key, value in following.items()
            }

        _, state = tf.while_loop(
            lambda i, _: i < end, step, (first, state), parallel_iterations=1
        )
        return state

    def _finish(self, batch: Tensors, state: Tensors, fixed: Tensors) -> Tensors:
        return self._attack.finish(self._problem(batch | fixed), state)

    def _restore(self, batch: Tensors, state: Tensors, fixed: Tensors) -> Tensors:
        features = self._problem(batch | fixed).features(state["best"])
        leaves = tf.nest.flatten(features)
        return {**state, **{f"leaf/{i}": leaf for i, leaf in enumerate(leaves)}}

    def _features(self, given: Tensors) -> Any:
        return tf.nest.pack_sequence_as(self._structure, _numbered(given, "x"))

    def _problem(self, given: Tensors) -> Problem:
        features = self._features(given)
        count = len(tf.nest.flatten(features))
        labels = _numbered(given, "y")

        def per_leaf(key: str) -> list[tf.Tensor | None]:
            return [given.get(f"{key}/{i}") for i in range(count)]

        return Problem(
            self.model,
            features,
            labels=tf.nest.pack_sequence_as(self.labels, labels) if labels else None,
            targets=given.get("target"),
            objective=objective_of(self._attack.objective),
            loss_fn=self.loss_fn,
            norm=self._attack.norm,
            radius=given["radius"],
            low=per_leaf("low"),
            high=per_leaf("high"),
            mask=per_leaf("mask"),
            memory=_numbered(given, "memory"),
            fooled=self._attack.fooled,
        )

    def _padded(self, count: int, size: int) -> int:
        if self._fixed_size is not None:
            return self._fixed_size
        if self._jit_compile:
            return padded_size(count, size, _SMALLEST_BATCH)
        return count

    def _call(
        self,
        parts: Sequence[Callable[..., Any]],
        batch: Tensors,
        state: Tensors,
        fixed: Tensors,
    ) -> Any:
        """Calls the compiled form of methods, each on the state the last one left."""
        any_size = self._fixed_size is None and not self._jit_compile
        specs = (_specs(batch, any_size), _specs(state, any_size), _specs(fixed, False))
        key = (
            *(part.__name__ for part in parts),
            str(self.labels),
            *(tuple(sorted(s.items())) for s in specs),
        )
        if key not in self._functions:

            def chained(batch: Tensors, state: Any, fixed: Tensors) -> Any:
                for part in parts:
                    state = part(batch, state, fixed)
                return state

            self._functions[key] = tf.function(
                # A partial of its own: TensorFlow warns of frequent tracing by code,
                # and all programs share that.
                functools.partial(chained),
                input_signature=specs,
                autograph=False,
                jit_compile=self._jit_compile,
            )
        return self._functions[key](batch, state, fixed)


def _specs(tensors: Tensors, any_size: bool) -> dict[str, tf.TensorSpec]:
    def spec(value: Any) -> tf.TensorSpec:
        shape = [None, *value.shape[1:]] if any_size else value.shape
        text = isinstance(value, np.ndarray) and value.dtype.kind in "OSU"
        return tf.TensorSpec(shape, tf.string if text else value.dtype)

    return {
        key: spec(value if tf.is_tensor(value) else np.asarray(value))
        for key, value in tensors.items()
    }


def _numbered(given: Tensors, key: str) -> list[Any]:
    """Returns the values named "key/0", "key/1" and so on."""
    names = [name for name in given if name.startswith(f"{key}/")]
    return [given[f"{key}/{i}"] for i in range(len(names))]
