"""The picture of examples/robust_mnist.py: attacked digits, accuracy over epsilon."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from digit_rows import Row, draw_row

COLORS = {
    "plain": "#c2571a",
    "pgd": "#1f6fb4",
    "trades": "#6b4fa0",
    "bounds": "#2a7f3e",
}
NAMES = {
    "plain": "plain",
    "pgd": "PGD training",
    "trades": "TRADES",
    "bounds": "interval bounds",
}


def draw(
    path: Path,
    rows: Sequence[Row],
    rows_title: str,
    curves: Mapping[str, Mapping[float, float]],
    curves_title: str,
    robust_accuracies: Mapping[str, Mapping[float, float]],
) -> None:
    """Draws the picture.

    Args:
      path: The PNG file.
      rows: Rows of images.
      rows_title: What stands above them.
      curves: Accuracy by model, a key of `NAMES`, and epsilon.
      curves_title: What stands above the curves.
      robust_accuracies: Robust accuracy by model and epsilon.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(13, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.55, 1])
    left.suptitle(rows_title, fontsize=12)
    for axes, row in zip(left.subplots(len(rows), 10), rows, strict=True):
        draw_row(axes, row)
    axis = right.subplots()
    for name, curve in curves.items():
        _draw_curve(axis, name, curve, robust_accuracies.get(name, {}))
    axis.axhline(10, color="#999999", linewidth=1, linestyle="--")
    axis.text(axis.get_xlim()[1], 11.5, "guessing", color="#777777", ha="right")
    axis.set_title(curves_title, fontsize=12)
    axis.set(
        xlabel="epsilon: largest change of a pixel (white is 0, black is 1)",
        ylabel="test accuracy (%)",
        ylim=(-1, 101),
    )
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="center", bbox_to_anchor=(0.505, 0.6), fontsize=8)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _draw_curve(
    axis: Any,
    name: str,
    curve: Mapping[float, float],
    robust_accuracy: Mapping[float, float],
) -> None:
    color = COLORS[name]
    shares = [100 * share for share in curve.values()]
    axis.plot([*curve], shares, color=color, marker="o", markersize=4)
    label = NAMES[name]
    for epsilon, share in robust_accuracy.items():
        label += f": {100 * share:.1f}%, all attacks"
        axis.plot(epsilon, 100 * share, "v", color=color, markersize=10, clip_on=False)
    axis.plot([], [], color=color, marker="v", label=label)
