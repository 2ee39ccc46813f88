"""What an attack is: settings, a start, and a step."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Self

import attrs
import numpy as np
import tensorflow as tf

from nsl import configs
from nsl.attacks.at_layer import AtLayer
from nsl.attacks.examples import Examples
from nsl.attacks.labels import choose_targets
from nsl.attacks.model_adapter import ModelAdapter, adapt
from nsl.attacks.objectives import Objective, objective_of
from nsl.attacks.problem import Loss, Problem
from nsl.attacks.search import Search
from nsl.lib.norms import Norm

_BATCH_SIZE = 256


def as_norm(norm: Any) -> configs.NormType | Norm:
    """Returns a norm as it is, and anything else as a `NormType`."""
    return norm if isinstance(norm, Norm) else configs.NormType(norm)


@attrs.frozen
class State:
    """Where an attack is in each example of a batch.

    An attack that remembers more has a subclass with more tensors, batch first.

    Attributes:
      i: The number of steps made, a scalar.
      perturbation: The present point; rows.
      best: The best point so far; rows.
      value: The objective there, of shape [batch]; the lowest number before any.
      fooled: Whether the attack has succeeded there, of shape [batch].
    """

    i: tf.Tensor
    perturbation: tf.Tensor
    best: tf.Tensor
    value: tf.Tensor
    fooled: tf.Tensor

    @classmethod
    def at(cls, perturbation: tf.Tensor, **more: Any) -> Self:
        """Returns the state before the first step at a point; rows."""
        column = perturbation[:, 0]
        return cls(
            i=tf.constant(0),
            perturbation=perturbation,
            best=perturbation,
            value=tf.fill(tf.shape(column), column.dtype.min),
            fooled=tf.zeros_like(column, tf.bool),
            **more,
        )

    def is_better(self, values: tf.Tensor, fooled: tf.Tensor) -> tf.Tensor:
        """Tells where a point is better than the best so far, of shape [batch]."""
        return tf.where(fooled == self.fooled, values > self.value, fooled)

    def keep_best(self, values: tf.Tensor, fooled: tf.Tensor) -> Self:
        """Returns the state with the present point as the best where it is better."""
        better = self.is_better(values, fooled)
        return attrs.evolve(
            self,
            best=tf.where(better[:, None], self.perturbation, self.best),
            value=tf.where(better, values, self.value),
            fooled=fooled | self.fooled,
        )

    def next(self, perturbation: tf.Tensor, **more: Any) -> Self:
        """Returns the state after a step, at another point."""
        return attrs.evolve(self, i=self.i + 1, perturbation=perturbation, **more)


@attrs.frozen(kw_only=True)
class Attack(abc.ABC):
    """Searches inputs close to given ones that a model gets wrong.

    ```python
    attack = nsl.attacks.PGD(steps=40)
    x_adv = attack(model, x, y, epsilon=0.3, bounds=(0, 1))
    ```

    An attack is a value, its settings. There are two kinds: `FixedRadius`, which
    maximizes an objective inside a ball, and `MinimumNorm`, which minimizes the
    perturbation that fools the model. A subclass of one of them says what the `start`
    is and what a `step` does; both run compiled, on a batch at once.

    Attributes:
      norm: The norm of the perturbation: a `NormType`, its value, or a
        `nsl.lib.Norm`.
      steps: The number of steps.
      early_stop: Whether an example that has fallen gets no further steps.
      jit_compile: Whether XLA compiles the steps. None: where there is a GPU.
      black_box: Whether the attack uses outputs of the model alone, no gradients.
      needs_scores: Whether labels as outputs of the model are not enough.
      minimizes: Whether it looks for the nearest point of another class, whatever the
        radius is.
    """

    black_box: ClassVar[bool] = False
    needs_scores: ClassVar[bool] = True
    minimizes: ClassVar[bool] = False
    _keeps_last: ClassVar[bool] = False

    norm: configs.NormType | Norm = attrs.field(
        default=configs.NormType.INFINITY, converter=as_norm
    )
    steps: int = attrs.field(default=40, validator=attrs.validators.ge(1))
    early_stop: bool = False
    jit_compile: bool | None = None

    @abc.abstractmethod
    def start(self, problem: Problem) -> State:
        """Returns the state before the first step."""

    @abc.abstractmethod
    def step(self, problem: Problem, state: State) -> State:
        """Makes one step: `state.next(...)`, of the same shapes and dtypes."""

    def finish(self, problem: Problem, state: State) -> State:
        """Returns the state after the last step with its point taken into account."""
        return state.keep_best(*problem.evaluate(state.perturbation))

    def attempts(self, classes: int) -> int:
        """Returns how often the attack is made; later attempts try what is robust."""
        del classes
        return 1

    def targets(
        self, logits: Callable[[], np.ndarray], labels: np.ndarray, attempt: int
    ) -> np.ndarray | None:
        """Returns the classes to reach, of shape [examples]; None if any other will do.

        Args:
          logits: Computes the clean logits, of shape [examples, classes].
          labels: The true classes, of shape [examples].
          attempt: The number of attempts made before.
        """
        del logits, labels, attempt
        return None

    def problem_settings(self) -> dict[str, Any]:
        """Returns the arguments of `Problem` that the attack decides."""
        return {"norm": self.norm}

    def step_counts(self) -> list[int]:
        """Returns after how many steps fallen examples leave: 1, 2, 4, 8 and so on."""
        return doubling(self.steps, self.steps) if self.early_stop else [self.steps]

    def __call__(
        self,
        model: Callable[..., Any],
        x: Any,
        y: Any = None,
        *,
        epsilon: Any,
        bounds: Any = None,
        feature_mask: Any = None,
        grid: Any = None,
        target: Any = None,
        from_logits: bool | None = None,
        output: Any = None,
        loss_fn: Loss | None = None,
        criterion: Loss | None = None,
        layer: str | Sequence[str] | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        verbose: bool = True,
    ) -> Any:
        """Attacks a model on examples.

        Args:
          model: A callable from features to logits or probabilities of shape
            [batch, classes], or [batch, 1] for two classes. If it takes `training`,
            that is False. Its state is left as it was. An attack without gradients
            also takes a function of NumPy arrays.
          x: Features, an array or a structure of arrays with the examples as first
            axis, or batches such as a tf.data.Dataset. Floating ones are perturbed.
          y: The true classes, integers of shape [examples] or one-hot; with `loss_fn`
            whatever that takes. None takes those of the batches or, if there are none,
            what the model says of the clean features.
          epsilon: The radius of the ball around an example, measured jointly over all
            of its features: a number, an array of shape [examples], or a radius for
            each coordinate (a dict by feature, or an array of a feature's shape). A
            list or tuple of those gives several results: an example that has fallen
            within a smaller radius keeps what was found.
          bounds: The pair (low, high) of what a feature may be, each a number or a
            structure keyed by feature, or None. A feature that is out of its bounds
            may stay where it is or move towards them.
          feature_mask: Factors in [0, 1] of the gradient, broadcastable to the
            features. Where one is 0, the feature stays.
          grid: The distance of valid values: 1/255 for 8-bit images scaled to [0, 1],
            1 for counts. Points are judged and returned on the grid.
          target: The classes to reach, integers of shape [examples]. None takes what
            the attack says.
          from_logits: Whether the model gives logits. None finds out.
          output: Which of several outputs to attack: a key, a position, or a function
            of all outputs.
          loss_fn: For any other output: a function of (y, outputs) that returns one
            loss per example, which is maximized instead of the objective.
          criterion: With `loss_fn`: a function of (y, outputs) that tells which
            examples are right. Others have fallen.
          layer: The layer of a Keras model whose outputs are perturbed instead of the
            features, such as an embedding of tokens, or several. `epsilon`, `bounds`
            and `feature_mask` are about these outputs; padding that the layer masks is
            not perturbed. No input, as no text, may lead to what is found.
          seed: Determines all that is random.
          batch_size: How many examples are attacked at once.
          verbose: Whether progress is shown on a terminal.

        Returns:
          The adversarial features, arrays in the structure and dtypes of `x`, inside
          ball and bounds in that dtype; for a list of epsilons a list of them. With
          `layer` the outputs of the layer; of several, a dict of them by name.

        Raises:
          ValueError: If arguments do not fit each other, or the outputs of the model
            are not of the shape needed.
          TypeError: If the model is not callable.
        """
        if self.minimizes and (target is not None or loss_fn is not None):
            raise ValueError(
                f"{type(self).__name__} looks for the nearest point of another class, "
                "so that it takes neither target nor loss_fn. Use nsl.attacks.PGD."
            )
        if layer is not None:
            examples = Examples(x, y, perturbed=False)
            above = AtLayer(model, layer, examples, batch_size)
            found = self(
                above,
                above.features,
                examples.y,
                epsilon=epsilon,
                **above.limits(bounds, feature_mask),
                grid=grid,
                target=target,
                from_logits=from_logits,
                output=output,
                loss_fn=loss_fn,
                criterion=criterion,
                seed=seed,
                batch_size=batch_size,
                verbose=verbose,
            )
            if isinstance(found, list):
                return [above.chosen(one) for one in found]
            return above.chosen(found)
        examples = Examples(x, y, bounds=bounds, feature_mask=feature_mask, grid=grid)
        limits, is_list = examples.limits_of(epsilon)
        with adapted(
            model,
            examples,
            batch_size or _BATCH_SIZE,
            output=output,
            from_logits=from_logits,
        ) as (adapter, size):
            results = Search(
                self,
                adapter,
                examples,
                loss_fn=loss_fn,
                criterion=criterion,
                target=target,
                batch_size=size,
                seed=seed,
            ).run(limits, verbose)
        return results if is_list else results[0]


@attrs.frozen(kw_only=True)
class FixedRadius(Attack):
    """Maximizes an objective inside the ball and the bounds.

    For each example the best point is kept: first one that the model gets wrong (with a
    target, takes for the target), then the one of largest objective. A restart only
    tries examples that are still robust.

    Attributes:
      restarts: How often the attack is made.
      objective: What is maximized: 'cross_entropy', 'margin', 'dlr', or a function
        like those of `nsl.attacks.objectives`.
      target: How the class to reach is chosen; None for any but the true one.
      samples: How many draws of a random model each gradient is averaged over
        (expectation over transformations: Athalye et al., 2018,
        https://arxiv.org/abs/1707.07397).
      All others are those of `Attack`.
    """

    restarts: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    objective: str | Objective = attrs.field(default="cross_entropy")
    target: configs.AdvTargetConfig | None = attrs.field(default=None, hash=False)
    samples: int = attrs.field(default=1, validator=attrs.validators.ge(1))

    @objective.validator
    def _check_objective(self, attribute: Any, value: Any) -> None:
        del attribute
        objective_of(value)

    def attempts(self, classes: int) -> int:
        """Returns the number of restarts."""
        del classes
        return self.restarts

    def targets(
        self, logits: Callable[[], np.ndarray], labels: np.ndarray, attempt: int
    ) -> np.ndarray | None:
        """Returns the classes that `target` chooses."""
        del attempt
        if self.target is None:
            return None
        return choose_targets(logits(), labels, self.target)

    def problem_settings(self) -> dict[str, Any]:
        """Returns norm, objective and number of samples."""
        objective = objective_of(self.objective)
        return {"norm": self.norm, "objective": objective, "samples": self.samples}


@attrs.frozen(kw_only=True)
class MinimumNorm(Attack):
    """Minimizes the perturbation that changes the class.

    One run serves a list of epsilons: an example falls at those that its smallest
    perturbation fits into, and comes back unchanged for the others. `State.value` is
    minus the norm of the best point.

    Attributes:
      early_stop: Whether an example is done with as soon as it falls at the smallest
        epsilon. If not, the perturbation goes on shrinking.
      All others are those of `Attack`.
    """

    minimizes: ClassVar[bool] = True

    early_stop: bool = True

    def keep_nearest(
        self, problem: Problem, state: State, point: tf.Tensor, fooled: tf.Tensor
    ) -> State:
        """Returns the state with a fooling point where it is nearer than the best.

        The point is rows, `fooled` of shape [batch]; that of the state says what the
        radius holds.
        """
        length = problem.length(point)[:, 0]
        nearer = fooled & (-length > state.value)
        value = tf.where(nearer, -length, state.value)
        done = (-value <= problem.radius[:, 0]) & self.early_stop
        return attrs.evolve(
            state,
            best=tf.where(nearer[:, None], point, state.best),
            value=value,
            fooled=state.fooled | done,
        )


@contextlib.contextmanager
def adapted(
    model: Callable[..., Any],
    examples: Examples,
    batch_size: int,
    *,
    output: Any,
    from_logits: bool | None,
) -> Iterator[tuple[ModelAdapter, int]]:
    """Gives the adapter of a model, examined, and the batch size that it takes.

    What the body changes in the model's state is undone. The arguments are those of
    `Attack.__call__`.
    """
    adapter = adapt(model, output=output, from_logits=from_logits)
    size, traces = adapter.batch_size or batch_size, adapter.traces
    if adapter is not model:
        adapter.forget_if_changed()
    # A model of labels alone may give others than it did.
    if not adapter.is_examined or (adapter.decisions and adapter is not model):
        adapter.examine(examples.first(size), examples.y)
    with adapter.state_kept():
        yield adapter, size
    if adapter is not model and adapter.traces > traces:
        adapter.note()


def doubling(steps: int, most: int) -> list[int]:
    """Splits steps into counts of 1, 1, 2, 4 and so on, of at most `most` each."""
    counts: list[int] = []
    while sum(counts) < steps:
        # Most examples fall early, if they do.
        counts.append(min(max(1, sum(counts)), most, steps - sum(counts)))
    return counts
