"""The picture of examples/digits.py: attacked digits, and accuracies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from digit_rows import Row, draw_row

COLORS = {"plain": "#c2571a", "regularized": "#1f6fb4"}
NAMES = {"plain": "plain", "regularized": "adversarially regularized"}


def draw(
    path: Path,
    rows: Sequence[Row],
    rows_title: str,
    epsilons: Sequence[float],
    attacked: Mapping[tuple[str, str], np.ndarray],
    few_labels: Mapping[str, np.ndarray],
) -> None:
    """Draws the picture.

    Args:
      path: The PNG file.
      rows: Rows of images.
      rows_title: What stands above them.
      epsilons: The sizes of the perturbations.
      attacked: Accuracies in percent, `[seeds, epsilons]`, by ('plain' or
        'regularized', attack).
      few_labels: Accuracies in percent with few labels, `[seeds]`, 'plain' and
        'regularized'.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(13, 7.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.12, 1])
    top.suptitle(rows_title, fontsize=13)
    for axes, row in zip(top.subplots(len(rows), 10), rows, strict=True):
        draw_row(axes, row)
    curves, dots = bottom.subplots(1, 2, width_ratios=[2.2, 1])
    _draw_curves(curves, epsilons, attacked)
    _draw_few_labels(dots, few_labels)
    for axis in (curves, dots):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_curves(
    axis: Any,
    epsilons: Sequence[float],
    attacked: Mapping[tuple[str, str], np.ndarray],
) -> None:
    for (name, attack), values in attacked.items():
        mean, spread = values.mean(axis=0), values.std(axis=0)
        axis.plot(
            epsilons,
            mean,
            "-" if attack == "PGD" else ":",
            color=COLORS[name],
            marker="o",
            markersize=4,
            label=f"{NAMES[name]}, {attack}",
        )
        axis.fill_between(
            epsilons, mean - spread, mean + spread, color=COLORS[name], alpha=0.15
        )
    axis.axhline(10, color="#999999", linewidth=1, linestyle="--")
    axis.text(epsilons[-1], 11, "guessing", color="#777777", ha="right")
    axis.set(
        title="1,000 labels: accuracy against perturbation size",
        xlabel="largest change of a pixel (white is 0, black is 1)",
        ylabel="test accuracy (%)",
        ylim=(0, 101),
    )
    axis.legend(frameon=False)


def _draw_few_labels(axis: Any, few_labels: Mapping[str, np.ndarray]) -> None:
    for position, (name, values) in enumerate(few_labels.items()):
        axis.bar(position, values.mean(), 0.55, color=COLORS[name], alpha=0.35)
        jitter = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else [0.0]
        axis.plot(position + np.asarray(jitter), values, "o", color=COLORS[name])
        axis.text(
            position,
            values.max() + 2.5,
            f"{values.mean():.1f}",
            ha="center",
            fontsize=13,
            fontweight="bold",
            color=COLORS[name],
        )
    axis.set(
        title="20 labels: one dot a choice of labels",
        xticks=range(len(few_labels)),
        xticklabels=["labels alone", "labels and graph"],
        xlim=(-0.6, 1.6),
        ylim=(0, 101),
        ylabel="test accuracy (%)",
    )
