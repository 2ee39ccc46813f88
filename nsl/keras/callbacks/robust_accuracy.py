"""Accuracy under attack as a metric of each epoch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from nsl.configs import NormType
from nsl.robustness import RobustnessReport, RobustnessWarning
from nsl.robustness.evaluate import Evaluation

# By how many standard errors an accuracy must fall to be taken for a collapse.
_ERRORS = 3.0


class RobustAccuracy(keras.callbacks.Callback):
    """Attacks the model on a sample after an epoch, and logs what stands.

    The share of the examples that withstand all attacks is logged as
    'robust_accuracy', beside the metrics of the epoch. Callbacks that use it must come
    after this one in the list:

    ```python
    model.fit(
        x_train,
        y_train,
        epochs=50,
        callbacks=[
            nsl.keras.callbacks.RobustAccuracy(
                x_val[:500], y_val[:500], epsilon=0.1, bounds=(0.0, 1.0)
            ),
            keras.callbacks.ModelCheckpoint(
                "best.keras", monitor="robust_accuracy", mode="max", save_best_only=True
            ),
            keras.callbacks.EarlyStopping(
                monitor="robust_accuracy", mode="max", patience=5
            ),
        ],
    )
    ```

    The first epoch is evaluated, then every `every_epochs`-th after it, and the last.
    Epochs between log the last value again, so that the metric is always there. To
    `EarlyStopping` these are epochs without improvement: its patience must be at least
    `every_epochs`, or a multiple of it for as many evaluations.

    Attacks run with `training=False` and leave weights, optimizer and all other state
    alone. They are compiled in the first epoch only. What cannot be
    evaluated is refused when training begins. The checks of
    `evaluate_robustness` are left out here: run it on the trained model, with its
    standard attacks, which are far stronger than the quick ones.

    Where fewer examples than before withstand all attacks, but no fewer withstand
    FGSM, a `RobustnessWarning` says so: the training has collapsed onto attacks of one
    step (catastrophic overfitting; Wong et al., 2020,
    https://arxiv.org/abs/2001.03994). That needs `'fgsm'` as the first of the attacks,
    as it is of the quick ones.

    Args:
      x: Features of the sample, as `evaluate_robustness` takes them.
      y: Labels of the sample.
      epsilon: The radius of the ball, one number or one for each coordinate.
      norm: The norm of the ball, a `NormType` or its value.
      attacks: The attacks, as `evaluate_robustness` takes them.
      every_epochs: After how many epochs the model is attacked again.
      bounds: `(low, high)`, the range of valid features.
      feature_mask: Where it is 0 features may not be changed.
      grid: The distance of valid values.
      output: Which of several outputs to evaluate. None takes all jointly.
      loss: What attacks maximize, see `evaluate_robustness`.
      criterion: What is right, see `evaluate_robustness`.
      from_logits: Whether the model gives logits. None finds out.
      layer: The layer, or several, whose outputs are perturbed instead of the features,
        such as the embedding of tokens. Each evaluation starts from what it returns
        then.
      batch_size: How many examples go through the model at once.
      seed: Determines all that is random, the same in each epoch.
      name: The name of the metric.

    Attributes:
      report: The report of the last evaluation, or None.

    Raises:
      ValueError: If `every_epochs` is less than 1; when training begins, if the sample
        does not fit the model.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        epsilon: Any = None,
        *,
        norm: NormType | str = NormType.INFINITY,
        attacks: str | Sequence[Any] | Mapping[str, Any] = "quick",
        every_epochs: int = 1,
        bounds: Any = None,
        feature_mask: Any = None,
        grid: Any = None,
        output: Any = None,
        loss: Any = None,
        criterion: Any = None,
        from_logits: bool | None = None,
        layer: str | Sequence[str] | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        name: str = "robust_accuracy",
    ) -> None:
        super().__init__()
        if every_epochs < 1:
            raise ValueError(
                f"every_epochs must be at least 1, but received {every_epochs!r}."
            )
        self.report: RobustnessReport | None = None
        self._best: RobustnessReport | None = None
        self._warned = False
        self._every_epochs = every_epochs
        self._name = name
        self._evaluation: Evaluation | None = None
        self._first_epoch = 0
        self._settings = {
            "x": x,
            "y": y,
            "epsilons": [epsilon] if isinstance(epsilon, Mapping) else epsilon,
            "norm": norm,
            "attacks": attacks,
            "bounds": bounds,
            "feature_mask": feature_mask,
            "grid": grid,
            "output": output,
            "loss": loss,
            "criterion": criterion,
            "from_logits": from_logits,
            "layer": layer,
            "batch_size": batch_size,
            "seed": seed,
            "check": False,
            "verbose": False,
        }

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Reads the arguments and calls the model once, so that errors come now."""
        del logs
        self.report, self._best, self._warned = None, None, False
        self._evaluation = Evaluation(model=self.model, **self._settings)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the robust accuracy to the logs of the epoch."""
        if self.report is None:
            self._first_epoch = epoch
        due = (epoch - self._first_epoch) % self._every_epochs == 0
        if due or epoch + 1 == self.params.get("epochs"):
            assert self._evaluation is not None
            self.report = self._evaluation.run()
            self._compare(self.report)
        if logs is not None and self.report is not None:
            logs[self._name] = _robust(self.report)

    def _compare(self, report: RobustnessReport) -> None:
        """Notes the best report, and warns if this one is of a collapsed model."""
        best = self._best
        if best is None or _robust(report) >= _robust(best):
            self._best = report
        elif not self._warned and _collapsed(best, report):
            self._warned = True
            warnings.warn(
                f"The training has collapsed: {_robust(report):.1%} of the examples "
                f"withstand all attacks, after {_robust(best):.1%} before, and "
                f"{_one_step(report):.1%} withstand one step, after "
                f"{_one_step(best):.1%}. The model has learned to withstand one step "
                "and nothing else (catastrophic overfitting). Train with "
                "nsl.keras.presets.fast, which begins in noise, or with several "
                "steps, and take the weights of the best epoch (ModelCheckpoint).",
                RobustnessWarning,
                stacklevel=2,
            )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Drops the evaluation and what it compiled."""
        del logs
        self._evaluation = None


def _robust(report: RobustnessReport) -> float:
    return next(iter(report.robust_accuracy.values()))


def _one_step(report: RobustnessReport) -> float | None:
    """Returns the accuracy under FGSM alone, if that is known."""
    first, *_ = report.accuracy
    return next(iter(report.accuracy[first].values())) if first == "fgsm" else None


def _collapsed(best: RobustnessReport, report: RobustnessReport) -> bool:
    """Tells whether attacks of several steps alone succeed more often than before."""
    before, now = _one_step(best), _one_step(report)
    if before is None or now is None or now < before:
        return False
    shares = (_robust(best), _robust(report))
    variance = sum(share * (1 - share) for share in shares) / report.num_examples
    return shares[0] - shares[1] > _ERRORS * math.sqrt(variance)
