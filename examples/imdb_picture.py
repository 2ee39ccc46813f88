"""The plot of examples/imdb.py: accuracy against the number of labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

STYLES = {
    "plain": ("#c2571a", "o-", "LSTM, labels alone", -18),
    "graph": ("#1f6fb4", "o-", "LSTM, labels and graph", 12),
    "embeddings": ("#777777", "s:", "linear baseline on embeddings", -18),
}


def draw(
    path: Path,
    title: str,
    counts: Sequence[int],
    accuracies: Mapping[str, Sequence[Sequence[float]]],
    all_labels: Sequence[float],
) -> None:
    """Draws means over seeds, with error bars of one standard deviation.

    Args:
      path: The PNG file.
      title: The title.
      counts: The numbers of labels.
      accuracies: Accuracies in percent, `[counts, seeds]`, by 'plain', 'graph' and
        'embeddings'.
      all_labels: The accuracies of plain training with all labels, `[seeds]`.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.6), layout="constrained")
    for name, values in accuracies.items():
        color, style, label, height = STYLES[name]
        mean, spread = np.mean(values, axis=1), np.std(values, axis=1)
        axis.errorbar(
            counts, mean, spread, fmt=style, color=color, capsize=4, label=label
        )
        for count, value in zip(counts, mean, strict=True):
            axis.annotate(
                f"{value:.1f}",
                (count, value),
                (0, height),
                textcoords="offset points",
                ha="center",
                color=color,
            )
    reached = np.mean(all_labels)
    axis.axhline(reached, color=STYLES["plain"][0], linestyle="--", linewidth=1)
    axis.annotate(
        f"all labels, no graph: {reached:.1f}",
        (0.01, reached),
        (0, 5),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        color=STYLES["plain"][0],
    )
    axis.set_xscale("log")
    axis.set_xticks(counts, [f"{count:,}" for count in counts])
    axis.minorticks_off()
    axis.margins(x=0.2, y=0.15)
    axis.set(title=title, xlabel="reviews with a label", ylabel="accuracy (%)")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#e5e5e5")
    axis.set_axisbelow(True)
    axis.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)
