"""The plot of examples/pipeline.py: the graph and the accuracies."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from bars import draw_bars
from seeds import Figures
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

COLORS = {-1: "#b0b0b0", 0: "#c01f2e", 1: "#2a7f3e"}
NAMES = {-1: "no label", 0: "malignant", 1: "benign"}


def draw(
    path: Path,
    raw: np.ndarray,
    labels: np.ndarray,
    ids: Sequence[bytes],
    graph: Mapping[str, Mapping[str, float]],
    figures: Sequence[Figures],
) -> None:
    """Draws the plot.

    Args:
      path: The PNG file.
      raw: The raw measurements, `[n, columns]`.
      labels: 0, 1, or -1 if there is none, `[n]`.
      ids: The ids of the samples.
      graph: The weights of edges, by source and target id.
      figures: The accuracies of all seeds.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import collections as lines
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(13, 4.6), width_ratios=[1.5, 1], layout="constrained"
    )
    points = PCA(2).fit_transform(StandardScaler().fit_transform(raw))
    row = {name.decode(): number for number, name in enumerate(ids)}
    edges = [
        (points[row[source]], points[row[target]])
        for source, targets in graph.items()
        for target in targets
    ]
    left.add_collection(lines.LineCollection(edges, colors="#d8d8d8", linewidths=0.4))
    for label, color in COLORS.items():
        chosen = points[labels == label]
        size, order = (14, 2) if label < 0 else (55, 3)
        left.scatter(*chosen.T, size, color, label=NAMES[label], zorder=order)
    left.set(
        xticks=[],
        yticks=[],
        title="train.csv and graph.tsv: first two principal components",
    )
    left.legend(frameon=False)
    left.spines[["top", "right"]].set_visible(False)
    draw_bars(right, figures, "test accuracy in %, one dot per seed")
    figure.savefig(path, dpi=110)
    plt.close(figure)
