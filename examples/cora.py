"""Classifying papers by their words, with few labels and the citations between papers.

An ordinary network that reads the words of one paper learns from the labels alone, and
then, with `nsl.keras.few_labels`, from the labels and the citations. It needs no graph
to answer. A fifth of the test papers can also be left out of the graph, with all their
citations, and be answered as papers that are new ("unseen").

    python examples/cora.py --quick
    python examples/cora.py --data=cora.npz --output_dir=cora

An interrupted program goes on where it was. Without --data, --quick makes up a graph.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cora_data
import cora_picture
import keras
import numpy as np
from cora_data import CitationGraph, Split
from progress import Progress
from seeds import Figures, format_table, make_parser, over_seeds

import nsl
from nsl.keras import few_labels


@dataclass(frozen=True)
class Settings:
    """What differs between the two networks.

    Attributes:
      citations: Whether the network learns from the citations.
      dropout: Share of the hidden units that are left out.
      steps: The number of weight updates, in each stage; None is as many as the library
        chooses.
    """

    citations: bool
    dropout: float
    steps: int | None = None


# The dropout of the plain network is the best of three for the validation papers of
# Cora. What the other needs follows from each graph, by the rules of the library.
PLAIN = Settings(citations=False, dropout=0.8, steps=100)
REGULARIZED = Settings(citations=True, dropout=0.5)
SETTINGS = PLAIN, REGULARIZED
NETWORKS = ("labels alone", "labels and graph")
HIDDEN = 64
QUICK_STEPS = 20


def make_model(words: int, classes: int, dropout: float) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((words,), name="words"),
            keras.layers.Dense(HIDDEN, activation="relu", name="embedding"),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )


def train(
    graph: CitationGraph, split: Split, settings: Settings, seed: int
) -> keras.Model:
    """Trains on the labeled papers and, if it may, on the citations."""
    keras.utils.set_random_seed(seed)
    model = make_model(graph.words.shape[1], graph.classes, settings.dropout)
    if not settings.citations:
        words, labels = graph.words[split.train], graph.labels[split.train]
        schedule = keras.optimizers.schedules.CosineDecay(0.01, settings.steps)
        model.compile(
            keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy"
        )
        batches = -(-len(words) // 1000)
        epochs = -(-settings.steps // batches)  # type: ignore[operator]
        model.fit(words, labels, batch_size=1000, epochs=epochs, verbose=0)
        return model
    papers = np.arange(len(graph.labels))
    citations = nsl.data.Graph(tuple(graph.edges.T), ids=papers, undirected=True)
    chosen = few_labels.Settings()
    if settings.steps:
        chosen = few_labels.Settings(teacher_steps=settings.steps, steps=settings.steps)
    return few_labels.fit(
        model,
        citations,
        graph.words,
        graph.labels,
        sample_weight=np.isin(papers, split.train),
        validation=np.isin(papers, split.validation),
        settings=chosen,
        seed=seed,
    )


def accuracy(model: keras.Model, graph: CitationGraph, rows: np.ndarray) -> float:
    """Returns the share of papers that the network classifies rightly, in percent."""
    answers = model.predict(graph.words[rows], batch_size=1000, verbose=0)
    return 100 * float(np.mean(answers.argmax(axis=1) == graph.labels[rows]))


def compare(
    graph: CitationGraph,
    networks: Sequence[Settings],
    splits: Mapping[str, Split],
    seed: int,
) -> Figures:
    """Returns the test accuracies of both networks, by row of the table."""
    figures: Figures = {}
    for row, split in splits.items():
        plain, regularized = (
            accuracy(train(graph, split, settings, seed), graph, split.test)
            for settings in networks
        )
        figures[row] = plain, regularized
    return figures


def compare_unseen(
    graph: CitationGraph, networks: Sequence[Settings], seed: int
) -> Figures:
    """Trains without a fifth of the test papers, and tests on both kinds."""
    unseen = cora_data.choose_unseen(graph, seed)
    known, split = cora_data.leave_out(graph, unseen)
    models = [train(known, split, settings, seed) for settings in networks]
    seen = np.setdiff1d(graph.public.test, unseen)
    figures: Figures = {}
    for kind, rows in ("seen", seen), ("unseen", unseen):
        plain, regularized = (accuracy(model, graph, rows) for model in models)
        figures[f"{graph.name}, {kind} papers"] = plain, regularized
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "cora", "one seed of few steps, in seconds", seeds=10)
    parser.add_argument("--data", type=Path, help="an .npz file of a citation graph")
    options = parser.parse_args(arguments)
    if options.data is None and not options.quick:
        parser.error(f"--data is missing (or --quick).\n\n{cora_data.FORMAT}")
    folder, progress = options.output_dir, Progress()
    folder.mkdir(parents=True, exist_ok=True)
    if options.data is None:
        options.data = folder / "made-up.npz"
        cora_data.synthesize(options.data)
    graph = cora_data.load(options.data)
    output = f"{folder / graph.name}"
    networks, counts = SETTINGS, (5, 10, 20, 50, 100)
    if options.quick:
        networks = tuple(
            dataclasses.replace(each, steps=QUICK_STEPS) for each in networks
        )
        counts = 5, 20

    def on_usual_splits(seed: int) -> Figures:
        figures = compare(graph, networks, cora_data.usual_splits(graph, seed), seed)
        return figures | compare_unseen(graph, networks, seed)

    def by_labels(seed: int) -> Figures:
        splits = cora_data.few_labels_splits(graph, counts, seed)
        return compare(graph, networks, splits, seed)

    path = Path(f"{output}.json")
    figures = over_seeds(on_usual_splits, options.seeds, path, networks, progress)
    path = Path(f"{output}_labels.json")
    curve = over_seeds(by_labels, options.seeds[:3], path, networks, progress)
    title = "test accuracy in %"
    table = f"{format_table(figures, title)}\n\n{format_table(curve, title)}\n"
    Path(f"{output}.txt").write_text(table)

    progress.part("pictures")
    path = Path(f"{output}_labels.png")
    cora_picture.draw_labels(path, graph.name, NETWORKS, curve)
    models = [train(graph, graph.public, each, seed=0) for each in networks]
    path = Path(f"{output}_embeddings.png")
    cora_picture.draw_embeddings(path, graph, NETWORKS, models)
    print(f"{table}\npictures: {output}_labels.png and {path}")


if __name__ == "__main__":
    main()
