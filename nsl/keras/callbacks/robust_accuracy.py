"""Robust accuracy as a metric of each epoch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from nsl.configs import NormType
from nsl.robustness import RobustnessReport, RobustnessWarning
from nsl.robustness.evaluate import Evaluation

# The drop of robust accuracy, in standard errors, that counts as a collapse.
_STANDARD_ERRORS = 3.0


class RobustAccuracy(keras.callbacks.Callback):
    """Attacks the model after an epoch and logs its robust accuracy.

    The robust accuracy is the fraction of examples that the model classifies correctly
    under all attacks. It is logged as 'robust_accuracy' with the metrics of the epoch.
    Callbacks that use it must come after this one in the list:

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

    The model is evaluated after the first epoch, after every `every_epochs` epochs from
    there, and after the last. Other epochs log the latest value again. `EarlyStopping`
    counts these as epochs without improvement, so its patience must be at least
    `every_epochs`; for n evaluations, n times `every_epochs`.

    Attacks run with `training=False` and change neither weights nor optimizer nor any
    other state. They are compiled once. Arguments that do not fit the model raise an
    error when training begins. The callback skips the checks of `evaluate_robustness`:
    evaluate the trained model with that function and its standard attacks, which are
    far stronger than the quick ones.

    If robust accuracy falls while accuracy under FGSM does not, a `RobustnessWarning`
    reports catastrophic overfitting, where a model is robust to single-step attacks
    only (Wong et al., 2020, https://arxiv.org/abs/2001.03994). This needs `'fgsm'` as
    the first attack, as in the quick ones.

    Args:
      x: The features of the examples, as in `evaluate_robustness`.
      y: The labels of the examples.
      epsilon: The radius of the ball, a number or one for each coordinate.
      norm: The norm of the ball, a `NormType` or its value.
      attacks: The attacks, as in `evaluate_robustness`.
      every_epochs: The number of epochs from one evaluation to the next.
      bounds: `(low, high)`, the range of valid features.
      feature_mask: 0 for features that must not be changed, 1 for others.
      grid: The distance between valid values of features.
      output: The output to evaluate if there are several. None evaluates all jointly.
      loss: The loss that attacks maximize, as in `evaluate_robustness`.
      criterion: What counts as correct, as in `evaluate_robustness`.
      from_logits: Whether the model returns logits. None detects it.
      layer: The layer or layers whose outputs are perturbed instead of the features,
        such as a token embedding.
      batch_size: The number of examples per pass through the model.
      seed: The seed of everything random, the same in each epoch.
      name: The name of the metric.

    Attributes:
      report: The report of the latest evaluation, or None.

    Raises:
      ValueError: If `every_epochs` is less than 1; when training begins, if the
        examples do not fit the model.
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
        """Checks the arguments by one call of the model."""
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
        """Keeps the best report, and warns if the model has collapsed since."""
        best = self._best
        if best is None or _robust(report) >= _robust(best):
            self._best = report
        elif not self._warned and _collapsed(best, report):
            self._warned = True
            warnings.warn(
                "The training has collapsed (catastrophic overfitting): robust "
                f"accuracy fell from {_robust(best):.1%} to {_robust(report):.1%}, "
                "while accuracy under FGSM went from "
                f"{_fgsm_accuracy(best):.1%} to {_fgsm_accuracy(report):.1%}. The "
                "model is robust to single-step attacks only. Train with "
                "nsl.keras.presets.fast, which starts from noise, or with several "
                "steps, and use the weights of the best epoch (ModelCheckpoint).",
                RobustnessWarning,
                stacklevel=2,
            )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Releases the evaluation and its compiled attacks."""
        del logs
        self._evaluation = None


def _robust(report: RobustnessReport) -> float:
    return next(iter(report.robust_accuracy.values()))


def _fgsm_accuracy(report: RobustnessReport) -> float | None:
    """Returns the accuracy under FGSM alone, or None if it is not known."""
    first, *_ = report.accuracy
    return next(iter(report.accuracy[first].values())) if first == "fgsm" else None


def _collapsed(best: RobustnessReport, report: RobustnessReport) -> bool:
    """Returns whether robust accuracy fell, but not accuracy under FGSM."""
    before, now = _fgsm_accuracy(best), _fgsm_accuracy(report)
    if before is None or now is None or now < before:
        return False
    shares = (_robust(best), _robust(report))
    variance = sum(share * (1 - share) for share in shares) / report.num_examples
    return shares[0] - shares[1] > _STANDARD_ERRORS * math.sqrt(variance)
