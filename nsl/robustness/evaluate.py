"""Accuracy under attack, and how far it can be believed."""

import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import tensorflow as tf

from nsl.attacks import Attack, MinimumNorm
from nsl.attacks.examples import Examples, Limits, split
from nsl.attacks.labels import read_classes
from nsl.attacks.model_adapter import ModelAdapter, adapt, output_names
from nsl.attacks.problem import Loss, NoGradientError, Problem
from nsl.configs import NormType
from nsl.robustness import checks
from nsl.robustness.checkpoint import Checkpoint, settings_of
from nsl.robustness.findings import Finding, RobustnessWarning
from nsl.robustness.gallery import GalleryExample, decoded, encoded, plain
from nsl.robustness.report import AttackResult, RobustnessReport
from nsl.robustness.suites import choose_attacks, gradient_attack
from nsl.robustness.tasks import Column, Task, check_task, choose_task

_BATCH_SIZE = 128
_CHECKED_EXAMPLES = 100
_COMPARED_EXAMPLES = 100
_SHOWN = 6


def evaluate_robustness(
    model: Callable[..., Any],
    x: Any,
    y: Any = None,
    epsilons: Any = None,
    norm: NormType | str = NormType.INFINITY,
    attacks: str | Sequence[Any] | Mapping[str, Any] = "standard",
    *,
    bounds: Any = None,
    feature_mask: Any = None,
    grid: Any = None,
    from_logits: bool | None = None,
    output: Any = None,
    loss: Loss | None = None,
    criterion: Any = None,
    batch_size: int | None = None,
    seed: int = 0,
    cascade: bool = True,
    check: bool = True,
    resume: str | os.PathLike[str] | None = None,
    verbose: bool = True,
) -> RobustnessReport:
    """Measures the accuracy of a model on clean and on attacked examples.

    An example is robust at an epsilon if no attack finds a point of the ball around it,
    and of the bounds, that the model gets wrong. Every point is checked in a pass of its
    own, whatever the attack says. What falls at one epsilon falls at all larger ones.

    ```python
    report = nsl.evaluate_robustness(
        model, x_test, y_test, epsilons=[0.1, 0.2, 0.3], bounds=(0.0, 1.0)
    )
    print(report)
    report.to_html("robustness.html")
    ```

    Args:
      model: A callable from a batch of features to outputs: a Keras model (called with
        `training=False`), its `predict`, or a function of NumPy arrays such as
        scikit-learn's `predict_proba` or, for attacks by decisions, `predict`.
      x: Features: an array or tensor, or a structure of them, examples first; or
        batches, as a tf.data.Dataset, which may hold the labels.
      y: Labels: classes, integers of shape [examples] or [examples, 1], or one-hot rows;
        with `loss` or `criterion` whatever they take. None if the batches hold them.
      epsilons: The radius of the ball around each example, or several. One joint norm
        is taken over all features of an example. A radius is a number, or one for each
        coordinate: a dict by feature, or an array of a feature's shape.
      norm: The norm of the ball, a `NormType` or its value.
      attacks: A suite: 'standard' for the attacks and settings of AutoAttack (Croce and
        Hein, 2020, https://arxiv.org/abs/2003.01690), 'plus' for its longer version,
        'rand' for models that draw at random, 'quick' for ten steps of PGD; a list of
        names and `nsl.attacks` objects; or a dict from name to such an object or any
        callable with the arguments of `nsl.attacks.Attack`. For a loss, the suites are
        Auto-PGD and Square on it; for a model that gives labels alone, HopSkipJump.
      bounds: `(low, high)`, the range of valid features, each a number, an array, or a
        structure of them keyed by feature. None: there is none.
      feature_mask: Where it is 0 features may not be changed; a number, an array, or a
        structure of them keyed by feature.
      grid: The distance of valid values, such as 1/255 for 8-bit images.
      from_logits: Whether the model gives logits. None finds out; the report says how.
      output: Which of several outputs to evaluate: a key, a position, or a function of
        all outputs. None evaluates each by itself (`report.parts`) and all jointly: an
        example is robust if all of its outputs are.
      loss: What attacks maximize: a function of (y, outputs) that returns one value per
        example. None takes the criterion's own.
      criterion: What is right: `nsl.robustness.Within(tolerance)` for regression,
        `nsl.robustness.ShareRight(share)` for segmentation and sequences, 'exact_match'
        or 'per_label' for several labels per example (per label: each by itself and all
        jointly), or a function of (y, outputs) that returns one bool per example. For
        several outputs, a dict of them. None takes what the compiled loss of a Keras
        model speaks of, and else one class per example; the report says what.
      batch_size: How many examples go through the model at once. None leaves it to
        the attacks.
      seed: Determines all that is random in the attacks.
      cascade: Whether each attack only tries what is still robust after those before
        it, which saves most of the time. If not, each tries all examples, and the
        report has the accuracy under each attack alone.
      check: Whether to look for the known ways to fool oneself, see
        `nsl.robustness.checks`. Each finding is in the report and a
        `RobustnessWarning`.
      resume: A file that keeps finished parts. If it is there, the evaluation goes on
        from it, if everything that counts is the same.
      verbose: Whether progress is shown, on a terminal.

    Returns:
      The report.

    Raises:
      ValueError: If features, labels, epsilons or attacks do not fit, or `resume` is
        the file of another evaluation.
      TypeError: If the model is not callable.
    """
    report = Evaluation(
        model,
        x,
        y,
        epsilons,
        norm,
        attacks,
        bounds=bounds,
        feature_mask=feature_mask,
        grid=grid,
        from_logits=from_logits,
        output=output,
        loss=loss,
        criterion=criterion,
        batch_size=batch_size,
        seed=seed,
        cascade=cascade,
        check=check,
        resume=resume,
        verbose=verbose,
    ).run()
    for finding in report.warnings:
        warnings.warn(str(finding), RobustnessWarning, stacklevel=2)
    return report


