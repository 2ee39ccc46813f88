"""The base classes of attacks: settings, a start and a step."""

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
from nsl.attacks.objectives import Objective, check_objective, objective_of
from nsl.attacks.problem import Loss, Problem
from nsl.attacks.search import Search
from nsl.lib.norms import Norm

_BATCH_SIZE = 256


def as_norm(norm: Any) -> configs.NormType | Norm:
    """Converts anything but a `Norm` to a `NormType`."""
    return norm if isinstance(norm, Norm) else configs.NormType(norm)


@attrs.frozen
class State:
    """The state of an attack on a batch.

    Subclasses add tensors, whose first axis is the batch.

    Attributes:
      i: The number of steps taken, a scalar.
      perturbation: The current perturbations; rows.
      best: The best perturbations so far; rows.
      value: The objective at `best`, of shape [batch]; the lowest finite number at
        first.
      fooled: Whether `best` fools the model, bool of shape [batch].
    """

    i: tf.Tensor
    perturbation: tf.Tensor
    best: tf.Tensor
    value: tf.Tensor
    fooled: tf.Tensor

    @classmethod
    def at(cls, perturbation: tf.Tensor, **more: Any) -> Self:
        """Returns the initial state at a perturbation; rows."""
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
        """Returns whether a point beats the best one so far, bool of shape [batch]."""
        return tf.where(fooled == self.fooled, values > self.value, fooled)

    def keep_best(self, values: tf.Tensor, fooled: tf.Tensor) -> Self:
        """Returns the state with `best` replaced where the current point beats it."""
        better = self.is_better(values, fooled)
        return attrs.evolve(
            self,
            best=tf.where(better[:, None], self.perturbation, self.best),
            value=tf.where(better, values, self.value),
            fooled=fooled | self.fooled,
        )

    def next(self, perturbation: tf.Tensor, **more: Any) -> Self:
        """Returns the state after a step to another perturbation."""
        return attrs.evolve(self, i=self.i + 1, perturbation=perturbation, **more)


