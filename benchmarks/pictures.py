"""The pictures of docs/results.md, drawn by benchmarks/results.py.

Each function takes the PNG file, the figures of all seeds (rows of numbers, one number
per column), and what else the picture shows.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from digits_picture import draw_digits
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler

import nsl

Figures = Mapping[str, Sequence[float]]
COLORS = ("#c2571a", "#1f6fb4", "#6b4fa0", "#2a7f3e")
NAMES = ("plain", "regularized")


def _bars(
    axis: Any,
    figures: Sequence[Figures],
    title: str,
    names: Sequence[str] = NAMES,
    longest: float = 100.0,
) -> None:
    """Draws a group of bars per row, one bar per column and one dot per seed."""
    step = 0.8 / len(names)
    for side, (color, name) in enumerate(zip(COLORS, names, strict=False)):
        for position, row in enumerate(figures[0]):
            values = [found[row][side] for found in figures]
            y, mean = position + step * (side - (len(names) - 1) / 2), np.mean(values)
            label = {} if position else {"label": name}
            axis.barh(y, mean, 0.9 * step, color=color, alpha=0.4, **label)
            axis.plot(values, [y] * len(values), "o", color=color, markersize=4)
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            place = max(values) + 0.02 * longest, y
            axis.text(*place, f"{mean:.1f}", va="center", color=color, bbox=box)
    axis.set_yticks(range(len(figures[0])), list(figures[0]))
    axis.invert_yaxis()
    axis.set(xlim=(0, 1.12 * longest), xlabel=title)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)


def tables(
    path: Path,
    figures: Sequence[Figures],
    truth: np.ndarray,
    measured: Sequence[np.ndarray],
    attacked: Sequence[np.ndarray],
    guess: float,
) -> None:
    """Draws errors, and predictions for the first patients, with the worst errors."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.3])
    longest = max(value for found in figures for row in found.values() for value in row)
    title = "mean absolute error in points, one dot per seed"
    _bars(left, figures, title, longest=longest)
    left.axvline(guess, color="#777777", linewidth=1, linestyle="--")
    left.text(guess, 0, " always the mean", color="#777777", fontsize=9, va="center")
    position = np.arange(min(20, len(truth)))
    right.plot(position, truth[: len(position)], "_", color="black", markersize=14)
    for side, (color, name) in enumerate(zip(COLORS, NAMES, strict=False)):
        x = position + 0.3 * (side - 0.5)
        start, end = measured[side][: len(x)], attacked[side][: len(x)]
        right.vlines(x, start, end, color=color, linewidth=2)
        right.plot(x, start, "o", color=color, markersize=4, label=name)
        right.plot(x, end, "x", color=color, markersize=6)
    right.plot([], [], "_", color="black", markersize=14, label="true progression")
    right.plot([], [], "x", color="#555555", label="under the worst errors")
    right.set(
        xticks=[],
        xlabel=f"the first {len(position)} test patients",
        ylabel="predicted progression in points",
    )
    right.spines[["top", "right"]].set_visible(False)
    right.legend(
        frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, fontsize=9
    )
    figure.savefig(path, dpi=110)


