"""Bar charts that compare networks over several seeds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from seeds import Figures

COLORS = ("#c2571a", "#1f6fb4")
_FURTHER = ("#6b4fa0",)
LABELS = ("plain", "regularized")


def draw_bars(
    axis: Any,
    figures: Sequence[Figures],
    title: str,
    longest: float = 100.0,
    labels: Sequence[str] = LABELS,
) -> None:
    """Draws a group of bars per table row, with one dot per seed.

    Args:
      axis: The matplotlib axis to draw into.
      figures: The results, as returned by `over_seeds`.
      title: The quantity, such as 'test accuracy in %'.
      longest: The upper limit of the axis.
      labels: The names of the columns, at most three.
    """
    rows, step = list(figures[0]), 0.8 / len(labels)
    for side, (color, label) in enumerate(
        zip((*COLORS, *_FURTHER), labels, strict=False)
    ):
        for position, row in enumerate(rows):
            values = [found[row][side] for found in figures]
            y = position + step * (side - (len(labels) - 1) / 2)
            axis.barh(
                y,
                np.mean(values),
                0.9 * step,
                color=color,
                alpha=0.4,
                label=None if position else label,
            )
            axis.plot(values, [y] * len(values), "o", color=color, markersize=4)
            axis.text(
                max(values) + 0.02 * longest,
                y,
                f"{np.mean(values):.1f}",
                va="center",
                color=color,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )
    axis.set_yticks(range(len(rows)), rows)
    axis.invert_yaxis()
    axis.set(xlim=(0, 1.12 * longest), xlabel=title)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
