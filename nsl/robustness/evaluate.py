"""Accuracy under attack, and how far it can be believed."""

import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from nsl.attacks import Attack
from nsl.configs import NormType
from nsl.robustness import checks
from nsl.robustness.checkpoint import Checkpoint, digest
from nsl.robustness.classifier import Classifier
from nsl.robustness.examples import Examples
from nsl.robustness.findings import Finding, RobustnessWarning
from nsl.robustness.report import AttackResult, RobustnessReport
from nsl.robustness.suites import choose_attacks, gradient_attack

_BATCH_SIZE = 128
_CHECKED_EXAMPLES = 100
_COMPARED_EXAMPLES = 8
_LONG = 200


def evaluate_robustness(
    model: Callable[..., Any],
    x: Any,
    y: Any,
    epsilons: float | Sequence[float],
    norm: NormType | str = NormType.INFINITY,
    attacks: str | Sequence[Any] | Mapping[str, Any] = "standard",
    *,
    bounds: Any = None,
    feature_mask: Any = None,
    from_logits: bool | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    cascade: bool = True,
    check: bool = True,
    resume: str | os.PathLike[str] | None = None,
    verbose: bool = True,
) -> RobustnessReport:
    """Measures the accuracy of a classifier on clean and on attacked examples.

    An example withstands an epsilon if no attack finds a point of the ball around it,
    and of the bounds, that the model gives another class. Every point is checked in a
    pass of its own, whatever the attack says. What falls at one epsilon falls at all
    larger ones.

    ```python
    report = nsl.evaluate_robustness(
        model, x_test, y_test, epsilons=[0.1, 0.2, 0.3], bounds=(0.0, 1.0)
    )
    print(report)
    report.plot("robustness.png")
    ```

    Args:
      model: A callable from a batch of features to logits or probabilities of shape
        [batch, classes] (or [batch, 1] for two classes), as a Keras model. It is
        called with `training=False` if it takes that.
      x: Features: an array or tensor, or a structure of them, examples first.
      y: Labels: class numbers of shape [examples] or [examples, 1], or one-hot rows.
      epsilons: The radius of the ball around each example, or several. One joint norm
        is taken over all features of an example.
      norm: The norm of the ball, a `NormType` or its value.
      attacks: 'standard' for the attacks of AutoAttack (Croce and Hein, 2020,
        https://arxiv.org/abs/2003.01690): Auto-PGD on the cross-entropy and on the
        targeted difference of logits ratio, targeted FAB, Square; 'quick' for ten
        steps of PGD; a list of names and `nsl.attacks` objects; or a dict from name to
        such an object or any callable with the arguments of `nsl.attacks.Attack`.
      bounds: `(low, high)`, the range of valid features, each a number, an array, or a
        structure of them keyed by feature. None: there is none.
      feature_mask: Where it is 0 features may not be changed; a number, an array, or a
        structure of them keyed by feature.
      from_logits: Whether the model gives logits. None finds out: they are
        probabilities if no output is negative and rows sum to 1.
      batch_size: How many examples go through the model at once. None leaves it to
        the attacks.
      seed: Determines all that is random in the attacks.
      cascade: Whether each attack only tries what those before it left standing, which
        saves most of the time. If not, each tries all examples, and the report has the
        accuracy under each attack alone. The worst case may only differ by chance.
      check: Whether to look for the known ways to fool oneself, see
        `nsl.robustness.checks`. Each finding is in the report and a
        `RobustnessWarning`.
      resume: A file that keeps finished parts. If it is there, the evaluation goes on
        from it.
      verbose: Whether progress is shown, on a terminal.

    Returns:
      The report.

    Raises:
      ValueError: If features, labels, epsilons or attacks do not fit, or `resume` is
        the file of another evaluation.
    """
    norm = NormType(norm)
    radii = _radii(epsilons)
    examples = Examples(x, y, bounds)
    sample = _sample(len(examples), seed)
    classifier = Classifier(
        model, from_logits, examples.take(sample), batch_size or _BATCH_SIZE
    )
    logits = classifier.logits(examples.x)
    correct = _is_correct(logits, examples.labels)
    chosen, replaced = choose_attacks(attacks, norm, classifier.classes)
    evaluation = _Evaluation(
        examples=examples,
        classifier=classifier,
        differentiable=classifier.is_differentiable(examples.take(sample)),
        norm=norm,
        arguments={
            "bounds": bounds,
            "feature_mask": feature_mask,
            "from_logits": classifier.from_logits,
            "batch_size": batch_size,
            "verbose": verbose,
        },
        checkpoint=Checkpoint(
            resume,
            {
                "x": digest(examples.x),
                "y": digest(examples.labels),
                "norm": norm.value,
                "epsilons": radii,
                "attacks": {name: _describe(a) for name, a in chosen.items()},
                "bounds": _describe_values(bounds),
                "feature_mask": _describe_values(feature_mask),
                "from_logits": classifier.from_logits,
                "batch_size": batch_size,
                "seed": seed,
                "cascade": cascade,
            },
            logits[:_COMPARED_EXAMPLES],
        ),
        report=RobustnessReport(norm, tuple(radii), correct, cascade=cascade),
    )
    if check:
        evaluation.check_model(sample, from_logits, replaced)
    for name, attack in chosen.items():
        evaluation.run(name, attack, seed)
    if check:
        evaluation.check_attacks(sample, seed)
    for finding in evaluation.report.warnings:
        warnings.warn(str(finding), RobustnessWarning, stacklevel=2)
    return evaluation.report