def time_series(
    path: Path,
    figures: Sequence[Figures],
    series: np.ndarray,
    kinds: Sequence[str],
    graph: nsl.data.Graph,
) -> None:
    """Draws the first series of each class with two neighbors, and accuracies."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.5, 1])
    left.suptitle("A labeled series of each class, and two of its neighbors")
    axes = left.subplots(3, 3, sharex=True, sharey=True)
    for row, (line, color) in enumerate(
        zip(axes, ("#2a7f3e", "#6b4fa0", "#a8752a"), strict=True)
    ):
        neighbors = graph.targets[graph.row_splits[row] :][:2]
        for axis, drawn in zip(line, [row, *neighbors], strict=True):
            axis.plot(series[drawn], color=color, linewidth=1)
            axis.set(xticks=[], yticks=[])
            axis.spines[["top", "right"]].set_visible(False)
            # The class of a neighbor is known here, but not in training.
            known = drawn == row
            title = kinds[drawn] if known else f"({kinds[drawn]})"
            weight = "bold" if known else "normal"
            axis.set_title(title, fontsize=10, fontweight=weight)
    _bars(right.subplots(), figures, "test accuracy in %, one dot per seed")
    figure.savefig(path, dpi=110)


def pipeline(
    path: Path,
    figures: Sequence[Figures],
    ids: np.ndarray,
    labels: np.ndarray,
    raw: np.ndarray,
    graph: Mapping[str, Mapping[str, float]],
) -> None:
    """Draws the samples of train.csv with graph.tsv, and accuracies."""
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    points = PCA(2).fit_transform(StandardScaler().fit_transform(raw))
    place = dict(zip(map(str, ids), points, strict=True))
    edges = [(place[a], place[b]) for a, targets in graph.items() for b in targets]
    left.add_collection(LineCollection(edges, colors="#d8d8d8", linewidths=0.4))
    for label, name, color, size in (
        (-1, "no label", "#b0b0b0", 14),
        (0, "malignant", "#c01f2e", 55),
        (1, "benign", "#2a7f3e", 55),
    ):
        chosen = points[labels == label].T
        left.scatter(*chosen, size, color, label=name, zorder=3 if label >= 0 else 2)
    title = "train.csv and graph.tsv: first two principal components"
    left.set(xticks=[], yticks=[], title=title)
    left.legend(frameon=False)
    left.spines[["top", "right"]].set_visible(False)
    _bars(right, figures, "test accuracy in %, one dot per seed")
    figure.savefig(path, dpi=110)


def mnist(
    path: Path,
    figures: Sequence[Figures],
    names: Sequence[str],
    clean: np.ndarray,
    attacked: Sequence[np.ndarray],
    answers: Sequence[np.ndarray],
    title: str,
) -> None:
    """Draws an image of each digit as each network sees it, and accuracies."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.3, 1])
    _images(left, names, clean, attacked, answers, title)
    title = "test accuracy in %, one dot per seed"
    _bars(right.subplots(), figures, title, names)
    figure.savefig(path, dpi=110)


def _images(
    figure: Any,
    names: Sequence[str],
    clean: np.ndarray,
    attacked: Sequence[np.ndarray],
    answers: Sequence[np.ndarray],
    title: str,
) -> None:
    figure.suptitle(title, fontsize=12)
    axes = figure.subplots(1 + len(names), 10)
    draw_digits(axes[0], "clean", clean)
    for line, *row in zip(axes[1:], names, attacked, answers, strict=True):
        draw_digits(line, *row)


def robust_mnist(
    path: Path,
    figures: Sequence[Figures],
    names: Sequence[str],
    clean: np.ndarray,
    attacked: Sequence[np.ndarray],
    answers: Sequence[np.ndarray],
    title: str,
    curves: Sequence[Mapping[float, float]],
    epsilon: float,
    curves_title: str,
) -> None:
    """Draws an image of each digit, and accuracy against epsilon."""
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.55, 1])
    _images(left, names, clean, attacked, answers, title)
    axis = right.subplots()
    for side, (name, color) in enumerate(zip(names, COLORS, strict=True)):
        x, y = zip(*curves[side].items(), strict=True)
        axis.plot(x, y, color=color, marker="o", markersize=4)
        share = figures[0]["robust accuracy"][side]
        marks = {"color": color, "markersize": 10, "clip_on": False}
        axis.plot(epsilon, share, "v", **marks)
        label = f"{name}: {share:.1f}%, all attacks"
        axis.plot([], [], color=color, marker="v", label=label)
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