@attrs.frozen(kw_only=True)
class Attack(abc.ABC):
    """Searches for adversarial examples: inputs close to given ones that fool a model.

    ```python
    attack = nsl.attacks.PGD(steps=40)
    x_adv = attack(model, x, y, epsilon=0.3, bounds=(0, 1))
    ```

    An attack is an immutable value that consists of its settings. There are two kinds:
    `FixedRadius` maximizes an objective within a ball, and `MinimumNorm` minimizes the
    perturbation that fools the model. Subclasses of these define `start` and `step`,
    which are compiled and run on a whole batch.

    Attributes:
      norm: The norm of the perturbation: a `NormType`, its value, or a `nsl.lib.Norm`.
      steps: The number of steps.
      early_stop: Whether fooled examples drop out before the last step.
      jit_compile: Whether to compile the steps with XLA. None does so if there is a
        GPU.
      black_box: Whether the attack uses only outputs of the model, no gradients.
      needs_scores: Whether the attack needs scores: class labels are not enough.
      minimizes: Whether the attack looks for the nearest point of another class,
        whatever the radius.
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
        """Returns `state.next(...)`, with the same shapes and dtypes."""

    def finish(self, problem: Problem, state: State) -> State:
        """Returns the state after also evaluating the point of the last step."""
        return state.keep_best(*problem.evaluate(state.perturbation))

    def attempts(self, classes: int) -> int:
        """Returns the number of attempts; later ones attack what is still robust."""
        del classes
        return 1

    def targets(
        self, logits: Callable[[], np.ndarray], labels: np.ndarray, attempt: int
    ) -> np.ndarray | None:
        """Returns the target classes, int of shape [examples], or None if untargeted.

        Args:
          logits: Computes the clean logits, of shape [examples, classes].
          labels: The true classes, int32 of shape [examples].
          attempt: The index of the attempt.
        """
        del logits, labels, attempt
        return None

    def problem_settings(self) -> dict[str, Any]:
        """Returns the arguments of `Problem` that the attack determines."""
        return {"norm": self.norm}

    def step_counts(self) -> list[int]:
        """Returns the step counts between which fooled examples drop out."""
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
        """Attacks a model.

        Args:
          model: A callable from features to logits or probabilities of shape [batch,
            classes], or [batch, 1] for two classes. If it takes `training`, that is
            False. Its state is restored afterwards. Attacks without gradients also
            accept a function of NumPy arrays.
          x: Features, an array or a structure of arrays of shape [examples, ...], or
            batches of them, such as a tf.data.Dataset. Floating features are perturbed.
          y: The true classes, integers of shape [examples] or one-hot; with `loss_fn`,
            any structure that it takes. None uses the labels in the batches or, if
            there are none, the model's predictions for the clean features.
          epsilon: The radius of the ball around an example, in the joint norm of all
            its features: a number, an array of shape [examples], or a radius per
            coordinate (a dict by feature, or an array of a feature's shape). A list or
            tuple of these gives a list of results; an adversarial example for a smaller
            radius is reused for the larger ones.
          bounds: The pair (low, high) of valid feature values, each a number or a
            structure keyed by feature, or None. A feature outside its bounds may stay
            where it is or move towards them.
          feature_mask: Factors in [0, 1] of the gradient, broadcastable to the
            features. A feature with factor 0 is not perturbed.
          grid: The spacing of valid values: 1/255 for 8-bit images scaled to [0, 1], 1
            for counts. Points are evaluated and returned on the grid.
          target: The target classes, integers of shape [examples]. None uses the
            setting of the attack.
          from_logits: Whether the model outputs logits. None detects it.
          output: Which of several outputs to attack: a key, a position, or a function
            of all outputs.
          loss_fn: For models of anything but class scores: a function of (y, outputs)
            that returns one loss per example, which replaces the objective.
          criterion: With `loss_fn`: a function of (y, outputs) that returns whether
            each example is correct. Without it, no example counts as fooled.
          layer: The name of a layer of a Keras model, or several, whose outputs to
            perturb instead of the features, such as an embedding of tokens. `epsilon`,
            `bounds` and `feature_mask` then apply to these outputs; positions that the
            layer masks as padding are not perturbed. There may be no input, such as a
            text, that produces the perturbed outputs.
          seed: Determines all random numbers.
          batch_size: The number of examples per batch; 256 by default.
          verbose: Whether to show progress on a terminal.

        Returns:
          The adversarial features, arrays in the structure and dtypes of `x`, within
          ball and bounds in that dtype; for a list of epsilons, a list of them. With
          `layer`, the perturbed outputs of the layer; with several layers, a dict of
          them by name.

        Raises:
          ValueError: If arguments do not fit each other, or the outputs of the model do
            not have the required shape.
          TypeError: If the model is not callable.
        """
        if self.minimizes and (target is not None or loss_fn is not None):
            raise ValueError(
                f"{type(self).__name__} looks for the nearest point of another class, "
                "so it supports neither target nor loss_fn. Use nsl.attacks.PGD."
            )
        at_layer, size = None, batch_size or _BATCH_SIZE
        if layer is not None:
            model = at_layer = AtLayer(model, layer, x, y, size)
            x, y = at_layer.features, at_layer.y
            bounds, feature_mask = at_layer.limits(bounds, feature_mask)
        examples = Examples(x, y, bounds=bounds, feature_mask=feature_mask, grid=grid)
        radii, is_list = examples.limits_of(epsilon)
        with adapted(model, examples, size, output=output, from_logits=from_logits) as (
            adapter,
            size,
        ):
            results = Search(
                self,
                adapter,
                examples,
                loss_fn=loss_fn,
                criterion=criterion,
                target=target,
                batch_size=size,
                seed=seed,
            ).run(radii, verbose)
        if at_layer is not None:
            results = [at_layer.chosen(one) for one in results]
        return results if is_list else results[0]


@attrs.frozen(kw_only=True)
class FixedRadius(Attack):
    """Maximizes an objective within the ball and the bounds.

    Keeps the best point of each example: points that fool the model (with a target:
    that reach it) beat all others, then the largest objective wins. Restarts attack
    only examples that are still robust.

    Attributes:
      restarts: The number of restarts, counting the first run.
      objective: What to maximize: 'cross_entropy', 'margin', 'dlr', or a function like
        those in `nsl.attacks.objectives`.
      target: How to choose the target class; None for an untargeted attack.
      samples: The number of forward passes through a randomized model over which
        objective and gradient are averaged (expectation over transformation: Athalye et
        al., 2018, https://arxiv.org/abs/1707.07397). A point fools the model if it does
        so in more than half of them, because a single lucky draw proves little.

    The other attributes are those of `Attack`.
    """

    restarts: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    objective: str | Objective = attrs.field(
        default="cross_entropy", validator=check_objective
    )
    target: configs.AdvTargetConfig | None = attrs.field(default=None, hash=False)
    samples: int = attrs.field(default=1, validator=attrs.validators.ge(1))

    def attempts(self, classes: int) -> int:
        """Returns the number of restarts."""
        del classes
        return self.restarts

    def targets(
        self, logits: Callable[[], np.ndarray], labels: np.ndarray, attempt: int
    ) -> np.ndarray | None:
        """Returns the target classes that `target` chooses."""
        del attempt
        if self.target is None:
            return None
        return choose_targets(logits(), labels, self.target)

    def problem_settings(self) -> dict[str, Any]:
        """Returns the norm, the objective and the number of samples."""
        objective = objective_of(self.objective)
        return {"norm": self.norm, "objective": objective, "samples": self.samples}


@attrs.frozen(kw_only=True)
class MinimumNorm(Attack):
    """Minimizes the perturbation that changes the class.

    One run covers a list of epsilons: an example counts as fooled at every epsilon that
    is at least its smallest perturbation, and is returned unchanged for the others.
    `State.value` is the negative norm of the best point.

    Attributes:
      early_stop: Whether an example drops out once it is fooled within the smallest
        epsilon. Otherwise its perturbation keeps shrinking.

    The other attributes are those of `Attack`.
    """

    minimizes: ClassVar[bool] = True

    early_stop: bool = True

    def keep_nearest(
        self, problem: Problem, state: State, point: tf.Tensor, fooled: tf.Tensor
    ) -> State:
        """Returns the state with `best` replaced where a fooling point is nearer.

        Args:
          problem: The problem.
          state: The state. Its `fooled` becomes whether the best point is within the
            radius, with `early_stop`.
          point: The perturbations; rows.
          fooled: Whether they fool the model, bool of shape [batch].
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
    """Yields the examined adapter of a model and its batch size.

    Restores the model's state after the body. The arguments are those of
    `Attack.__call__`.
    """
    adapter = adapt(model, output=output, from_logits=from_logits)
    size, traces = adapter.batch_size or batch_size, adapter.traces
    if adapter is not model:
        adapter.forget_if_changed()
    # A model of class labels may now return further classes.
    if not adapter.is_examined or (adapter.decisions and adapter is not model):
        adapter.examine(examples.first(size), examples.y)
    with adapter.state_kept():
        yield adapter, size
    if adapter is not model and adapter.traces > traces:
        adapter.note()


def doubling(steps: int, most: int) -> list[int]:
    """Splits steps into counts of 1, 1, 2, 4 and so on, each at most `most`."""
    counts: list[int] = []
    while sum(counts) < steps:
        # Most examples that can be fooled are fooled early.
        counts.append(min(max(1, sum(counts)), most, steps - sum(counts)))
    return counts
