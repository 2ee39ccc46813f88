"""Classifying papers by their words, with few labels and the citations between papers.

An ordinary network that reads the words of one paper is trained without and with
`nsl.keras.GraphRegularization`. All papers take part in training, those without a label
with a sample weight of 0. When it answers, the network needs no graph.

    python examples/cora.py --quick
    python examples/cora.py --data=cora.npz --output_dir=cora
    python examples/cora.py --data=cora.npz --search

Without --data, --quick makes up a small graph. --help names the options.
"""

import argparse
import dataclasses
import functools
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import balanced_propagation  # noqa: F401  (registers the objective)
import cora_data
import cora_picture
import keras
import numpy as np
import tensorflow as tf
from cora_data import CitationGraph, Split
from progress import Progress

import nsl


@dataclasses.dataclass(frozen=True)
class Settings:
    """What may be chosen. Without a graph the next five mean nothing.

    Attributes:
      multiplier: Factor of the graph term; 0 trains on the labels alone.
      objective: 'propagation', or 'balanced_propagation', which keeps a class from
        winning all papers where labels are fewest, and is less accurate elsewhere.
      temperature: The smaller, the surer is what a paper is to learn from neighbors.
      hops: How many citations away a neighbor may be.
      candidates: How many of these, the nearest, a paper keeps.
      neighbors: How many of its candidates a paper meets in a step.
      hidden: Units of the hidden layer.
      word_dropout: Share of a paper's words that are left out in a step.
      dropout: The same for hidden units.
      learning_rate: Of Adam at the start; it falls to 0 along a cosine.
      steps: The number of weight updates.
      batch_size: How many papers a step sees, at most.
    """

    multiplier: float = 1.0
    objective: str = "balanced_propagation"
    temperature: float = 0.4
    hops: int = 4
    candidates: int = 32
    neighbors: int = 4
    hidden: int = 128
    word_dropout: float = 0.5
    dropout: float = 0.2
    learning_rate: float = 0.01
    steps: int = 100
    batch_size: int = 3000


# Chosen on Cora's validation papers with a prototype of this program that has the same
# losses. Which of the two objectives is better depends on the number of labels, and is
# chosen on the validation papers each time.
GRAPH = Settings()
OBJECTIVES = ("propagation", "balanced_propagation")
PLAIN = Settings(multiplier=0.0)
QUICK_STEPS = 40
QUICK_PER_CLASS = (5, 20)


def make_model(words: int, classes: int, settings: Settings) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((words,), name="words"),
            keras.layers.UnitNormalization(),
            keras.layers.Dropout(settings.word_dropout),
            keras.layers.Dense(settings.hidden, activation="gelu"),
            keras.layers.LayerNormalization(name="embedding"),
            keras.layers.Dropout(settings.dropout),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )


@functools.cache
def nearest(graph: CitationGraph, hops: int, candidates: int) -> nsl.data.Graph:
    """Joins each paper with those that short chains of citations lead to."""
    citations = nsl.data.Graph(
        tuple(graph.edges.T), ids=np.arange(len(graph.words)), undirected=True
    )
    return citations.power(hops, max_neighbors=candidates)


def train(
    graph: CitationGraph, labeled: np.ndarray, settings: Settings, seed: int
) -> keras.Model:
    """Trains on the labeled papers and, unless its multiplier is 0, on the graph."""
    keras.utils.set_random_seed(seed)
    model = make_model(graph.words.shape[1], graph.classes, settings)
    trained, data = model, labeled_batches(graph, labeled, settings, seed)
    if settings.multiplier:
        graph_config = nsl.configs.make_graph_reg_config(
            max_neighbors=settings.neighbors,
            multiplier=settings.multiplier,
            objective=settings.objective,
            temperature=settings.temperature,
        )
        trained = nsl.keras.GraphRegularization(model, graph_config)
        data = all_batches(graph, labeled, settings, graph_config, seed)
    rate = keras.optimizers.schedules.CosineDecay(
        settings.learning_rate, settings.steps
    )
    trained.compile(
        optimizer=keras.optimizers.Adam(rate), loss="sparse_categorical_crossentropy"
    )
    trained.fit(data.repeat(), steps_per_epoch=settings.steps, shuffle=False, verbose=0)
    return model