class Evaluation:
    """An evaluation whose arguments have been read and found to fit.

    Takes the arguments of `evaluate_robustness`. It can be run again as the model is
    trained.

    Raises:
      ValueError: As `evaluate_robustness`.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        x: Any,
        y: Any,
        epsilons: Any,
        norm: NormType | str = NormType.INFINITY,
        attacks: str | Sequence[Any] | Mapping[str, Any] = "standard",
        *,
        bounds: Any = None,
        feature_mask: Any = None,
        grid: Any = None,
        from_logits: bool | None = None,
        output: Any = None,
        loss: Loss | None = None,
        criterion: Any = None,
        batch_size: int | None = None,
        seed: int = 0,
        cascade: bool = True,
        check: bool = True,
        resume: str | os.PathLike[str] | None = None,
        verbose: bool = True,
    ) -> None:
        self._norm = NormType(norm)
        self._examples = Examples(
            x, y, bounds=bounds, feature_mask=feature_mask, grid=grid
        )
        self._radii = _Radii.read(epsilons, self._examples)
        if self._examples.y is None:
            raise ValueError("y is needed, unless x is batches of (features, labels).")
        self._bounds = bounds
        self._seed, self._cascade, self._check = seed, cascade, check
        self._resume, self._verbose = resume, verbose
        # The adapter refers to the model weakly.
        self._held = model
        self._model = model = adapt(model, output=output, from_logits=from_logits)
        if model.has_changed():
            model.reset()
        self._given_size, self._size = batch_size, model.batch_size or _BATCH_SIZE
        if batch_size and not model.batch_size:
            self._size = batch_size
        sample = np.random.default_rng(abs(seed)).permutation(self._examples.count)
        self._sample = np.sort(sample[:_CHECKED_EXAMPLES])
        taken = Examples(self._take(self._sample))
        outputs = model.examine(
            taken.first(model.batch_size or taken.count), self._examples.y
        )
        self.parts: dict[str, Evaluation] = {}
        chosen = self._columns(criterion, outputs) or self._outputs(outputs, loss)
        settings = {
            "attacks": attacks,
            "norm": norm,
            "bounds": bounds,
            "feature_mask": feature_mask,
            "grid": grid,
            "from_logits": from_logits,
            "loss": loss,
            "batch_size": batch_size,
            "seed": seed,
            "cascade": cascade,
            "check": check,
            "verbose": verbose,
        }
        for name, (part, labels) in chosen.items():
            self.parts[name] = Evaluation(
                self._held,
                self._examples.x,
                labels,
                epsilons,
                **settings,
                output=part,
                criterion=criterion.get(name)
                if isinstance(criterion, Mapping)
                else None,
                resume=None if resume is None else f"{os.fspath(resume)}.{name}",
            )
        if self.parts:
            return
        self._task = self._choose_task(loss, criterion, outputs)
        self._attacks, self._replaced = choose_attacks(
            attacks,
            self._norm,
            0 if self._task.loss else model.classes,
            decisions=model.decisions,
            differentiable=self._differentiable,
        )

    def run(self) -> RobustnessReport:
        """Runs all attacks and checks.

        Returns:
          The report.
        """
        if self.parts:
            return self._joint({name: part.run() for name, part in self.parts.items()})
        model, examples = self._model, self._examples
        outputs = self._predict(examples.x)
        self.report = RobustnessReport(
            self._norm,
            tuple(self._radii.keys),
            self._right(outputs, np.arange(examples.count)),
            cascade=self._cascade,
            assumptions=[
                *model.assumptions,
                *self._task.assumptions,
                *self._radii.assumptions,
            ],
        )
        self._outputs_now = outputs
        self._points: dict[int, tuple[int, str, dict[str, Any]]] = {}
        self._checkpoint = Checkpoint(
            self._resume,
            self._settings() if self._resume is not None else {},
            _flat(outputs)[:_COMPARED_EXAMPLES],
        )
        if self._check:
            self._check_model()
        for name, attack in self._attacks.items():
            self._run(name, attack)
        if self._check:
            self._check_attacks()
        self._show_gallery()
        model.note()
        return self.report

    def _settings(self) -> dict[str, Any]:
        """Returns everything that the results depend on, as texts."""
        examples, task = self._examples, self._task
        weights = getattr(self._model.model, "weights", [])
        return {
            "x": settings_of(examples.x),
            "y": settings_of(examples.y),
            "norm": settings_of(self._norm),
            "epsilons": settings_of(self._radii.keys),
            "attacks": {name: settings_of(a) for name, a in self._attacks.items()},
            "limits": settings_of(self._radii.limits),
            "loss": settings_of(task.loss),
            "criterion": settings_of(task.criterion),
            "weights": settings_of([np.asarray(w) for w in weights]),
            "output": settings_of(self._model.output),
            "from_logits": self._model.from_logits,
            "batch_size": self._given_size,
            "seed": self._seed,
            "cascade": self._cascade,
        }

    def _take(self, indices: np.ndarray) -> Any:
        return self._examples.take(self._examples.x, indices)

    def _columns(self, criterion: Any, outputs: Any) -> dict[str, Any]:
        """Returns the labels of a model of several, if each is evaluated by itself."""
        if not isinstance(criterion, str) or criterion != "per_label":
            return {}
        y = np.asarray(self._examples.y)
        if not tf.is_tensor(outputs) or y.ndim != 2 or y.shape[1] != outputs.shape[-1]:
            raise ValueError(
                "criterion='per_label' needs labels and outputs of one shape "
                f"[examples, labels], but received {y.shape} and "
                f"{getattr(outputs, 'shape', None)}."
            )
        return {f"label {i}": (Column(i), y[:, i]) for i in range(y.shape[1])}

    def _outputs(self, outputs: Any, loss: Any) -> dict[str, Any]:
        """Returns outputs and labels, if there are several and all are evaluated."""
        leaves = tf.nest.flatten(outputs)
        if len(leaves) == 1 or loss is not None:
            return {}
        names = output_names(self._model.model, outputs)
        labels = self._examples.y
        given = tf.nest.flatten(labels)
        if isinstance(labels, Mapping):
            if set(labels) != set(names):
                raise ValueError(
                    f"y must have labels for each of the outputs {names}, but has "
                    f"{sorted(labels)}. Choose one output with output=."
                )
            given = [labels[name] for name in names]
        if len(given) != len(names):
            raise ValueError(
                f"The model's outputs are {names}: y must hold labels for each of "
                "them, or output= choose one."
            )
        return {str(n): (n, g) for n, g in zip(names, given, strict=True)}

    def _choose_task(self, loss: Any, criterion: Any, sample: Any) -> Task:
        y = self._examples.y
        whole = self._predict(self._examples.x, as_logits=False)
        leaves = tf.nest.flatten(whole)
        task = choose_task(
            self._model, y, leaves[0] if len(leaves) == 1 else whole, loss, criterion
        )
        self._labels = y
        self._task = task
        if task.criterion is None or type(task.criterion).__name__ == "_RightClass":
            # Not of shape [batch, classes]: raises.
            self._model.logits(tf.nest.map_structure(tf.identity, self._first()))
            self._labels = read_classes(y, self._model.classes)
        if task.loss is not None:
            check_task(task, self._labels, whole)
        self._differentiable = self._has_gradients()
        del sample
        return task

    def _first(self) -> Any:
        return self._examples.first(self._model.batch_size or 1)

    def _predict(self, x: Any, as_logits: bool | None = None) -> Any:
        """Returns logits; outputs, where a loss is attacked."""
        if as_logits is None:
            as_logits = self._task.loss is None
        return self._model.predict(x, self._size, as_logits=as_logits)

    def _right(self, outputs: Any, index: np.ndarray) -> np.ndarray:
        """Tells which examples the model gets right; one with a NaN is not."""
        labels = self._examples.take(self._labels, index)
        if self._task.loss is not None:
            return check_task(self._task, labels, outputs)
        outputs = np.asarray(outputs)
        return (outputs.argmax(axis=1) == labels) & ~np.isnan(outputs).any(axis=1)

    def _problem(self, index: np.ndarray, limits: Limits) -> Problem:
        batch = self._examples.batch(
            index, limits, self._labels, memory=self._model.memory()
        )
        return Problem(
            self._model,
            batch,
            norm=self._norm,
            loss_fn=self._task.loss,
            criterion=self._task.criterion,
        )

    def _gradients(self, index: np.ndarray) -> np.ndarray:
        """Returns the gradient of each example's loss; rows."""
        found = []
        with self._model.state_kept():
            for piece in split(len(index), self._size):
                rows = index[piece]
                if self._model.batch_size:
                    rows = np.resize(rows, self._size)
                problem = self._problem(rows, self._radii.limits[0])
                _, _, gradient = problem.gradient(problem.none)
                found.append(gradient.numpy()[: len(index[piece])])
        return np.concatenate(found).astype(np.float64)

    def _has_gradients(self) -> bool:
        if not self._model.is_native or self._model.decisions:
            return False
        try:
            self._gradients(self._sample[:1])
        except NoGradientError:
            return False
        return True

    def _run(self, name: str, attack: Any) -> None:
        """Runs an attack at every epsilon, smallest first."""
        report, count = self.report, len(self._radii.keys)
        standing = np.tile(report.correct, (count, 1))
        if report.cascade:
            standing = report.standing
        result = AttackResult(
            standing=standing.copy(),
            seconds=[0.0] * count,
            model_passes=[0] * count,
            black_box=getattr(attack, "black_box", False),
        )
        outside = np.zeros(count)
        together = isinstance(attack, MinimumNorm)
        for part in [list(range(count))] if together else [[k] for k in range(count)]:
            keys = [self._radii.keys[k] for k in part]
            results = [self._checkpoint.finished(name, key) for key in keys]
            if None in results:
                robust = np.flatnonzero(result.standing[part[0]])
                results = self._attack(attack, part, robust)
                finished = dict(zip(keys, results, strict=True))
                self._checkpoint.add(name, finished)
            for k, found in zip(part, results, strict=True):
                assert found is not None
                for larger in self._radii.larger(k):
                    result.standing[larger, found["fallen"]] = False
                result.seconds[k] = found["seconds"]
                result.model_passes[k] = found["model_passes"]
                outside[k] = found["outside"]
                for one in found["shown"]:
                    self._points.setdefault(one["index"], (k, name, one))
                self._show(name, k, result)
        report.results[name] = result
        worst = int(np.argmax(outside))
        self._note(checks.left_the_ball(name, outside[worst], report.epsilons[worst]))

    def _attack(
        self, attack: Any, part: list[int], index: np.ndarray
    ) -> list[dict[str, Any]]:
        """Runs an attack at some epsilons on some examples."""
        limits = [self._radii.limits[k] for k in part]
        epsilons = [self._radii.values[k] for k in part]
        start, passes = time.monotonic(), self._model.passes
        follows_gradients = isinstance(attack, Attack) and not attack.black_box
        found: list[Any] = []
        if follows_gradients and not self._differentiable:
            # There is nothing to follow, and the attack would refuse the model.
            found = [self._take(index)] * len(part)
        elif len(index):
            given = self._examples.arguments(
                index, epsilons if len(part) > 1 else epsilons[0]
            )
            if self._task.loss is not None:
                given |= {"loss_fn": self._task.loss, "criterion": self._task.criterion}
            points = attack(
                self._model,
                given.pop("x"),
                self._examples.take(self._labels, index),
                seed=self._seed,
                from_logits=self._model.from_logits,
                batch_size=self._given_size,
                verbose=self._verbose,
                **given,
            )
            found = points if len(part) > 1 else [points]
        results = []
        for i in range(len(part)):
            fallen, outside, shown = index, np.zeros(len(index), bool), []
            if len(index):
                outside = ~self._allowed(found[i], index, limits[i])
                outputs = self._predict(found[i])
                fell = ~self._right(outputs, index) & ~outside
                fallen = index[fell]
                shown = self._shown(found[i], outputs, index, fell)
            results.append(
                {
                    "fallen": fallen.tolist(),
                    "outside": float(np.mean(outside)) if len(index) else 0.0,
                    "seconds": 0.0 if i else time.monotonic() - start,
                    "model_passes": 0 if i else self._model.passes - passes,
                    "shown": shown,
                }
            )
        return results

    def _allowed(self, found: Any, index: np.ndarray, limits: Limits) -> np.ndarray:
        parts = []
        for piece in split(len(index), self._size):
            points = tf.nest.map_structure(lambda leaf, p=piece: leaf[p], found)
            parts.append(self._problem(index[piece], limits).allows(points))
        return np.concatenate(parts)

    def _fragility(self) -> np.ndarray:
        """Returns by how much each clean example is right; less is more fragile."""
        if self._task.loss is not None:
            return -np.asarray(self._task.loss(self._labels, self._outputs_now))
        logits, rows = np.array(self._outputs_now), np.arange(self._examples.count)
        own = logits[rows, self._labels]
        logits[rows, self._labels] = -np.inf
        return own - logits.max(axis=1)

    def _shown(
        self, found: Any, outputs: Any, index: np.ndarray, fell: np.ndarray
    ) -> list[dict[str, Any]]:
        """Returns the most fragile of the examples that fell, for the gallery."""
        rows = np.flatnonzero(fell)
        rows = rows[np.argsort(self._fragility()[index[rows]], kind="stable")[:_SHOWN]]
        return [
            {
                "index": int(index[row]),
                "attacked_as": self._named(outputs, row),
                "point": encoded(
                    plain(tf.nest.map_structure(lambda leaf, r=row: leaf[r], found))
                ),
            }
            for row in rows
        ]

    def _named(self, outputs: Any, row: int) -> str:
        if self._task.loss is None:
            return str(int(np.argmax(outputs[row])))
        return _text(tf.nest.map_structure(lambda leaf: np.asarray(leaf)[row], outputs))

    def _show_gallery(self) -> None:
        """Puts the most fragile and the hardiest examples into the report."""
        fragility = self._fragility()
        fallen = sorted(self._points, key=lambda i: (self._points[i][0], fragility[i]))
        hardy = np.flatnonzero(self.report.standing.all(axis=0))
        hardy = hardy[np.argsort(-fragility[hardy], kind="stable")[:_SHOWN]]
        for i in [*fallen[:_SHOWN], *map(int, hardy)]:
            k, name, one = self._points.get(i, (0, None, {}))
            self.report.gallery.append(
                GalleryExample(
                    index=i,
                    label=_text(self._examples.take(self._labels, np.array([i]))[0])
                    if isinstance(self._labels, np.ndarray)
                    else "",
                    predicted=self._named(self._outputs_now, i),
                    attacked_as=one.get("attacked_as"),
                    epsilon=self._radii.keys[k] if one else None,
                    attack=name,
                    clean=tf.nest.map_structure(
                        lambda leaf, i=i: leaf[i], self._examples.x
                    ),
                    attacked=decoded(one.get("point")),
                )
            )

    def _show(self, name: str, k: int, result: AttackResult) -> None:
        if self._verbose and sys.stderr.isatty():
            print(
                f"{name}, epsilon {self._radii.keys[k]}: "
                f"{result.standing[k].mean():.1%} robust, {result.seconds[k]:.1f} s",
                file=sys.stderr,
            )

    def _note(self, finding: Finding | None) -> None:
        if finding is not None:
            self.report.warnings.append(finding)

    def _check_model(self) -> None:
        """Runs the checks that need no attack, those of passes on a sample."""
        model, examples, report = self._model, self._examples, self.report
        self._note(checks.inputs_out_of_bounds(examples.excess(), self._bounds))
        self._note(checks.too_few_classes(model.classes, self._replaced))
        features = self._take(self._sample)
        outputs = _flat(self._predict(features, as_logits=False))
        if self._task.loss is None:
            self._note(checks.model_at_chance(report.correct, self._labels))
            self._note(checks.guessed_outputs(model.guessed, bool(model.from_logits)))
            if not model.decisions:
                self._note(
                    checks.wrong_kind_of_outputs(outputs, bool(model.from_logits))
                )
        again = _flat(self._predict(features, as_logits=False))
        random = checks.random_model(outputs, again)
        self._note(random)
        if random is None:
            self._note(
                checks.batch_dependent(outputs, self._in_other_batches(features))
            )
        self._note(checks.optimizes(model, self._first()))
        if self._differentiable:
            gradients = self._gradients(self._sample)
        else:
            gradients = np.zeros([1, 1])
        if not model.decisions:
            self._note(checks.zero_gradients(gradients))
        if self._radii.is_plain:
            self._note(checks.exploding_gradients(gradients, report.epsilons[-1]))

    def _in_other_batches(self, features: Any) -> np.ndarray:
        """Returns the outputs of a sample whose batches are put together otherwise."""
        count = len(self._sample)
        order = np.concatenate([np.arange(0, count, 2), np.arange(1, count, 2)])
        size = max(1, min(self._size, (count + 1) // 2))
        moved = tf.nest.map_structure(lambda leaf: leaf[order], features)
        found = _flat(self._model.predict(moved, size))
        outputs = np.empty_like(found)
        outputs[order] = found
        return outputs

    def _check_attacks(self) -> None:
        """Runs the checks of what the attacks did."""
        report, examples = self.report, self._examples
        self._note(checks.black_box_beats_white_box(report))
        epsilon = examples.reach(self._norm)
        if epsilon is None or self._task.loss is not None or self._model.decisions:
            return
        standing = np.zeros(examples.count, bool)
        standing[self._sample] = report.standing[-1][self._sample]
        [limits], _ = examples.limits_of(epsilon)
        radii, self._radii = self._radii, _Radii([epsilon], [epsilon], [limits])
        if np.any(standing):
            robust = np.flatnonzero(standing)
            [found] = self._attack(gradient_attack(self._norm), [0], robust)
            standing[found["fallen"]] = False
        self._radii = radii
        accuracy = float(np.mean(standing[self._sample]))
        classes = self._model.classes
        self._note(checks.stands_at_huge_epsilon(accuracy, classes, epsilon))

    def _joint(self, parts: dict[str, RobustnessReport]) -> RobustnessReport:
        """Returns the report of all outputs together: all have to be right."""
        reports = list(parts.values())
        joint = RobustnessReport(
            self._norm,
            reports[0].epsilons,
            np.logical_and.reduce([report.correct for report in reports]),
            cascade=True,
            parts=parts,
        )
        standing = np.tile(joint.correct, (len(joint.epsilons), 1))
        for name, report in parts.items():
            for attack, result in report.results.items():
                standing = standing & result.standing
                joint.results[f"{name}: {attack}"] = attrs.evolve(
                    result, standing=standing
                )
            joint.warnings += [
                attrs.evolve(one, message=f"({name}) {one.message}")
                for one in report.warnings
            ]
            joint.assumptions += [f"{name}: {one}" for one in report.assumptions]
        return joint


@attrs.define
class _Radii:
    """The radii of an evaluation, smallest first.

    Attributes:
      keys: What the report calls each: the number, or a text.
      values: What attacks are called with.
      limits: The limits of all examples.
      assumptions: What was assumed, in sentences.
    """

    keys: list[Any]
    values: list[Any]
    limits: list[Limits]
    assumptions: list[str] = attrs.field(factory=list)

    @classmethod
    def read(cls, epsilons: Any, examples: Examples) -> "_Radii":
        """Reads what `evaluate_robustness` was given."""
        if epsilons is None:
            raise ValueError("epsilons is needed: the radius to evaluate, or several.")
        values, assumptions = epsilons, []
        if isinstance(epsilons, Mapping) or np.ndim(epsilons) == 0:
            values = [epsilons]
        elif not isinstance(epsilons, list | tuple):
            shapes = [leaf.shape[1:] for leaf in examples.leaves]
            values = list(epsilons)
            if np.shape(epsilons) in shapes or np.ndim(epsilons) > 1:
                values = [epsilons]
                assumptions = ["epsilons is one radius for each coordinate."]
        if all(np.ndim(v) == 0 and not isinstance(v, Mapping) for v in values):
            values = sorted({float(v) for v in values})
            if not values or not all(np.isfinite(values)) or values[0] <= 0:
                raise ValueError(
                    "epsilons must be a number greater than 0, or several of them, but "
                    f"received {epsilons!r}."
                )
            keys: list[Any] = values
        else:
            keys = [v if isinstance(v, float) else _text(v) for v in values]
        limits = [examples.limits_of(value)[0][0] for value in values]
        return cls(keys, list(values), limits, assumptions)

    @property
    def is_plain(self) -> bool:
        """Whether every radius is a number."""
        return all(isinstance(value, float) for value in self.values)

    def larger(self, k: int) -> list[int]:
        """Returns which balls hold the k-th, itself included."""
        return [
            j for j in range(len(self.keys)) if _holds(self.limits[j], self.limits[k])
        ]


def _holds(larger: Limits, smaller: Limits) -> bool:
    def size(limits: Limits) -> list[Any]:
        scales = [np.float64(1) if s is None else s for s in limits.scale]
        masks = [np.float64(1) if m is None else m > 0 for m in limits.mask]
        return [
            np.max(limits.radius) * scale * mask
            for scale, mask in zip(scales, masks, strict=True)
        ]

    pairs = zip(size(larger), size(smaller), strict=True)
    return all(bool(np.all(a >= b)) for a, b in pairs)


def _flat(outputs: Any) -> np.ndarray:
    """Returns outputs as one float64 row for each example."""
    leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(outputs)]
    rows = [leaf.reshape(len(leaf), -1).astype(np.float64) for leaf in leaves]
    return np.concatenate(rows, axis=1)


def _text(value: Any) -> str:
    """Returns a short text for labels, outputs and radii."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(part)}" for key, part in value.items())
    array = np.asarray(value)
    if array.dtype.kind == "f":
        array = array.astype(np.float64)
    return np.array2string(array, precision=4, threshold=8, edgeitems=3).replace(
        "\n", ""
    )
