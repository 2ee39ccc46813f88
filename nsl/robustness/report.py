"""The report of a robustness evaluation."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from nsl.configs import NormType
from nsl.robustness.gallery import GalleryExample, from_json, to_json

_VERSION = 2
_NORM_NAMES: dict[NormType | str, str] = {
    "l0": "L0",
    NormType.L1: "L1",
    NormType.L2: "L2",
    NormType.INFINITY: "L-infinity",
}


def norm_name(norm: NormType | str) -> str:
    """Returns the display name of a norm."""
    return _NORM_NAMES.get(norm, str(norm))


def _norm(norm: Any) -> NormType | str:
    """Returns a `NormType`, or the name of a norm that has none."""
    name = getattr(norm, "value", norm)
    return NormType(name) if name in [one.value for one in NormType] else str(name)


class RobustnessWarning(UserWarning):
    """Warns that the measured robustness may be misleading."""


@attrs.frozen
class Finding:
    """A warning in a robustness report.

    Attributes:
      name: The name of the check, such as 'zero_gradients'.
      message: What was found, the threshold, and what to do.
    """

    name: str
    message: str

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"


@attrs.define
class AttackResult:
    """The result of one attack.

    Attributes:
      robust: Whether each example is still classified correctly, bool of shape
        [epsilons, examples]. In a cascade: after this attack and all previous ones.
      seconds: The run time in seconds at each epsilon. An attack that covers all
        epsilons in one run has it at the first one.
      model_passes: The number of examples that passed forward through the model, at
        each epsilon, including padding.
      black_box: Whether the attack uses only outputs of the model.
    """

    robust: np.ndarray = attrs.field(eq=attrs.cmp_using(eq=np.array_equal))
    seconds: list[float]
    model_passes: list[int]
    black_box: bool = False


@attrs.define
class RobustnessReport:
    """The accuracy of a model on clean and adversarial examples.

    `print` shows it as a table. All shares are relative to all examples, including
    those misclassified without an attack.

    Attributes:
      norm: The norm of the perturbations.
      epsilons: The radii, in ascending order; texts for radii per coordinate.
      correct: Whether each clean example is classified correctly, bool of shape
        [examples].
      results: The result of each attack, by name, in the order they ran.
      cascade: Whether each attack ran only on examples still robust after the previous
        ones.
      warnings: Reasons to doubt the results, see `nsl.robustness.checks`.
      assumptions: Sentences about what was assumed where nothing was specified.
      gallery: Some of the examples, to look at.
      certified: Whether interval bounds prove each example robust, bool of shape
        [epsilons, examples]; None unless requested.
      parts: For a model of several outputs or labels, the report of each, by name; this
        report is then the joint one.
    """

    norm: NormType | str = attrs.field(converter=_norm)
    epsilons: tuple[Any, ...]
    correct: np.ndarray = attrs.field(eq=attrs.cmp_using(eq=np.array_equal))
    results: dict[str, AttackResult] = attrs.field(factory=dict)
    cascade: bool = True
    warnings: list[Finding] = attrs.field(factory=list)
    assumptions: list[str] = attrs.field(factory=list)
    gallery: list[GalleryExample] = attrs.field(factory=list)
    parts: "dict[str, RobustnessReport]" = attrs.field(factory=dict)
    certified: np.ndarray | None = attrs.field(
        default=None, eq=attrs.cmp_using(eq=np.array_equal)
    )

    @property
    def num_examples(self) -> int:
        """The number of examples."""
        return len(self.correct)

    @property
    def clean_accuracy(self) -> float:
        """The share of examples classified correctly without an attack."""
        return float(np.mean(self.correct))

    @property
    def correct_by_epsilon(self) -> np.ndarray:
        """`correct` for each epsilon, bool of shape [epsilons, examples]."""
        return np.tile(self.correct, (len(self.epsilons), 1))

    @property
    def robust(self) -> np.ndarray:
        """Whether each example is robust to all attacks, bool [epsilons, examples]."""
        robust = self.correct_by_epsilon
        for result in self.results.values():
            robust &= result.robust
        return robust

    @property
    def robust_accuracy(self) -> dict[Any, float]:
        """The share of examples that are robust to all attacks, by epsilon."""
        return self._shares(self.robust)

    @property
    def certified_accuracy(self) -> dict[Any, float]:
        """The share of examples that are proven robust, by epsilon; or an empty dict.

        It is a lower bound of the accuracy under the strongest possible attack, for
        which `robust_accuracy` is an upper bound.
        """
        return {} if self.certified is None else self._shares(self.certified)

    @property
    def accuracy(self) -> dict[str, dict[Any, float]]:
        """The share of examples still robust after each attack, by name and epsilon.

        In a cascade, this is after that attack and all previous ones.
        """
        return {name: self._shares(one.robust) for name, one in self.results.items()}

    def _shares(self, examples: np.ndarray) -> dict[Any, float]:
        shares = map(float, examples.mean(axis=1))
        return dict(zip(self.epsilons, shares, strict=True))

    def to_json(self) -> str:
        """Returns the report as JSON, including the results of each example."""
        data = {"version": _VERSION, **self._to_data()}
        return json.dumps(data, indent=2, default=to_json)

    def _to_data(self) -> dict[str, Any]:
        return {
            "norm": getattr(self.norm, "value", self.norm),
            "epsilons": self.epsilons,
            "clean_accuracy": self.clean_accuracy,
            "robust_accuracy": list(self.robust_accuracy.values()),
            "certified": None
            if self.certified is None
            else [_to_bits(row) for row in self.certified],
            "correct": _to_bits(self.correct),
            "cascade": self.cascade,
            "results": {
                name: {
                    **attrs.asdict(result),
                    "robust": [_to_bits(row) for row in result.robust],
                }
                for name, result in self.results.items()
            },
            "warnings": [attrs.asdict(finding) for finding in self.warnings],
            "assumptions": self.assumptions,
            "gallery": [attrs.asdict(one, recurse=False) for one in self.gallery],
            "parts": {name: part._to_data() for name, part in self.parts.items()},
        }

    @classmethod
    def from_json(cls, text: str) -> "RobustnessReport":
        """Restores a report from the result of `to_json`.

        Args:
          text: The JSON.

        Returns:
          An equal report.

        Raises:
          ValueError: If `text` is not such JSON, or of a later version.
        """
        data = json.loads(text, object_hook=from_json)
        if not isinstance(data, Mapping) or "version" not in data:
            raise ValueError(
                "Expected JSON from RobustnessReport.to_json, but received "
                f"{text[:60]!r}."
            )
        if data["version"] > _VERSION:
            raise ValueError(
                f"The report has version {data['version']}, but this nsl reads "
                f"versions up to {_VERSION}: update nsl."
            )
        return cls._from_data(data)

    @classmethod
    def _from_data(cls, data: Mapping[str, Any]) -> "RobustnessReport":
        parts, certified = data.get("parts", {}), data.get("certified")
        return cls(
            norm=data["norm"],
            epsilons=tuple(data["epsilons"]),
            correct=_from_bits(data["correct"]),
            cascade=data["cascade"],
            certified=None
            if certified is None
            else np.array([*map(_from_bits, certified)]),
            results={
                name: AttackResult(
                    **{
                        **result,
                        "robust": np.array([*map(_from_bits, result["robust"])]),
                    }
                )
                for name, result in data["results"].items()
            },
            warnings=[Finding(**finding) for finding in data["warnings"]],
            assumptions=data.get("assumptions", []),
            gallery=[GalleryExample(**one) for one in data.get("gallery", [])],
            parts={name: cls._from_data(part) for name, part in parts.items()},
        )

    def table(self) -> list[list[str]]:
        """Returns the rows of the report's table as text, header first."""
        clean = [percent(self.clean_accuracy)] * len(self.epsilons)
        header = ["", *map(radius_text, self.epsilons), "seconds", "passes"]
        rows = [header, ["clean", *clean, "", ""]]
        for name, result in self.results.items():
            then = "then " if self.cascade and len(rows) > 2 else ""
            shares = map(percent, result.robust.mean(axis=1))
            seconds, passes = sum(result.seconds), sum(result.model_passes)
            rows.append([then + name, *shares, f"{seconds:.1f}", f"{passes:,}"])
        for name, part in self.parts.items():
            alone = f"{name} alone (clean {percent(part.clean_accuracy)})"
            rows.append([alone, *map(percent, part.robust_accuracy.values()), "", ""])
        ends = {"robust accuracy": self.robust_accuracy}
        if self.certified is not None:
            # The robust accuracy stays last.
            ends = {"certified accuracy": self.certified_accuracy, **ends}
        return [
            *rows,
            *([name, *map(percent, by.values()), "", ""] for name, by in ends.items()),
        ]

    def __str__(self) -> str:
        title = (
            f"Accuracy of {self.num_examples} examples against perturbations of "
            f"{norm_name(self.norm)} norm at most epsilon"
        )
        lines = [title, *_aligned(self.table())]
        lines += [f"Assumed: {one}" for one in self.assumptions]
        lines += [f"Warning: {finding}" for finding in self.warnings]
        return "\n".join(lines)

    def plot(self, path_or_ax: Any) -> Any:
        """Plots accuracy against epsilon: a line per attack, robust accuracy in bold.

        Args:
          path_or_ax: The file to write, whose extension determines the format, or the
            matplotlib axes to draw on.

        Returns:
          The axes.

        Raises:
          ImportError: If matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError(
                "RobustnessReport.plot needs matplotlib: pip install 'nsl[plot]'"
            ) from error
        if isinstance(path_or_ax, str | os.PathLike):
            figure = Figure(figsize=(6, 4), layout="constrained")
            axes = figure.subplots()
        else:
            figure, axes = None, path_or_ax
        words = any(isinstance(epsilon, str) for epsilon in self.epsilons)
        places = range(1, len(self.epsilons) + 1) if words else self.epsilons
        epsilons = [0.0, *places]
        if words:
            axes.set_xticks(epsilons, ["0", *self.epsilons])
        for name, accuracy in self.accuracy.items():
            label = f"after {name}" if self.cascade else name
            shares = [self.clean_accuracy, *accuracy.values()]
            axes.plot(epsilons, shares, marker=".", linewidth=1, label=label)
        shares = [self.clean_accuracy, *self.robust_accuracy.values()]
        axes.plot(epsilons, shares, color="black", linewidth=3, label="robust accuracy")
        axes.set_xlabel(f"epsilon ({norm_name(self.norm)})")
        axes.set_ylabel("accuracy")
        axes.set_ylim(0.0, 1.0)
        axes.legend()
        if figure is not None:
            figure.savefig(path_or_ax)
        return axes

    def to_html(
        self,
        path: str | os.PathLike[str],
        *,
        class_names: Sequence[str] | None = None,
        feature_names: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Writes the report as one self-contained HTML page.

        Args:
          path: The file to write. It is replaced only when complete.
          class_names: The name of each class, for the gallery. None uses class numbers.
          feature_names: The names of the columns (the last axis) of the features; for a
            structure of features, a dict from feature name to column names. Features
            with column names are shown as tables, never as images.

        Raises:
          ValueError: If there are too few class names, or names do not fit the columns.
          OSError: If the file cannot be written, such as if its directory does not
            exist.
        """
        # Imported late, because html_report imports this module.
        from nsl.robustness import html_report

        html_report.write(self, path, class_names, feature_names)


def joint(parts: dict[str, RobustnessReport], shown: int) -> RobustnessReport:
    """Returns the joint report of several outputs, all of which must be correct.

    `shown` is the number of gallery examples of each.
    """
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
            for one in part.gallery[:shown]
        ]
    return report


def percent(share: float) -> str:
    """Formats a share in percent, with one decimal."""
    return f"{100 * share:.1f}%"


def radius_text(epsilon: Any) -> str:
    """Formats a radius; radii per coordinate are texts already."""
    return epsilon if isinstance(epsilon, str) else f"{epsilon:g}"


def _aligned(rows: list[list[str]]) -> list[str]:
    """Formats a table as lines: first column left-aligned, others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _to_bits(row: np.ndarray) -> str:
    return "".join("1" if value else "0" for value in row)


def _from_bits(bits: str) -> np.ndarray:
    return np.frombuffer(bits.encode(), np.uint8) == ord("1")
