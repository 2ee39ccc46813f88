"""The plot of examples/tables.py: errors, and predictions under the worst errors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bars import COLORS, LABELS, draw_bars
from seeds import Figures

PATIENTS = 20


def draw(
    path: Path,
    truth: np.ndarray,
    measured: Sequence[np.ndarray],
    attacked: Sequence[np.ndarray],
    figures: Sequence[Figures],
    guess: float,
) -> None:
    """Draws the plot.

    Args:
      path: The PNG file.
      truth: The disease progression of the test patients, `[n]`.
      measured: The predictions of the plain and the regularized network, each `[n]`.
      attacked: Their predictions under the worst errors.
      figures: The mean absolute errors of all seeds.
      guess: The mean absolute error of always predicting the mean.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(13, 4.2), width_ratios=[1, 1.3], layout="constrained"
    )
    longest = max(value for found in figures for row in found.values() for value in row)
    draw_bars(left, figures, "mean absolute error in points, one dot per seed", longest)
    left.axvline(guess, color="#777777", linewidth=1, linestyle="--")
    left.text(guess, 0, " always the mean", color="#777777", fontsize=9, va="center")
    _draw_patients(right, truth, measured, attacked)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_patients(
    axis: Any,
    truth: np.ndarray,
    measured: Sequence[np.ndarray],
    attacked: Sequence[np.ndarray],
) -> None:
    """Draws the first test patients, to avoid cherry-picking."""
    position = np.arange(min(PATIENTS, len(truth)))
    axis.plot(position, truth[: len(position)], "_", color="black", markersize=14)
    for side, (color, label) in enumerate(zip(COLORS, LABELS, strict=True)):
        x = position + 0.3 * (side - 0.5)
        start, end = measured[side][: len(x)], attacked[side][: len(x)]
        axis.vlines(x, start, end, color=color, linewidth=2)
        axis.plot(x, start, "o", color=color, markersize=4, label=label)
        axis.plot(x, end, "x", color=color, markersize=6)
    axis.plot([], [], "_", color="black", markersize=14, label="true progression")
    axis.plot([], [], "x", color="#555555", label="under the worst errors")
    axis.set(
        xticks=[],
        xlabel=f"the first {len(position)} test patients",
        ylabel="predicted progression in points",
    )
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(
        frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, fontsize=9
    )
