"""Accuracy under attack, and how far it can be believed."""

import functools
import inspect
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import tensorflow as tf

from nsl.attacks.at_layer import AtLayer
from nsl.attacks.attack import as_norm
from nsl.attacks.examples import Examples, Limits, split
from nsl.attacks.labels import read_classes
from nsl.attacks.model_adapter import adapt, output_names
from nsl.attacks.problem import Loss, NoGradientError, Problem
from nsl.attacks.substitution import Substitution
from nsl.configs import NormType
from nsl.lib.norms import Norm
from nsl.robustness import checks
from nsl.robustness.certificate import certified
from nsl.robustness.checkpoint import Checkpoint, settings_of
from nsl.robustness.gallery import GalleryExample
from nsl.robustness.radii import Radius, read_radii, value_text
from nsl.robustness.report import (
    AttackResult,
    Finding,
    RobustnessReport,
    RobustnessWarning,
)
from nsl.robustness.suites import (
    choose_attacks,
    follows_gradients,
    gradient_attack,
)
from nsl.robustness.tasks import Column, choose_task

_BATCH_SIZE = 128
_CHECKED_EXAMPLES = 100
_SHOWN = 6
# How often a huge radius is tried again, a quarter as large.
_SHRINKINGS = 9
_NO_GRADIENTS = (
    "The model works on NumPy arrays, which have no gradients: attacks that follow "
    "them were left out."
)
_PROVEN = (
    "Certified are examples of which interval bounds prove that no point of the ball "
    "changes the class. The proof computes in float32, and leaves 1e-5 for rounding."
)