def labeled_batches(
    graph: CitationGraph, labeled: np.ndarray, settings: Settings, seed: int
) -> tf.data.Dataset:
    data = tf.data.Dataset.from_tensor_slices(
        (graph.words[labeled], graph.labels[labeled])
    )
    return data.shuffle(len(labeled), seed=seed).batch(settings.batch_size)


def all_batches(
    graph: CitationGraph,
    labeled: np.ndarray,
    settings: Settings,
    graph_config: nsl.configs.GraphRegConfig,
    seed: int,
) -> tf.data.Dataset:
    """Makes batches of all papers with neighbors that are drawn anew each epoch."""
    is_labeled = np.zeros(len(graph.words), bool)
    is_labeled[labeled] = True
    data = nsl.data.neighbor_dataset(
        nearest(graph, settings.hops, settings.candidates),
        {"words": graph.words},
        graph.labels,
        is_labeled,
        neighbor_config=graph_config.neighbor_config,
        batch_size=min(settings.batch_size, len(graph.words)),
        sampling="weighted",
        seed=seed,
    )

    def count_equally(x: dict[str, tf.Tensor], y: tf.Tensor, weight: tf.Tensor) -> Any:
        # Heavy edges are drawn more often already; 0 still masks those not there.
        suffix = graph_config.neighbor_config.weight_suffix
        return (
            {k: tf.sign(v) if k.endswith(suffix) else v for k, v in x.items()},
            y,
            weight,
        )

    return data.map(count_equally)


def accuracy(model: keras.Model, graph: CitationGraph, rows: np.ndarray) -> float:
    answers = model(graph.words[rows], training=False).numpy().argmax(axis=1)
    return float(np.mean(answers == graph.labels[rows]))


# --- runs over several seeds


Splits = Callable[[int], Split]


@dataclasses.dataclass
class Runs:
    """One way of training with several seeds.

    Attributes:
      accuracies: On the test papers, one a seed.
      seconds: What training took, on the mean.
      cpu_seconds: The same of all processors together.
    """

    accuracies: np.ndarray
    seconds: float
    cpu_seconds: float


def run(
    graph: CitationGraph, splits: Splits, settings: Settings, seeds: Sequence[int]
) -> Runs:
    """Trains and tests with each seed, which also chooses the split."""
    accuracies = []
    start, cpu_start = time.perf_counter(), time.process_time()
    for seed in seeds:
        split = splits(seed)
        model = train(graph, split.train, settings, seed)
        accuracies.append(accuracy(model, graph, split.test))
    return Runs(
        np.array(accuracies),
        (time.perf_counter() - start) / len(seeds),
        (time.process_time() - cpu_start) / len(seeds),
    )


@dataclasses.dataclass
class Task:
    """Some labels to learn from.

    Attributes:
      title: Stands in the table.
      splits: By seed, what the table is made of.
      search_splits: By seed, what settings are chosen with.
      plain: Settings of the network that knows the labels alone.
      settings: Settings of the one that may know the graph too.
    """

    title: str
    splits: Splits
    search_splits: Splits
    plain: Settings = PLAIN
    settings: Settings = GRAPH


def make_tasks(graph: CitationGraph) -> list[Task]:
    def public(seed: int) -> Split:
        del seed
        return graph.public

    return [
        Task(f"{graph.name}, its split", public, public),
        Task(
            f"{graph.name}, 80/20",
            functools.partial(cora_data.random_split, graph),
            functools.partial(cora_data.random_split, graph, validate=True),
        ),
    ]


