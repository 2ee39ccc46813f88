"""The base of all attacks: batches, restarts, several epsilons, state left alone."""

from __future__ import annotations

import functools
import io
import weakref
from collections.abc import Callable
from typing import Any

import attrs
import tensorflow as tf

from nsl.attacks.examples import Examples
from nsl.attacks.model import fixed_batch_size, state_kept
from nsl.attacks.program import Program
from nsl.attacks.search import Search, several
from nsl.attacks.steps import Steps
from nsl.files.progress import Progress

_BATCH_SIZE = 256


@attrs.define(eq=False, kw_only=True)
class Attack(Steps):
    """Searches inputs close to given ones that a model gets wrong.

    ```python
    attack = nsl.attacks.PGD(steps=40)
    x_adv = attack(model, x, y, epsilon=0.3, bounds=(0, 1))
    ```

    An attack makes `steps` steps, as often as `restarts` says, and keeps for each
    example the best point it has seen: first one that the model gets wrong (for a
    targeted attack, takes for the target), then the one of largest objective. A
    restart only tries examples that still stand.

    A subclass says what the `start` is and what a `step` does.

    Attributes:
      jit_compile: Whether XLA compiles the steps. None: where there is a GPU. All
        others are those of `Steps`.
    """

    jit_compile: bool | None = None
    _programs: weakref.WeakKeyDictionary[Any, dict[Any, Program]] = attrs.field(
        init=False, repr=False, factory=weakref.WeakKeyDictionary
    )

    def __call__(
        self,
        model: Callable[..., Any],
        x: Any,
        y: Any = None,
        *,
        epsilon: Any,
        bounds: Any = None,
        feature_mask: Any = None,
        target: Any = None,
        from_logits: bool | None = None,
        loss_fn: Callable[[Any, Any], tf.Tensor] | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        verbose: bool = True,
    ) -> Any:
        """Attacks a model on examples.

        Args:
          model: A callable from features to logits or probabilities of shape
            [batch, classes], or [batch, 1] for two classes. If it takes `training`,
            that is False. Its state is left as it was.
          x: Features, an array or a structure of arrays with the batch as first axis.
            Floating ones are perturbed, all others stay.
          y: The true classes, integers of shape [batch] or one-hot; with `loss_fn`
            whatever that takes. None takes what the model says of the clean features.
          epsilon: The radius of the ball around an example, measured jointly over all
            of its features: a number, or an array of shape [batch]. A list or tuple
            of those gives several results: there an example that has fallen within a
            smaller radius keeps what was found, so that success grows with epsilon.
          bounds: The pair (low, high) of what a feature may be, each a number or a
            structure keyed by feature, or None. A feature that is out of its bounds
            may stay where it is or move towards them.
          feature_mask: Factors in [0, 1] of the gradient, broadcastable to the
            features. Where one is 0, the feature stays.
          target: The classes to reach, integers of shape [batch]. None takes what
            `self.target` says.
          from_logits: Whether the model gives logits. None: unless all outputs of the
            first batch are in [0, 1] and have sums of 1 (or are one per example).
          loss_fn: For any other output: a function of (y, outputs) that returns one
            loss per example, which is maximized instead of the objective.
          seed: Determines all that is random.
          batch_size: How many examples are attacked at once.
          verbose: Whether progress is shown on a terminal.

        Returns:
          The adversarial features, arrays in the structure and dtypes of `x`; for a
          list of epsilons a list of them.

        Raises:
          ValueError: If arguments do not fit each other, or the outputs of the model
            are not of the shape needed.
        """
        examples = Examples(x, bounds, feature_mask)
        radii, is_list = several(epsilon, examples.count)
        size = fixed_batch_size(model) or batch_size or _BATCH_SIZE
        program = self._program(model, examples, from_logits, loss_fn)
        first_batch = functools.partial(examples.first, size)
        with state_kept(model), program.lent(model, first_batch):
            search = Search(self, program, examples, size, seed)
            search.label(y, target)
            with Progress(
                f"{type(self).__name__} ({self.norm.value})",
                search.work * len(radii),
                "steps",
                stream=None if verbose else io.StringIO(),
            ) as progress:
                found = search.within(radii, progress)
        results = [
            tf.nest.pack_sequence_as(examples.structure, leaves) for leaves in found
        ]
        return results if is_list else results[0]

    def _program(
        self,
        model: Callable[..., Any],
        examples: Examples,
        from_logits: bool | None,
        loss_fn: Callable[[Any, Any], tf.Tensor] | None,
    ) -> Program:
        """Returns what is compiled for a model, or is going to be."""
        jit_compile = self.jit_compile
        if jit_compile is None:
            jit_compile = bool(tf.config.list_physical_devices("GPU"))
        program = Program(
            self,
            examples.structure,
            loss_fn=loss_fn,
            from_logits=from_logits,
            jit_compile=jit_compile,
            fixed_size=fixed_batch_size(model),
        )
        # A bound method is a new object each time it is asked for.
        owner = getattr(model, "__self__", model)
        method = getattr(model, "__func__", None)
        key = (method, str(examples.structure), loss_fn, from_logits, jit_compile)
        try:
            return self._programs.setdefault(owner, {}).setdefault(key, program)
        except TypeError:  # It cannot be hashed or referred to weakly.
            return program