@attrs.define
class _Evaluation:
    """A report in the making."""

    examples: Examples
    classifier: Classifier
    differentiable: bool
    norm: NormType
    arguments: dict[str, Any]
    checkpoint: Checkpoint
    report: RobustnessReport

    def run(self, name: str, attack: Any, seed: int) -> None:
        """Runs an attack at every epsilon, smallest first."""
        report = self.report
        before = report.standing if report.cascade else None
        if before is None:
            before = np.tile(report.correct, (len(report.epsilons), 1))
        result = AttackResult(
            standing=before.copy(),
            seconds=[0.0] * len(report.epsilons),
            model_passes=[0] * len(report.epsilons),
            black_box=getattr(attack, "black_box", False),
        )
        outside = np.zeros(len(report.epsilons))
        for part in self._parts(attack):
            self._run_part(name, attack, seed, part, result, outside)
        report.results[name] = result
        worst = int(np.argmax(outside))
        self.note(checks.left_the_ball(name, outside[worst], report.epsilons[worst]))

    def _parts(self, attack: Any) -> list[list[int]]:
        """Lists the epsilons that an attack handles together."""
        positions = list(range(len(self.report.epsilons)))
        if getattr(attack, "minimum_norm", False):
            return [positions]
        return [[i] for i in positions]

    def _run_part(
        self,
        name: str,
        attack: Any,
        seed: int,
        part: list[int],
        result: AttackResult,
        outside: np.ndarray,
    ) -> None:
        epsilons = [self.report.epsilons[i] for i in part]
        kept = [self.checkpoint.finished(name, epsilon) for epsilon in epsilons]
        results = [found for found in kept if found is not None]
        if len(results) < len(kept):
            results = self._attack(attack, seed, epsilons, result.standing[part[0]])
            self.checkpoint.add(name, dict(zip(epsilons, results, strict=True)))
        for i, found in zip(part, results, strict=True):
            result.standing[i:, found["fallen"]] = False
            result.seconds[i] = found["seconds"]
            result.model_passes[i] = found["model_passes"]
            outside[i] = found["outside"]
            self._show(name, i, result)

    def _attack(
        self, attack: Any, seed: int, epsilons: list[float], standing: np.ndarray
    ) -> list[dict[str, Any]]:
        """Runs an attack at some epsilons on the examples that stand."""
        index = np.flatnonzero(standing)
        start, passes = time.monotonic(), self.classifier.counted.count
        found: list[Any] = []
        if not self.differentiable and _follows_gradients(attack):
            # There is nothing to follow, and the attack would refuse the model.
            found = [self.examples.take(index)] * len(epsilons)
        elif len(index):
            together = len(epsilons) > 1
            points = attack(
                self.classifier.counted,
                self.examples.take(index),
                self.examples.labels[index],
                epsilon=epsilons if together else epsilons[0],
                seed=seed,
                **self.arguments,
            )
            found = points if together else [points]
        results = []
        for i, epsilon in enumerate(epsilons):
            fallen, outside = index, np.zeros(len(index), bool)
            if len(index):
                outside = self.examples.outside(found[i], index, epsilon, self.norm)
                logits = self.classifier.logits(found[i])
                wrong = ~_is_correct(logits, self.examples.labels[index])
                fallen = index[wrong & ~outside]
            results.append(
                {
                    "fallen": fallen.tolist(),
                    "outside": float(np.mean(outside)) if len(index) else 0.0,
                    "seconds": 0.0 if i else time.monotonic() - start,
                    "model_passes": 0 if i else self.classifier.counted.count - passes,
                }
            )
        return results

    def _show(self, name: str, i: int, result: AttackResult) -> None:
        if self.arguments["verbose"] and sys.stderr.isatty():
            print(
                f"{name}, epsilon {self.report.epsilons[i]:g}: "
                f"{result.standing[i].mean():.1%} stand, {result.seconds[i]:.1f} s",
                file=sys.stderr,
            )

    def note(self, finding: Finding | None) -> None:
        """Adds a finding to the report."""
        if finding is not None:
            self.report.warnings.append(finding)

    def check_model(
        self, sample: np.ndarray, from_logits: bool | None, replaced: list[str]
    ) -> None:
        """Runs the checks that need no attack, those of passes on a sample."""
        examples, bounds = self.examples, self.arguments["bounds"]
        self.note(checks.inputs_out_of_bounds(examples.excess(), bounds))
        self.note(checks.model_at_chance(self.report.correct, examples.labels))
        self.note(checks.too_few_classes(self.classifier.classes, replaced))
        features = examples.take(sample)
        outputs = self.classifier.outputs(features)
        if outputs.ndim == 2 and outputs.shape[1] > 1 and from_logits is not None:
            self.note(checks.probabilities_as_logits(outputs, from_logits))
            self.note(checks.logits_as_probabilities(outputs, from_logits))
        again = self.classifier.outputs(features)
        self.note(checks.random_model(outputs, again))
        gradients = self.classifier.gradients(features, examples.labels[sample])
        self.note(checks.zero_gradients(gradients))
        largest = self.report.epsilons[-1]
        self.note(checks.exploding_gradients(gradients, largest))

    def check_attacks(self, sample: np.ndarray, seed: int) -> None:
        """Runs the checks of what the attacks did."""
        self.note(checks.black_box_beats_white_box(self.report))
        epsilon = self.examples.diameter(self.norm)
        attack = gradient_attack(self.norm)
        standing = np.zeros(len(self.examples), bool)
        standing[sample] = self.report.standing[-1][sample]
        if np.any(standing):
            [found] = self._attack(attack, seed, [epsilon], standing)
            standing[found["fallen"]] = False
        accuracy = float(np.mean(standing[sample]))
        self.note(
            checks.stands_at_huge_epsilon(accuracy, self.classifier.classes, epsilon)
        )


def _radii(epsilons: float | Sequence[float]) -> list[float]:
    radii = sorted({float(epsilon) for epsilon in np.atleast_1d(epsilons)})
    if not radii or not all(np.isfinite(radii)) or radii[0] <= 0.0:
        raise ValueError(
            "epsilons must be a number greater than 0, or several of them, but "
            f"received {epsilons!r}."
        )
    return radii


def _sample(count: int, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(abs(seed)).permutation(count)[:_CHECKED_EXAMPLES]
    return np.sort(drawn)


def _is_correct(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Tells which examples get their label; one with a logit of NaN does not."""
    return (np.argmax(logits, axis=1) == labels) & ~np.isnan(logits).any(axis=1)


def _follows_gradients(attack: Any) -> bool:
    return isinstance(attack, Attack) and not attack.black_box


def _describe(attack: Any) -> str:
    """Returns what tells the settings of an attack, if it does."""
    if attrs.has(type(attack)):
        return repr(attack)
    return getattr(attack, "__qualname__", type(attack).__qualname__)


def _describe_values(values: Any) -> str:
    """Returns what tells numbers and arrays from others, readable where short."""
    text = repr(values)
    return text if len(text) < _LONG else digest(values)