def evaluate_robustness(
    model: Callable[..., Any],
    x: Any,
    y: Any = None,
    epsilons: Any = None,
    norm: NormType | str | Norm = NormType.INFINITY,
    attacks: str | Sequence[Any] | Mapping[str, Any] = "standard",
    *,
    bounds: Any = None,
    feature_mask: Any = None,
    grid: Any = None,
    from_logits: bool | None = None,
    output: Any = None,
    loss: Loss | None = None,
    criterion: Any = None,
    layer: str | Sequence[str] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    cascade: bool = True,
    check: bool = True,
    certify: bool = False,
    resume: str | os.PathLike[str] | None = None,
    verbose: bool = True,
) -> RobustnessReport:
    """Measures the accuracy of a model on clean and on attacked examples.

    An example is robust at an epsilon if no attack finds a point of the ball around
    it, and of the bounds, that the model gets wrong. Every point is checked in a pass
    of its own. What falls at one epsilon falls at all larger ones.

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
        scikit-learn's `predict_proba` or, for attacks by decisions, `predict`. (Within
        a function of your own `model(x)` is far faster than `model.predict(x)`.)
      x: Features: an array or tensor, or a structure of them, examples first; or
        batches, as a tf.data.Dataset, which may hold the labels.
      y: Labels: classes, integers of shape [examples] or [examples, 1], or one-hot
        rows; with `loss` or `criterion` whatever they take; None if they are in `x`.
      epsilons: The radius of the ball around each example, or several. One joint norm
        is taken over all features of an example. A radius is a number, or one for each
        coordinate: a dict by feature, or an array of a feature's shape.
      norm: The norm of the ball: a `NormType`, its value, or a `nsl.lib.Norm`; 'l0' for
        `nsl.attacks.Substitution`, where an epsilon is a number of replaced columns.
      attacks: A suite: 'standard' for the attacks and settings of AutoAttack (Croce and
        Hein, 2020, https://arxiv.org/abs/2003.01690), 'plus' for its longer version,
        'rand' for models that draw at random, 'quick' for FGSM and ten steps of PGD; a
        list of names and `nsl.attacks` objects; or a dict from name to such an object
        or any callable with the arguments of `nsl.attacks.Attack`. For a loss, the
        suites are Auto-PGD and Square on it; for a model that gives labels alone,
        HopSkipJump.
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
      layer: The layer of a Keras model whose outputs are perturbed instead of the
        features, or several: how flat the model is there. Epsilons, bounds and
        `feature_mask` are about these outputs; padding that the layer masks is not
        perturbed. No input, as no text, may lead to the points that are found.
      batch_size: How many examples go through the model at once. None leaves it to
        the attacks.
      seed: Determines all that is random in the attacks.
      cascade: Whether each attack only tries what is still robust after those before
        it and is not certified, which saves most of the time. If not, each tries all
        examples, and the report has the accuracy under each attack alone.
      check: Whether to look for the known ways to fool oneself, see
        `nsl.robustness.checks`. Each finding is in the report and a
        `RobustnessWarning`.
      certify: Whether to count the examples of which interval bounds prove that no
        point of the ball changes the class, see `nsl.lib.interval_bounds`; the report
        then has a `certified_accuracy`, which robust accuracy is never below. For a
        sequential or functional Keras model of one class per example.
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
    report = Evaluation(**locals()).run(as_read=True)
    for finding in report.warnings:
        warnings.warn(str(finding), RobustnessWarning, stacklevel=2)
    return report


class Evaluation:
    """An evaluation whose arguments, those of `evaluate_robustness`, fit.

    It can be run again while the model is trained.
    """

    def __init__(self, **arguments: Any) -> None:
        bound = inspect.signature(evaluate_robustness).bind(**arguments)
        bound.apply_defaults()
        given = self._given = dict(bound.arguments)
        self._above: AtLayer | None = None
        self._at_layer: list[str] = []
        self._replaces = given["norm"] == Substitution.norm
        if given["layer"] is not None:
            self._go_to_layer()
        limits = {name: given[name] for name in ("bounds", "feature_mask", "grid")}
        # Replaced columns are no perturbation: of any dtype, without gradients.
        if self._replaces and any(value is not None for value in limits.values()):
            raise ValueError(
                "norm='l0' takes neither bounds, feature_mask nor grid: the "
                "replacements say which columns may change, and what they may be."
            )
        self._norm = given["norm"] if self._replaces else as_norm(given["norm"])
        examples = self._examples = Examples(
            given["x"], given["y"], **limits, perturbed=not self._replaces
        )
        self._radii, self._assumed = read_radii(given["epsilons"], examples)
        if examples.y is None:
            raise ValueError("y is needed, unless x is batches of (features, labels).")
        model = self._model = adapt(
            given["model"], output=given["output"], from_logits=given["from_logits"]
        )
        model.forget_if_changed()
        self._size = model.batch_size or given["batch_size"] or _BATCH_SIZE
        drawn = np.random.default_rng(abs(given["seed"])).permutation(examples.count)
        self._sample = np.sort(drawn[:_CHECKED_EXAMPLES])
        seen = self._model.batch_size or len(self._sample)
        sampled = Examples(examples.take(examples.x, self._sample), perturbed=False)
        outputs = model.examine(sampled.first(seen), examples.y)
        self._outputs: Any = None
        self.parts = {
            name: Evaluation(**{**given, "x": examples.x, **part})
            for name, part in self._parts(outputs).items()
        }
        if not self.parts:
            self._read_task(outputs)

    def run(self, as_read: bool = False) -> RobustnessReport:
        """Runs all attacks and checks.

        With `as_read`, the model is as it was when the arguments were read: what it
        said then need not be computed again.
        """
        if self._above is not None and not as_read:
            self._above.refresh()
        if self.parts:
            report = joint(
                {name: part.run(as_read) for name, part in self.parts.items()}
            )
            report.assumptions += self._at_layer
            return report
        given, model, examples = self._given, self._model, self._examples
        if not as_read or self._outputs is None:
            self._outputs = self._predict(examples.x)
        self._margins = self._task.margins(self._labels, self._outputs)
        self.report = RobustnessReport(
            self._norm,
            tuple(one.key for one in self._radii),
            self._task.right(self._labels, self._outputs),
            cascade=given["cascade"],
            assumptions=[
                *([] if self._task.loss else model.assumptions),
                *([] if model.is_native or self._replaces else [_NO_GRADIENTS]),
                *self._task.assumptions,
                *self._assumed,
                *self._at_layer,
            ],
        )
        self._fallen: dict[int, GalleryExample] = {}
        self._checkpoint = Checkpoint(
            given["resume"],
            self._settings() if given["resume"] is not None else {},
            flat(self._outputs)[:_CHECKED_EXAMPLES],
        )
        if given["check"]:
            self._check_model()
        if given["certify"]:
            self._certify()
        for name, attack in self._attacks.items():
            self._run(name, attack)
        if given["check"]:
            self._check_attacks()
        self._show_gallery()
        model.note()
        return self.report

    def _go_to_layer(self) -> None:
        """Makes the outputs of layers what is evaluated, in the place of features."""
        given = self._given
        if self._replaces:
            raise ValueError(
                "norm='l0' replaces columns of the features, but received layer="
                f"{given['layer']!r}. Leave layer out, or choose another norm."
            )
        examples = Examples(given["x"], given["y"], perturbed=False)
        size = given["batch_size"] or _BATCH_SIZE
        above = AtLayer(given["model"], given["layer"], examples, size)
        self._above = above
        limits = above.limits(given["bounds"], given["feature_mask"])
        given |= {"model": above, "x": above.features, "y": examples.y, "layer": None}
        given |= limits
        names = " and ".join(f"'{name}'" for name in above.names)
        self._at_layer = [
            f"Perturbed are the outputs of layer {names}, not the features: no input, "
            "such as a text, may lead the model to these points."
        ]

    def _parts(self, outputs: Any) -> dict[str, dict[str, Any]]:
        """Returns the arguments of the evaluations that this one is made of, if any."""
        given: dict[str, Any] = self._given
        y: Any = self._examples.y
        shape = (self._examples.count, *np.shape(outputs)[1:])
        criterion = given["criterion"]
        parts: dict[str, dict[str, Any]]
        if isinstance(criterion, str) and criterion == "per_label":
            if np.ndim(y) != 2 or np.shape(y) != shape:
                raise ValueError(
                    "criterion='per_label' needs labels and outputs of one shape "
                    f"[examples, labels], but received {np.shape(y)} and {shape}."
                )
            parts = {
                f"label {i}": {"y": y[:, i], "output": Column(i), "criterion": None}
                for i in range(y.shape[1])
            }
        elif len(tf.nest.flatten(outputs)) == 1 or given["loss"] is not None:
            return {}
        else:
            names, labels = output_names(self._model.model, outputs), y
            if not isinstance(y, Mapping):
                labels = dict(zip(names, tf.nest.flatten(y), strict=False))
            if set(labels) != set(names):
                raise ValueError(
                    f"The model's outputs are {names}: y must hold labels for each of "
                    f"them, but has {sorted(map(str, labels))}. Or choose one with "
                    "output=."
                )
            of = criterion if isinstance(criterion, Mapping) else {}
            parts = {
                str(name): {
                    "y": labels[name],
                    "output": name,
                    "criterion": of.get(name),
                }
                for name in names
            }
        if given["resume"] is not None:
            for name, part in parts.items():
                part["resume"] = f"{os.fspath(given['resume'])}.{name}"
        return parts

    def _read_task(self, outputs: Any) -> None:
        """Finds out what is right, and chooses attacks; outputs are of a sample."""
        given, model, examples = self._given, self._model, self._examples
        y, leaves = examples.y, tf.nest.flatten(outputs)
        predict = functools.cache(lambda: model.predict(examples.x, self._size))

        def predicted() -> Any:
            return tf.nest.flatten(predict())[0] if len(leaves) == 1 else predict()

        shape = (examples.count, *leaves[0].shape[1:]) if len(leaves) == 1 else None
        self._task = choose_task(
            model, y, shape, predicted, given["loss"], given["criterion"]
        )
        if given["certify"]:
            self._check_certifiable()
        self._labels = y
        if self._task.of_classes:
            model.check_classes(outputs)
            self._labels = read_classes(y, model.classes)
        if self._task.loss is not None:
            self._outputs = predict()
            self._task.right(self._labels, self._outputs)
        self._differentiable = self._has_gradients()
        self._attacks, self._replaced = choose_attacks(
            given["attacks"],
            self._norm,
            0 if self._task.loss else model.classes,
            decisions=model.decisions,
            differentiable=self._differentiable,
            native=model.is_native,
        )

    def _check_certifiable(self) -> None:
        """Raises ValueError where interval bounds say nothing of what is evaluated."""
        norms = [norm.value for norm in NormType]
        name = getattr(self._norm, "value", self._norm)
        of_layer, of_function = self._at_layer, callable(self._given["output"])
        of_classes = self._task.of_classes and not of_layer and not of_function
        if name not in norms or not of_classes:
            raise ValueError(
                "certify=True bounds an output of a model, of one class per example, "
                f"over balls of its features of norm {', '.join(norms)}, but this "
                "evaluation is of another kind. Leave it out."
            )

    def _certify(self) -> None:
        """Puts what interval bounds prove into the report."""
        arguments = self._model, self._examples
        self.report.certified = np.stack(
            [
                certified(*arguments, radius.limits, self._labels, self._size)
                for radius in self._radii
            ]
        )
        self.report.assumptions.append(_PROVEN)

    def _settings(self) -> dict[str, Any]:
        """Returns everything that the results depend on, as texts."""
        weights = getattr(self._model.model, "weights", [])
        settings = {
            "x": self._examples.x,
            "y": self._examples.y,
            "norm": self._norm,
            "epsilons": [one.key for one in self._radii],
            "limits": [one.limits for one in self._radii],
            "loss": self._task.loss,
            "criterion": self._task.criterion,
            "weights": [np.asarray(w) for w in weights],
            "from_logits": self._model.from_logits,
            **{
                k: self._given[k]
                for k in ("output", "batch_size", "seed", "cascade", "certify")
            },
        }
        attacks = {name: settings_of(attack) for name, attack in self._attacks.items()}
        texts = {name: settings_of(value) for name, value in settings.items()}
        return {**texts, "attacks": attacks}

    def _predict(self, x: Any) -> Any:
        """Returns logits; outputs, where a loss is attacked."""
        return self._model.predict(x, self._size, as_logits=self._task.loss is None)

    def _gradients(self, index: np.ndarray) -> np.ndarray:
        """Returns the gradient of each example's loss; rows."""
        model, task, found = self._model, self._task, []
        with model.state_kept():
            for piece in split(len(index), self._size):
                rows = index[piece]
                if model.batch_size:
                    rows = np.resize(rows, self._size)
                batch = self._examples.batch(
                    rows, self._radii[0].limits, self._labels, memory=model.memory()
                )
                problem = Problem(
                    model,
                    batch,
                    norm=self._norm,
                    loss_fn=task.loss,
                    criterion=task.criterion,
                )
                gradient = problem.raw_gradient(problem.none)
                found.append(gradient.numpy()[: len(index[piece])])
        return np.concatenate(found).astype(np.float64)

    def _has_gradients(self) -> bool:
        model = self._model
        if not model.is_native or model.decisions or self._replaces:
            return False
        try:
            self._gradients(self._sample[:1])
        except NoGradientError:
            return False
        return True

    def _run(self, name: str, attack: Any) -> None:
        """Runs an attack at every epsilon, smallest first."""
        report, radii, count = self.report, self._radii, len(self._radii)
        robust = report.robust if report.cascade else report.correct_by_epsilon
        result = AttackResult(
            robust,
            seconds=[0.0] * count,
            model_passes=[0] * count,
            black_box=getattr(attack, "black_box", False),
        )
        outside = np.zeros(count)
        groups = [[k] for k in range(count)]
        if getattr(attack, "minimizes", False):
            groups = [list(range(count))]
        for group in groups:
            keys = [radii[k].key for k in group]
            kept = [self._checkpoint.finished(name, key) for key in keys]
            finished = [found for found in kept if found is not None]
            if len(finished) < len(kept):
                open_ = result.robust[group[0]]
                if report.cascade and report.certified is not None:
                    open_ = open_ & ~report.certified[group[-1]]
                index = np.flatnonzero(open_)
                finished = self._attack(name, attack, [radii[k] for k in group], index)
                self._checkpoint.add(name, dict(zip(keys, finished, strict=True)))
            for k, found in zip(group, finished, strict=True):
                larger = [j for j in range(count) if radii[k].is_in(radii[j])]
                result.robust[np.ix_(larger, found["fallen"])] = False
                result.seconds[k] = found["seconds"]
                result.model_passes[k] = found["model_passes"]
                outside[k] = found["outside"]
                for one in found["shown"]:
                    self._fallen.setdefault(one["index"], GalleryExample(**one))
                if self._given["verbose"] and sys.stderr.isatty():
                    robust_share = result.robust[k].mean()
                    print(
                        f"{name}, epsilon {radii[k].key}: {robust_share:.1%} robust, "
                        f"{result.seconds[k]:.1f} s",
                        file=sys.stderr,
                    )
        report.results[name] = result
        worst = int(np.argmax(outside))
        self._note(checks.left_the_ball(name, outside[worst], radii[worst].key))

    def _attack(
        self, name: str, attack: Any, radii: list[Radius], index: np.ndarray
    ) -> list[dict[str, Any]]:
        """Runs an attack at some epsilons on some examples; returns JSON values."""
        model, given, count = self._model, self._given, len(radii)
        start, passes = time.monotonic(), model.passes
        if not len(index) or (follows_gradients(attack) and not self._differentiable):
            # There is nothing to follow, and the attack would refuse the model.
            found = [self._examples.take(self._examples.x, index)] * count
        else:
            values = [one.value for one in radii]
            epsilon = values if count > 1 else values[0]
            arguments = self._examples.arguments(index, epsilon)
            if self._task.loss is not None:
                arguments["loss_fn"] = self._task.loss
                arguments["criterion"] = self._task.criterion
            points = attack(
                model,
                arguments.pop("x"),
                self._examples.take(self._labels, index),
                seed=given["seed"],
                from_logits=model.from_logits,
                batch_size=given["batch_size"],
                verbose=given["verbose"],
                **arguments,
            )
            found = points if count > 1 else [points]
        results = []
        for i, (radius, points) in enumerate(zip(radii, found, strict=True)):
            outside, fell, shown = np.zeros(1, bool), np.zeros(0, bool), []
            if len(index):
                outside = ~self._allowed(attack, points, index, radius.limits)
                outputs = self._predict(points)
                labels = self._examples.take(self._labels, index)
                fell = ~self._task.right(labels, outputs) & ~outside
                rows = np.flatnonzero(fell)
                fragile = np.argsort(self._margins[index[rows]], kind="stable")
                for row in rows[fragile[:_SHOWN]]:
                    one = self._shown(
                        int(index[row]),
                        attacked_as=self._task.text(outputs, row),
                        epsilon=radius.key,
                        attack=name,
                        attacked=_one(points, row),
                    )
                    shown.append(attrs.asdict(one, recurse=False))
            results.append(
                {
                    "fallen": index[fell].tolist(),
                    "outside": float(np.mean(outside)),
                    "seconds": 0.0 if i else time.monotonic() - start,
                    "model_passes": 0 if i else model.passes - passes,
                    "shown": shown,
                }
            )
        return results

    def _allowed(
        self, attack: Any, found: Any, index: np.ndarray, limits: Limits
    ) -> np.ndarray:
        """Tells which points count; raises ValueError unless they are like features."""
        shapes = [np.shape(leaf) for leaf in tf.nest.flatten(found)]
        expected = [(len(index), *leaf.shape[1:]) for leaf in self._examples.leaves]
        if shapes != expected:
            name = getattr(attack, "__name__", type(attack).__name__)
            raise ValueError(
                f"The attack {name!r} must return features like those that it gets, of "
                f"shapes {expected}, but returned shapes {shapes}."
            )
        if self._replaces:
            clean = self._examples.take(self._examples.x, index)
            return attack.allows(clean, found, limits.radius[0, 0])
        parts = []
        for piece in split(len(index), self._size):
            points = tf.nest.map_structure(lambda leaf, p=piece: leaf[p], found)
            batch = self._examples.batch(index[piece], limits)
            parts.append(batch.allows(points, self._norm))
        return np.concatenate(parts)

    def _shown(self, i: int, **attacked: Any) -> GalleryExample:
        return GalleryExample(
            index=i,
            label=value_text(_one(self._labels, i)),
            predicted=self._task.text(self._outputs, i),
            clean=_one(self._examples.x, i),
            **attacked,
        )

    def _show_gallery(self) -> None:
        """Puts the most fragile and the hardiest examples into the report."""
        margins, fallen = self._margins, self._fallen
        keys = [one.key for one in self._radii]
        weak = sorted(fallen, key=lambda i: (keys.index(fallen[i].epsilon), margins[i]))
        hardy = np.flatnonzero(self.report.robust.all(axis=0))
        hardy = hardy[np.argsort(-margins[hardy], kind="stable")]
        self.report.gallery += [fallen[i] for i in weak[:_SHOWN]]
        self.report.gallery += [self._shown(int(i)) for i in hardy[:_SHOWN]]

    def _note(self, finding: Finding | None) -> None:
        if finding is not None:
            self.report.warnings.append(finding)

    def _check_model(self) -> None:
        """Runs the checks that need no attack, those of passes on a sample."""
        model, report, sample = self._model, self.report, self._sample
        if not self._replaces:
            bounds = self._given["bounds"]
            self._note(checks.inputs_out_of_bounds(self._examples.excess(), bounds))
        self._note(checks.too_few_classes(model.classes, self._replaced))
        features = self._examples.take(self._examples.x, sample)
        outputs = flat(model.predict(features, self._size))
        if self._task.loss is None:
            self._note(checks.model_at_chance(report.correct, np.asarray(self._labels)))
            self._note(checks.guessed_outputs(model.guessed, bool(model.from_logits)))
            if not model.decisions:
                kind = bool(model.from_logits)
                self._note(checks.wrong_kind_of_outputs(outputs, kind))
        again = flat(model.predict(features, self._size))
        random = checks.random_model(outputs, again)
        self._note(random)
        # Recurrent states belong to positions in a batch of one size.
        if random is None and not (model.memory() and model.batch_size):
            # The same examples, but every second one first.
            order = np.argsort(np.arange(len(sample)) % 2, kind="stable")
            moved = tf.nest.map_structure(lambda leaf: leaf[order], features)
            size = max(1, min(self._size, (len(sample) + 1) // 2))
            others = flat(model.predict(moved, size))
            self._note(checks.batch_dependent(outputs[order], others))
        first = self._examples.first(model.batch_size or 1)
        if model.is_native:
            self._note(checks.optimizes(model, first))
        gradients = np.zeros([1, 1])
        if self._differentiable:
            # At an error of exactly 0, the gradient of its absolute value is none.
            moving = sample[self._margins[sample] != 0]
            gradients = self._gradients(moving if len(moving) else sample)
        if model.is_native and not model.decisions and not self._replaces:
            self._note(checks.zero_gradients(gradients))
        if isinstance(report.epsilons[-1], float):
            self._note(checks.exploding_gradients(gradients, report.epsilons[-1]))

    def _check_attacks(self) -> None:
        """Runs the checks of what the attacks did."""
        report, examples, model = self.report, self._examples, self._model
        self._note(checks.black_box_beats_white_box(report))
        self._note(checks.certificate_broken(report))
        if self._replaces or self._task.loss:
            return
        epsilon = examples.reach(self._norm)
        if epsilon is None or model.decisions or not model.is_native:
            return
        robust = self._sample[report.robust[-1][self._sample]]
        attack = gradient_attack(self._norm)
        # Steps of the largest radius overshoot where other columns are far smaller, as
        # in a table; what falls within a smaller ball falls within the largest.
        for shrunk in range(_SHRINKINGS if epsilon else 0):
            if len(robust):
                [radius] = read_radii(epsilon / 4**shrunk, examples)[0]
                [found] = self._attack("pgd", attack, [radius], robust)
                robust = np.setdiff1d(robust, found["fallen"])
        accuracy = len(robust) / len(self._sample)
        self._note(checks.robust_at_huge_epsilon(accuracy, model.classes, epsilon))


def joint(parts: dict[str, RobustnessReport]) -> RobustnessReport:
    """Returns the report of several outputs together: all have to be right."""
    reports = list(parts.values())
    report = RobustnessReport(
        reports[0].norm,
        reports[0].epsilons,
        np.logical_and.reduce([part.correct for part in reports]),
        parts=parts,
    )
    proofs = [part.certified for part in reports if part.certified is not None]
    if len(proofs) == len(reports):
        report.certified = np.logical_and.reduce(proofs)
    robust = report.correct_by_epsilon
    for name, part in parts.items():
        for attack, result in part.results.items():
            robust = robust & result.robust
            found = attrs.evolve(result, robust=robust)
            report.results[f"{name}: {attack}"] = found
        report.warnings += [
            attrs.evolve(one, message=f"({name}) {one.message}")
            for one in part.warnings
        ]
        report.assumptions += [f"{name}: {one}" for one in part.assumptions]
        report.gallery += [
            attrs.evolve(
                one,
                label=f"{name} {one.label}",
                predicted=f"{name} {one.predicted}",
                attacked_as=one.attacked_as and f"{name} {one.attacked_as}",
            )
            for one in part.gallery[: _SHOWN // 2]
        ]
    return report


def flat(outputs: Any) -> np.ndarray:
    """Returns outputs as one float64 row for each example."""
    leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(outputs)]
    rows = [leaf.reshape(len(leaf), -1).astype(np.float64) for leaf in leaves]
    return np.concatenate(rows, axis=1)


def _one(values: Any, row: int) -> Any:
    return tf.nest.map_structure(lambda leaf: np.asarray(leaf[row]), values)
