"""The plot of examples/mnist.py: adversarial examples and accuracies."""

from collections.abc import Sequence
from pathlib import Path

from bars import draw_bars
from digit_rows import Row, draw_row
from seeds import Figures


def draw(
    path: Path,
    rows: Sequence[Row],
    rows_title: str,
    figures: Sequence[Figures],
    names: Sequence[str],
) -> None:
    """Draws the plot.

    Args:
      path: The PNG file.
      rows: The rows of images.
      rows_title: The title above the rows.
      figures: The accuracies of all seeds.
      names: The names of the networks.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(13, 4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.3, 1])
    left.suptitle(rows_title, fontsize=12)
    for axes, row in zip(left.subplots(len(rows), 10), rows, strict=True):
        draw_row(axes, row)
    title = "test accuracy in %, one dot per seed"
    draw_bars(right.subplots(), figures, title, labels=names)
    figure.savefig(path, dpi=110)
    plt.close(figure)
