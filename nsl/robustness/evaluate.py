"""Evaluation of robust accuracy under attacks."""

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
    joint,
)
from nsl.robustness.suites import choose_attacks, follows_gradients, gradient_attack
from nsl.robustness.tasks import Column, choose_task

_BATCH_SIZE = 128
_CHECKED_EXAMPLES = 100
_SHOWN = 6
# The number of radii to try at huge epsilon, each a quarter of the last.
_SHRINKINGS = 9
_NO_GRADIENTS = (
    "The model computes outside of TensorFlow, so it has no gradients: attacks that "
    "need them were skipped."
)
_PROVEN = (
    "An example is certified if interval bounds prove that no point of the ball "
    "changes its class. The proof uses float32, with a margin of 1e-5 for rounding."
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
    """Evaluates a model's accuracy on clean and adversarial examples.

    An example is robust at an epsilon if no attack finds an adversarial example within
    the ball around it and the bounds. Every point that an attack returns is verified by
    a separate forward pass. An example that is not robust at one epsilon is not robust
    at any larger one.

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
        scikit-learn's `predict_proba` or, for attacks on class labels, `predict`. (In a
        custom function, `model(x)` is far faster than `model.predict(x)`.)
      x: Features: an array or tensor, or a structure of them, of shape [examples, ...];
        or batches, such as a tf.data.Dataset, which may include the labels.
      y: Labels: classes, integers of shape [examples] or [examples, 1], or one-hot
        rows; with `loss` or `criterion`, any structure they take. None if `x` includes
        them.
      epsilons: The radius of the ball around each example, or several, in the joint
        norm of all features. A radius is a number, or one number per coordinate: a dict
        by feature, or an array of a feature's shape.
      norm: The norm of the ball: a `NormType`, its value, or a `nsl.lib.Norm`; 'l0' for
        `nsl.attacks.Substitution`, where epsilon is the number of replaced columns.
      attacks: A suite: 'standard' for the attacks and settings of AutoAttack (Croce and
        Hein, 2020, https://arxiv.org/abs/2003.01690), 'plus' for its longer version,
        'rand' for randomized models, 'quick' for FGSM and ten steps of PGD; a list of
        names and `nsl.attacks` objects; or a dict from name to such an object or any
        callable with the arguments of `nsl.attacks.Attack`. With a loss, the suites are
        Auto-PGD and Square on that loss; for a model that outputs only class labels,
        HopSkipJump.
      bounds: The pair (low, high) of valid feature values; like `feature_mask`, `grid`
        and `layer`, as in `nsl.attacks.Attack`.
      feature_mask: Features with factor 0 are not perturbed.
      grid: The spacing of valid values, such as 1/255 for 8-bit images.
      from_logits: Whether the model outputs logits. None detects it; the report says
        how.
      output: Which of several outputs to evaluate: a key, a position, or a function of
        all outputs. None evaluates each separately (`report.parts`) and all jointly: an
        example is robust if all of its outputs are.
      loss: The loss that attacks maximize: a function of (y, outputs) that returns one
        value per example. None uses the loss of the criterion.
      criterion: When an example is correct: `nsl.robustness.Within(tolerance)` for
        regression, `nsl.robustness.ShareRight(share)` for segmentation and sequences,
        'exact_match' or 'per_label' for multi-label models (per label: each separately
        and all jointly), or a function of (y, outputs) that returns one bool per
        example. For several outputs, a dict of them. None infers it from the compiled
        loss of a Keras model, or assumes one class per example; the report says which.
      layer: The name of a layer of a Keras model, or several, whose outputs to perturb
        instead of the features. There may be no input, such as a text, that produces
        the perturbed outputs.
      batch_size: The number of examples per batch. None leaves it to the attacks.
      seed: Determines all random numbers of the attacks.
      cascade: Whether each attack runs only on examples that are still robust after the
        previous ones and not certified, which saves most of the time. Otherwise each
        attack runs on all examples, and the report has the accuracy under each attack.
      check: Whether to check for known pitfalls, see `nsl.robustness.checks`. Each
        finding is in the report and raises a `RobustnessWarning`.
      certify: Whether to count the examples that interval bounds prove robust, see
        `nsl.lib.interval_bounds`. The report then has a `certified_accuracy`, which is
        never above the robust accuracy. Needs a sequential or functional Keras model of
        one class per example.
      resume: A file of finished parts. If it exists, the evaluation resumes from it,
        provided that all settings are the same.
      verbose: Whether to show progress on a terminal.

    Returns:
      The report.

    Raises:
      ValueError: If features, labels, epsilons or attacks do not fit, or `resume`
        belongs to another evaluation.
      TypeError: If the model is not callable.
    """
    report = Evaluation(**locals()).run(as_read=True)
    for finding in report.warnings:
        warnings.warn(str(finding), RobustnessWarning, stacklevel=2)
    return report


class Evaluation:
    """An evaluation with validated arguments, those of `evaluate_robustness`.

    It can be run repeatedly while the model is trained.
    """

    def __init__(self, **arguments: Any) -> None:
        bound = inspect.signature(evaluate_robustness).bind(**arguments)
        bound.apply_defaults()
        given = self._given = dict(bound.arguments)
        self._at_layer: AtLayer | None = None
        self._layer_note: list[str] = []
        self._is_l0 = given["norm"] == Substitution.norm
        if given["layer"] is not None:
            self._use_layer_outputs()
        limits = {name: given[name] for name in ("bounds", "feature_mask", "grid")}
        # Replaced columns may have any dtype, and have no gradients.
        if self._is_l0 and any(value is not None for value in limits.values()):
            raise ValueError(
                "norm='l0' supports none of bounds, feature_mask and grid: the "
                "replacements determine the allowed values."
            )
        self._norm = given["norm"] if self._is_l0 else as_norm(given["norm"])
        examples = self._examples = Examples(
            given["x"], given["y"], **limits, perturbed=not self._is_l0
        )
        self._radii, self._assumed = read_radii(given["epsilons"], examples)
        if examples.y is None:
            raise ValueError("y is needed, unless x has batches of (features, labels).")
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

        With `as_read`, the model has not changed since the arguments were read, so the
        outputs computed then are reused.
        """
        if self._at_layer is not None and not as_read:
            self._at_layer.refresh()
        if self.parts:
            report = joint(
                {name: part.run(as_read) for name, part in self.parts.items()},
                shown=_SHOWN // 2,
            )
            report.assumptions += self._layer_note
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
                *([] if model.is_native or self._is_l0 else [_NO_GRADIENTS]),
                *self._task.assumptions,
                *self._assumed,
                *self._layer_note,
            ],
        )
        self._fooled: dict[int, GalleryExample] = {}
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

    def _use_layer_outputs(self) -> None:
        """Replaces the features by the outputs of layers."""
        given = self._given
        if self._is_l0:
            raise ValueError(
                "norm='l0' replaces columns of the features, but received layer="
                f"{given['layer']!r}. Omit layer, or choose another norm."
            )
        size = given["batch_size"] or _BATCH_SIZE
        at_layer = self._at_layer = AtLayer(
            given["model"], given["layer"], given["x"], given["y"], size
        )
        bounds, mask = at_layer.limits(given["bounds"], given["feature_mask"])
        given |= {"model": at_layer, "x": at_layer.features, "y": at_layer.y}
        given |= {"layer": None, "bounds": bounds, "feature_mask": mask}
        names = " and ".join(f"'{name}'" for name in at_layer.names)
        self._layer_note = [
            f"Attacks perturb the outputs of layer {names}, not the features: there "
            "may be no input, such as a text, that produces these points."
        ]

    def _parts(self, outputs: Any) -> dict[str, dict[str, Any]]:
        """Returns the arguments of the partial evaluations, if there are several."""
        given: dict[str, Any] = self._given
        y: Any = self._examples.y
        shape = (self._examples.count, *np.shape(outputs)[1:])
        criterion = given["criterion"]
        parts: dict[str, dict[str, Any]]
        if isinstance(criterion, str) and criterion == "per_label":
            if np.ndim(y) != 2 or np.shape(y) != shape:
                raise ValueError(
                    "criterion='per_label' needs labels and outputs of the same shape "
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
                    f"The model's outputs are {names}: y must have labels for each of "
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
        """Chooses the criterion and the attacks, given the outputs of a sample."""
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
        """Raises ValueError if interval bounds cannot certify this evaluation."""
        norms = [norm.value for norm in NormType]
        name = getattr(self._norm, "value", self._norm)
        of_layer, of_function = self._layer_note, callable(self._given["output"])
        of_classes = self._task.of_classes and not of_layer and not of_function
        if name not in norms or not of_classes:
            raise ValueError(
                "certify=True needs an output with one class per example, perturbed "
                f"features and one of the norms {', '.join(norms)}, but this "
                "evaluation is of another kind. Omit certify."
            )

    def _certify(self) -> None:
        """Adds the certified examples to the report."""
        arguments = self._model, self._examples
        self.report.certified = np.stack(
            [
                certified(*arguments, radius.limits, self._labels, self._size)
                for radius in self._radii
            ]
        )
        self.report.assumptions.append(_PROVEN)

    def _settings(self) -> dict[str, Any]:
        """Returns texts of everything that the results depend on, for `resume`."""
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
        """Returns logits, or the outputs if a loss is attacked."""
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
        if not model.is_native or model.decisions or self._is_l0:
            return False
        try:
            self._gradients(self._sample[:1])
        except NoGradientError:
            return False
        return True

    def _run(self, name: str, attack: Any) -> None:
        """Runs an attack at every epsilon, in ascending order."""
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
                attacked = result.robust[group[0]]
                if report.cascade and report.certified is not None:
                    attacked = attacked & ~report.certified[group[-1]]
                index = np.flatnonzero(attacked)
                finished = self._attack(name, attack, [radii[k] for k in group], index)
                self._checkpoint.add(name, dict(zip(keys, finished, strict=True)))
            for k, found in zip(group, finished, strict=True):
                larger = [j for j in range(count) if radii[k].is_in(radii[j])]
                result.robust[np.ix_(larger, found["fallen"])] = False
                result.seconds[k] = found["seconds"]
                result.model_passes[k] = found["model_passes"]
                outside[k] = found["outside"]
                for one in found["shown"]:
                    self._fooled.setdefault(one["index"], GalleryExample(**one))
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
        """Runs an attack on some examples; returns JSON values for each epsilon."""
        model, given, count = self._model, self._given, len(radii)
        start, passes = time.monotonic(), model.passes
        if not len(index) or (follows_gradients(attack) and not self._differentiable):
            # Without gradients, the attack would raise an error.
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
            outside, fooled, shown = np.zeros(1, bool), np.zeros(0, bool), []
            if len(index):
                outside = ~self._allowed(attack, points, index, radius.limits)
                outputs = self._predict(points)
                labels = self._examples.take(self._labels, index)
                fooled = ~self._task.right(labels, outputs) & ~outside
                rows = np.flatnonzero(fooled)
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
                    "fallen": index[fooled].tolist(),
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
        """Returns which points are allowed, bool of shape [examples].

        Raises:
          ValueError: If the points do not have the shapes of the features.
        """
        shapes = [np.shape(leaf) for leaf in tf.nest.flatten(found)]
        expected = [(len(index), *leaf.shape[1:]) for leaf in self._examples.leaves]
        if shapes != expected:
            name = getattr(attack, "__name__", type(attack).__name__)
            raise ValueError(
                f"The attack {name!r} must return features of the shapes that it "
                f"receives, {expected}, but returned shapes {shapes}."
            )
        if self._is_l0:
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
        """Adds the most fragile and the most robust examples to the report."""
        margins, fooled = self._margins, self._fooled
        keys = [one.key for one in self._radii]
        weak = sorted(fooled, key=lambda i: (keys.index(fooled[i].epsilon), margins[i]))
        hardy = np.flatnonzero(self.report.robust.all(axis=0))
        hardy = hardy[np.argsort(-margins[hardy], kind="stable")]
        self.report.gallery += [fooled[i] for i in weak[:_SHOWN]]
        self.report.gallery += [self._shown(int(i)) for i in hardy[:_SHOWN]]

    def _note(self, finding: Finding | None) -> None:
        if finding is not None:
            self.report.warnings.append(finding)

    def _check_model(self) -> None:
        """Runs the checks that need no attack, on a sample."""
        model, report, sample = self._model, self.report, self._sample
        if not self._is_l0:
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
        # Recurrent states depend on the position in the batch.
        if random is None and not (model.memory() and model.batch_size):
            # The same examples, with every second one first.
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
            # An absolute error of exactly 0 has gradient 0.
            moving = sample[self._margins[sample] != 0]
            rows = moving if len(moving) else sample
            gradients = self._gradients(rows)
            if model.takes_logarithms and self._task.loss is None:
                gradients[checks.are_saturated(self._outputs[rows])] = 0.0
        if model.is_native and not model.decisions and not self._is_l0:
            self._note(checks.zero_gradients(gradients))
        if isinstance(report.epsilons[-1], float):
            self._note(checks.exploding_gradients(gradients, report.epsilons[-1]))

    def _check_attacks(self) -> None:
        """Runs the checks of the results of the attacks."""
        report, examples, model = self.report, self._examples, self._model
        self._note(checks.black_box_beats_white_box(report))
        self._note(checks.certificate_broken(report))
        if self._is_l0 or self._task.loss:
            return
        epsilon = examples.reach(self._norm)
        if epsilon is None or model.decisions or not model.is_native:
            return
        robust = self._sample[report.robust[-1][self._sample]]
        attack = gradient_attack(self._norm)
        # Steps for the largest radius overshoot in columns of a far smaller scale. An
        # adversarial example within a smaller ball is within the largest one too.
        for shrunk in range(_SHRINKINGS if epsilon else 0):
            if len(robust):
                [radius] = read_radii(epsilon / 4**shrunk, examples)[0]
                [found] = self._attack("pgd", attack, [radius], robust)
                robust = np.setdiff1d(robust, found["fallen"])
        accuracy = len(robust) / len(self._sample)
        self._note(checks.robust_at_huge_epsilon(accuracy, model.classes, epsilon))


def flat(outputs: Any) -> np.ndarray:
    """Flattens outputs to one float64 row per example."""
    leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(outputs)]
    rows = [leaf.reshape(len(leaf), -1).astype(np.float64) for leaf in leaves]
    return np.concatenate(rows, axis=1)


def _one(values: Any, row: int) -> Any:
    return tf.nest.map_structure(lambda leaf: np.asarray(leaf[row]), values)
