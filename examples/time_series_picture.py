"""The plot of examples/time_series.py: series with neighbors, and accuracies."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from bars import draw_bars
from seeds import Figures

COLORS = ("#2a7f3e", "#6b4fa0", "#a8752a")


def draw(
    path: Path,
    series: np.ndarray,
    kinds: Sequence[str],
    neighbors: Mapping[int, Sequence[int]],
    figures: Sequence[Figures],
) -> None:
    """Draws the plot.

    Args:
      path: The PNG file.
      series: All series, `[n, length]`.
      kinds: The class of each series.
      neighbors: Some neighbors of each series to draw.
      figures: The accuracies of all seeds.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(13, 4.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.5, 1])
    left.suptitle("A labeled series of each class, and two of its neighbors")
    columns = 1 + len(next(iter(neighbors.values())))
    axes = left.subplots(len(neighbors), columns, sharex=True, sharey=True)
    for line, color, (row, beside) in zip(axes, COLORS, neighbors.items(), strict=True):
        for axis, drawn in zip(line, [row, *beside], strict=True):
            axis.plot(series[drawn], color=color, linewidth=1)
            axis.set(xticks=[], yticks=[])
            axis.spines[["top", "right"]].set_visible(False)
            # The class of a neighbor is known here, but not in training.
            known = drawn == row
            axis.set_title(
                kinds[drawn] if known else f"({kinds[drawn]})",
                fontsize=10,
                fontweight="bold" if known else "normal",
            )
    draw_bars(right.subplots(), figures, "test accuracy in %, one dot per seed")
    figure.savefig(path, dpi=110)
    plt.close(figure)
