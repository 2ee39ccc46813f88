"""The pictures of examples/cora.py: accuracies, and papers in the plane."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from bars import COLORS
from cora_data import CitationGraph
from seeds import Figures


def draw_labels(
    path: Path, graph_name: str, networks: Sequence[str], figures: Sequence[Figures]
) -> None:
    """Draws accuracy against the number of labels.

    Args:
      path: The PNG file.
      graph_name: What the graph is called.
      networks: What the plain and the regularized network know.
      figures: By seed, rows such as '5 labels a class'.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    counts = [int(row.split()[0]) for row in figures[0]]
    accuracies = np.array([list(found.values()) for found in figures])
    figure, axis = plt.subplots(figsize=(7, 4.4), layout="constrained")
    for side, (name, color) in enumerate(zip(networks, COLORS, strict=True)):
        mean = accuracies[:, :, side].mean(axis=0)
        spread = accuracies[:, :, side].std(axis=0)
        axis.plot(counts, mean, "o-", color=color, label=name)
        axis.fill_between(counts, mean - spread, mean + spread, color=color, alpha=0.15)
        for x, y in zip(counts, mean, strict=True):
            axis.annotate(
                f"{y:.0f}",
                (x, y),
                (0, 9 if side else -16),
                textcoords="offset points",
                ha="center",
                color=color,
            )
    axis.set_xscale("log")
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.minorticks_off()
    axis.set(
        title=f"{graph_name}: test accuracy, no graph when it answers",
        xlabel=f"labeled papers a class (drawn anew for each of {len(figures)} seeds)",
        ylabel="test accuracy in %",
    )
    axis.margins(y=0.15)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#e5e5e5")
    axis.set_axisbelow(True)
    axis.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_embeddings(
    path: Path,
    graph: CitationGraph,
    networks: Sequence[str],
    models: Sequence[keras.Model],
) -> None:
    """Draws test papers as the hidden layer sees them, colored by their class.

    Args:
      path: The PNG file.
      graph: The papers.
      networks: What the plain and the regularized network know.
      models: Both networks, with a layer 'embedding'.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = graph.public.test[:2000]
    words, labels = graph.words[rows], graph.labels[rows]
    size = 5.4 * len(models), 5.3
    figure, axes = plt.subplots(1, len(models), figsize=size, layout="constrained")
    figure.suptitle(
        f"{graph.name}: {len(rows)} test papers in the hidden layer, colored by class"
        " (t-SNE)"
    )
    for axis, name, model, color in zip(axes, networks, models, COLORS, strict=True):
        hidden = keras.Model(model.inputs, model.get_layer("embedding").output)
        axis.scatter(
            *_projected(hidden.predict(words, verbose=0)).T,
            c=labels,
            cmap="tab10" if graph.classes <= 10 else "tab20",
            vmin=-0.5,
            vmax=9.5 if graph.classes <= 10 else 19.5,
            s=12,
            linewidths=0,
            alpha=0.85,
        )
        right = np.mean(model.predict(words, verbose=0).argmax(axis=1) == labels)
        axis.set_title(f"{name}: {right:.1%} right", color=color)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_edgecolor("#cccccc")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _projected(vectors: np.ndarray) -> np.ndarray:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    projection = TSNE(
        perplexity=min(30, (len(vectors) - 1) // 3), init="pca", random_state=0
    )
    # Its threads wait for each other very often, which takes minutes on a busy machine.
    with threadpool_limits(1):
        return projection.fit_transform(vectors)