def format_table(
    tasks: Sequence[Task], results: Sequence[tuple[Runs, Runs]], seeds: int
) -> str:
    """Lays out mean and standard deviation in percent, and what a run took."""

    def cells(runs: Runs) -> str:
        mean, spread = 100 * runs.accuracies.mean(), 100 * runs.accuracies.std()
        took = f"{runs.seconds:.0f} s ({runs.cpu_seconds:.0f})"
        return f"{mean:8.1f} ± {spread:3.1f}{took:>12}"

    line = "-" * 84
    rows = [
        f"{task.title:<24}{len(task.splits(0).train):>8}{cells(plain)}{cells(regular)}"
        for task, (plain, regular) in zip(tasks, results, strict=True)
    ]
    return "\n".join(
        [
            line,
            f"{'test accuracy (%)':<24}{'labels':>8}"
            f"{'labels alone':>26}{'labels and graph':>26}",
            line,
            *rows,
            line,
            f"mean ± standard deviation of {seeds} seeds; seconds a run (and of CPU)",
        ]
    )


# --- the choice of settings


def grid(base: Settings, **choices: Sequence[Any]) -> Iterator[Settings]:
    for values in itertools.product(*choices.values()):
        yield dataclasses.replace(base, **dict(zip(choices, values, strict=True)))


def validated(
    graph: CitationGraph,
    title: str,
    splits: Splits,
    settings: Settings,
    seeds: Sequence[int],
) -> float:
    """Returns the mean accuracy on the validation papers, and prints it."""
    values = []
    for seed in seeds:
        split = splits(seed)
        model = train(graph, split.train, settings, seed)
        values.append(accuracy(model, graph, split.validation))
    print(f"{title}: {np.mean(values):.4f}  {settings}", flush=True)
    return float(np.mean(values))


def with_best_objective(
    graph: CitationGraph,
    title: str,
    splits: Splits,
    settings: Settings,
    seeds: Sequence[int],
) -> Settings:
    """Chooses the objective with the best mean accuracy on the validation papers."""
    if not settings.multiplier:
        return settings
    return max(
        grid(settings, objective=OBJECTIVES),
        key=lambda chosen: validated(graph, title, splits, chosen, seeds),
    )


def search(
    graph: CitationGraph, task: Task, seeds: Sequence[int], steps: int
) -> tuple[Settings, Settings]:
    """Chooses the settings with the best mean accuracy on the validation papers.

    Returns:
      The best settings without the graph and the best of all: the same ones where the
      graph is of no use.
    """

    @functools.cache
    def score(settings: Settings) -> float:
        return validated(graph, task.title, task.search_splits, settings, seeds)

    base = dataclasses.replace(GRAPH, steps=steps)
    plain = max(
        grid(base, multiplier=(0.0,), word_dropout=(0.0, 0.5), dropout=(0.2, 0.6)),
        key=score,
    )
    candidates = grid(base, hops=(1, 2, 4), multiplier=(0.1, 1.0))
    best = max((plain, *candidates), key=score)
    if best.multiplier:
        best = max(grid(best, objective=OBJECTIVES), key=score)
        best = max((best, *grid(best, temperature=(0.25, 0.7))), key=score)
    return plain, best


# --- pictures