def imdb(path: Path, figures: Sequence[Figures]) -> None:
    """Draws accuracy against the number of labels."""
    *rows, all_labels = figures[0]
    counts = [int(row.split()[0].replace(",", "")) for row in rows]
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axis = figure.subplots()
    for side, (color, style, label, height) in enumerate(
        (
            (COLORS[0], "o-", "LSTM, labels alone", -18),
            (COLORS[1], "o-", "LSTM, labels and graph", 12),
            ("#777777", "s:", "linear baseline on embeddings", -18),
        )
    ):
        values = np.array([[found[row][side] for row in rows] for found in figures])
        mean, spread = values.mean(axis=0), values.std(axis=0)
        marks = {"fmt": style, "color": color, "capsize": 4, "label": label}
        axis.errorbar(counts, mean, spread, **marks)
        _numbers(axis, counts, mean, "{:.1f}", height, color)
    reached = np.mean(
        [found[all_labels][0] for found in figures if all_labels in found]
    )
    axis.axhline(reached, color=COLORS[0], linestyle="--", linewidth=1)
    axis.annotate(
        f"all labels, no graph: {reached:.1f}",
        (0.01, reached),
        (0, 5),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        color=COLORS[0],
    )
    axis.margins(x=0.2, y=0.15)
    _against_labels(axis, counts)
    axis.set(
        title="IMDB reviews: test accuracy against labels",
        xlabel="reviews with a label",
        ylabel="accuracy (%)",
    )
    figure.savefig(path, dpi=110)


def _numbers(
    axis: Any, x: Sequence[int], y: np.ndarray, text: str, height: int, color: str
) -> None:
    for place in zip(x, y, strict=True):
        offset = {"textcoords": "offset points", "ha": "center", "color": color}
        axis.annotate(text.format(place[1]), place, (0, height), **offset)


def _against_labels(axis: Any, counts: Sequence[int]) -> None:
    axis.set_xscale("log")
    axis.set_xticks(counts, [f"{count:,}" for count in counts])
    axis.minorticks_off()
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#e5e5e5")
    axis.set_axisbelow(True)
    axis.legend(frameon=False, loc="lower right")


def cora_labels(path: Path, figures: Sequence[Figures], names: Sequence[str]) -> None:
    """Draws accuracy against the number of labels per class."""
    counts = [int(row.split()[0]) for row in figures[0]]
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axis = figure.subplots()
    for side, (name, color) in enumerate(zip(names, COLORS, strict=False)):
        values = np.array([[row[side] for row in run.values()] for run in figures])
        mean, spread = values.mean(axis=0), values.std(axis=0)
        axis.plot(counts, mean, "o-", color=color, label=name)
        axis.fill_between(counts, mean - spread, mean + spread, color=color, alpha=0.15)
        _numbers(axis, counts, mean, "{:.0f}", 9 if side else -16, color)
    axis.margins(y=0.15)
    _against_labels(axis, counts)
    axis.set(
        title="cora: test accuracy, no graph when it answers",
        xlabel=f"labeled papers a class (drawn anew for each of {len(figures)} seeds)",
        ylabel="test accuracy in %",
    )
    figure.savefig(path, dpi=110)


def cora_embeddings(
    path: Path,
    names: Sequence[str],
    hidden: Sequence[np.ndarray],
    labels: np.ndarray,
    accuracies: Sequence[float],
) -> None:
    """Draws test papers as the hidden layer sees them, colored by their class."""
    from threadpoolctl import threadpool_limits

    size = 5.4 * len(hidden), 5.3
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(
        f"cora: {len(labels)} test papers in the hidden layer, colored by class (t-SNE)"
    )
    projection = TSNE(
        perplexity=min(30, (len(labels) - 1) // 3), init="pca", random_state=0
    )
    axes = figure.subplots(1, len(hidden))
    for axis, name, vectors, share, color in zip(
        axes, names, hidden, accuracies, COLORS, strict=False
    ):
        # Its threads wait for each other often: minutes on a busy machine.
        with threadpool_limits(1):
            points = projection.fit_transform(vectors)
        colors = {"c": labels, "cmap": "tab10", "vmin": -0.5, "vmax": 9.5}
        axis.scatter(*points.T, s=12, linewidths=0, alpha=0.85, **colors)
        axis.set_title(f"{name}: {share:.1f}% right", color=color)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_edgecolor("#cccccc")
    figure.savefig(path, dpi=110)
