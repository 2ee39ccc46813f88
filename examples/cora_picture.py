"""The pictures of examples/cora.py: accuracies, and papers in the plane."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

COLORS = {"plain": "#c2571a", "graph": "#1f6fb4"}
NAMES = {"plain": "labels alone", "graph": "labels and graph"}


@dataclasses.dataclass(frozen=True)
class Plane:
    """Papers in the plane.

    Attributes:
      points: `[papers, 2]`.
      accuracy: Of the network whose hidden layer they come from.
    """

    points: np.ndarray
    accuracy: float


def draw_labels(
    path: Path,
    graph_name: str,
    per_class: Sequence[int],
    accuracies: Mapping[str, np.ndarray],
) -> None:
    """Draws accuracy against the number of labels.

    Args:
      path: The PNG file.
      graph_name: What the graph is called.
      per_class: Numbers of labels a class.
      accuracies: `[numbers, seeds]` of 'plain' and 'graph'.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.6), layout="constrained")
    for name, values in accuracies.items():
        mean, spread = 100 * values.mean(axis=1), 100 * values.std(axis=1)
        color = COLORS[name]
        axis.plot(per_class, mean, "o-", color=color, label=NAMES[name])
        axis.fill_between(
            per_class, mean - spread, mean + spread, color=color, alpha=0.15
        )
        for x, y in zip(per_class, mean, strict=True):
            axis.annotate(
                f"{y:.0f}",
                (x, y),
                (0, 8),
                textcoords="offset points",
                ha="center",
                color=color,
            )
    seeds = next(iter(accuracies.values())).shape[1]
    axis.set_xscale("log")
    axis.set_xticks(per_class, [str(count) for count in per_class])
    axis.minorticks_off()
    axis.set(
        title=f"{graph_name}: test accuracy, no graph when it answers",
        xlabel=f"labeled papers a class (drawn anew for each of {seeds} seeds)",
        ylabel="test accuracy (%)",
    )
    axis.margins(y=0.12)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#e5e5e5")
    axis.set_axisbelow(True)
    axis.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_embeddings(
    path: Path, title: str, planes: Mapping[str, Plane], labels: np.ndarray
) -> None:
    """Draws papers in the plane, colored by their class.

    Args:
      path: The PNG file.
      title: What stands above.
      planes: Of the networks 'plain' and 'graph'.
      labels: The classes, `[papers]`.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, len(planes), figsize=(6 * len(planes), 5.6), layout="constrained"
    )
    figure.suptitle(f"{title}, colored by class (t-SNE)", fontsize=13)
    for axis, (name, plane) in zip(axes, planes.items(), strict=True):
        axis.scatter(
            *plane.points.T,
            c=labels,
            cmap="tab10" if labels.max() < 10 else "tab20",
            vmin=-0.5,
            vmax=9.5 if labels.max() < 10 else 19.5,
            s=9,
            linewidths=0,
            alpha=0.85,
        )
        axis.set(xticks=[], yticks=[])
        axis.set_title(
            f"{NAMES[name]}: {100 * plane.accuracy:.1f}%",
            color=COLORS[name],
            fontsize=13,
        )
        for spine in axis.spines.values():
            spine.set_edgecolor("#cccccc")
    figure.savefig(path, dpi=110)
    plt.close(figure)