def embeddings(
    model: keras.Model, graph: CitationGraph, rows: np.ndarray
) -> np.ndarray:
    """Projects what the hidden layer makes of papers onto a plane (t-SNE)."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    hidden = keras.Model(model.inputs[0], model.get_layer("embedding").output)
    vectors = hidden(graph.words[rows], training=False).numpy()
    projection = TSNE(
        perplexity=min(30, (len(rows) - 1) // 3), init="pca", random_state=0
    )
    # Its threads wait for each other very often, which takes minutes on a busy machine.
    with threadpool_limits(1):
        return projection.fit_transform(vectors)


def draw_pictures(
    graph: CitationGraph,
    task: Task,
    per_class: Sequence[int],
    seeds: Sequence[int],
    folder: Path,
    progress: Progress,
) -> list[Path]:
    curves: dict[str, list[np.ndarray]] = {"plain": [], "graph": []}
    for count in per_class:
        progress.part(f"{count} labels a class")
        splits = functools.partial(cora_data.few_labels, graph, count)
        title = f"{graph.name}, {count} labels a class"
        regular = with_best_objective(graph, title, splits, task.settings, seeds[:1])
        for name, settings in (("plain", task.plain), ("graph", regular)):
            curves[name].append(run(graph, splits, settings, seeds).accuracies)
    accuracies = {name: np.array(curve) for name, curve in curves.items()}

    progress.part("embeddings")
    rows = graph.public.test[:2000]
    planes = {}
    for name, settings in (("plain", task.plain), ("graph", task.settings)):
        model = train(graph, graph.public.train, settings, seeds[0])
        score = accuracy(model, graph, graph.public.test)
        planes[name] = cora_picture.Plane(embeddings(model, graph, rows), score)

    labels_path = folder / f"{graph.name}_labels.png"
    cora_picture.draw_labels(labels_path, graph.name, per_class, accuracies)
    embeddings_path = folder / f"{graph.name}_embeddings.png"
    title = f"{graph.name}: what the hidden layer makes of {len(rows)} test papers"
    cora_picture.draw_embeddings(embeddings_path, title, planes, graph.labels[rows])
    return [labels_path, embeddings_path]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="an .npz file of a citation graph")
    parser.add_argument(
        "--output_dir",
        type=Path,
        default=Path("cora"),
        help="folder of the pictures and the table (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds", type=int, help="number of seeds (default: 10, with --quick 2)"
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="choose settings on the validation papers first",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="fewer seeds, steps and points; without --data on a made-up graph",
    )
    options = parser.parse_args(arguments)
    if options.seeds is None:
        options.seeds = 2 if options.quick else 10
    if options.seeds < 1:
        parser.error(f"--seeds must be at least 1, received {options.seeds}")
    if options.data is None and not options.quick:
        parser.error(f"--data is missing (or --quick).\n\n{cora_data.FORMAT}")
    if options.data is None:
        with tempfile.TemporaryDirectory() as folder:
            made_up = Path(folder) / "made-up.npz"
            cora_data.synthesize(made_up)
            graph = cora_data.load(made_up)
    else:
        graph = cora_data.load(options.data)

    seeds = range(options.seeds)
    curve_seeds = seeds[:3]
    steps = QUICK_STEPS if options.quick else GRAPH.steps
    per_class = QUICK_PER_CLASS if options.quick else (5, 10, 20, 50, 100)
    progress = Progress()
    tasks = make_tasks(graph)
    results = []
    for task in tasks:
        if options.search:
            progress.part(f"{task.title}: choosing settings")
            task.plain, task.settings = search(graph, task, seeds[:2], steps)
        else:
            task.plain = dataclasses.replace(PLAIN, steps=steps)
            task.settings = with_best_objective(
                graph,
                task.title,
                task.search_splits,
                dataclasses.replace(GRAPH, steps=steps),
                seeds[:2],
            )
        progress.part(f"{task.title}: labels alone")
        plain = run(graph, task.splits, task.plain, seeds)
        progress.part(f"{task.title}: labels and graph")
        results.append((plain, run(graph, task.splits, task.settings, seeds)))
    options.output_dir.mkdir(parents=True, exist_ok=True)
    table = format_table(tasks, results, options.seeds)
    (options.output_dir / f"{graph.name}.txt").write_text(f"{table}\n")
    print(f"\n{table}\n", flush=True)
    paths = draw_pictures(
        graph, tasks[0], per_class, curve_seeds, options.output_dir, progress
    )
    progress.part("done")
    print("pictures:", *paths)


if __name__ == "__main__":
    main()
