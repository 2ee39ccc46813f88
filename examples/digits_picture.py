"""The picture of examples/digits.py: attacked digits, and accuracies."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import nsl

NAMES = ("plain", "adversarially regularized")
COLORS = ("#c2571a", "#1f6fb4")
EPSILON = 0.1


def draw_digits(
    axes: Sequence[Axes], title: str, x: np.ndarray, answers: np.ndarray | None = None
) -> None:
    """Draws images of the digits 0 to 9, with the predictions of a network if given."""
    axes[0].set_ylabel(
        title.replace(" ", "\n"), rotation=0, ha="right", va="center", fontsize=12
    )
    for digit, axis in enumerate(axes):
        axis.imshow(x[digit], cmap="gray_r", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_edgecolor("#bbbbbb")
        if answers is not None:
            mark, color = "✗", "#c01f2e"
            if answers[digit] == digit:
                mark, color = "✓", "#2a7f3e"
            label = {"color": color, "fontsize": 14, "fontweight": "bold"}
            axis.set_xlabel(f"{answers[digit]} {mark}", labelpad=2, **label)


def draw(path: Path, test: tuple[np.ndarray, np.ndarray], runs: list) -> None:
    """Draws the picture.

    Args:
      path: The PNG file.
      test: The test images and their digits.
      runs: Of each seed, for the plain and the regularized network: the accuracies by
        row of the table, and the network.
    """
    figure = Figure(figsize=(13, 7.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.12, 1])
    top.suptitle(
        "The first test image of each digit, each pixel moved by at most "
        f"{EPSILON} (PGD, 20 steps), and what each network answers",
        fontsize=13,
    )
    first = [np.flatnonzero(test[1] == digit)[0] for digit in range(10)]
    x, y = test[0][first], test[1][first]
    axes = top.subplots(1 + len(NAMES), 10)
    draw_digits(axes[0], "clean", x)
    for line, name, (_, model) in zip(axes[1:], NAMES, runs[0], strict=True):
        moved = nsl.attacks.PGD(steps=20)(model, x, y, epsilon=EPSILON, bounds=(0, 1))
        draw_digits(line, name, moved, model(moved).numpy().argmax(axis=1))
    curves, bars = bottom.subplots(1, 2, width_ratios=[2.2, 1])
    for side, (name, color) in enumerate(zip(NAMES, COLORS, strict=True)):
        found = [run[side][0] for run in runs]
        _draw_curves(curves, name, color, found)
        few = np.array([rows["20 labels; with a graph"] for rows in found])
        bars.bar(side, few.mean(), 0.55, color=color, alpha=0.35)
        jitter = np.linspace(-0.12, 0.12, len(few)) if len(few) > 1 else 0.0
        bars.plot(side + np.broadcast_to(jitter, few.shape), few, "o", color=color)
        label = {"color": color, "fontsize": 13, "fontweight": "bold"}
        bars.text(side, few.max() + 2.5, f"{few.mean():.1f}", ha="center", **label)
    curves.axhline(10, color="#999999", linewidth=1, linestyle="--")
    curves.text(curves.dataLim.x1, 11, "guessing", color="#777777", ha="right")
    curves.legend(frameon=False)
    curves.set(
        title="1,000 labels: accuracy against perturbation size",
        xlabel="largest change of a pixel (white is 0, black is 1)",
    )
    bars.set(
        title="20 labels: one dot a choice of labels",
        xticks=range(2),
        xticklabels=["labels alone", "labels and graph"],
        xlim=(-0.6, 1.6),
    )
    for axis in (curves, bars):
        axis.set(ylim=(0, 101), ylabel="test accuracy (%)")
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def _draw_curves(axis: Axes, name: str, color: str, found: list[dict]) -> None:
    """Draws accuracy against epsilon, one curve per attack."""
    clean = "1,000 labels; adversarial neighbors"
    for attack, style in (("FGSM", ":"), ("PGD", "-")):
        rows = [row for row in found[0] if f"under {attack}," in row]
        epsilons = [0.0, *(float(row.split()[-1]) for row in rows)]
        values = np.array([[run[row] for row in (clean, *rows)] for run in found])
        mean, spread = values.mean(axis=0), values.std(axis=0)
        marks = {"color": color, "marker": "o", "markersize": 4}
        axis.plot(epsilons, mean, style, label=f"{name}, {attack}", **marks)
        axis.fill_between(
            epsilons, mean - spread, mean + spread, color=color, alpha=0.15
        )
