"""Repeats a comparison over several seeds, with a results file and a table."""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from progress import Progress

Figures = dict[str, tuple[float, ...]]
"""The results of one seed: a tuple per table row, with one number per column."""


class _Parser(argparse.ArgumentParser):
    """A parser that reduces --seeds to one with --quick."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, rest = super().parse_known_args(args, namespace)
        if options.quick:
            options.seeds = options.seeds[:1]
        return options, rest


def make_parser(
    description: str | None, output_dir: str, quick: str, seeds: int = 5
) -> argparse.ArgumentParser:
    """Returns a parser with the arguments --output_dir, --seeds and --quick.

    Args:
      description: What the program does.
      output_dir: The default output folder.
      quick: The help text of --quick, which also reduces the seeds to the first.
      seeds: The default number of seeds. The parsed `seeds` is a range of them.

    Returns:
      The parser.
    """
    parser = _Parser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output_dir", type=Path, default=output_dir, help="default: %(default)s")
    number = "number of seeds (default: %(default)s)"
    add("--seeds", type=_first_seeds, default=str(seeds), help=number)
    add("--quick", action="store_true", help=quick)
    return parser


def _first_seeds(number: str) -> range:
    if int(number) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, received {number}")
    return range(int(number))


def write_json(path: Path, content: object) -> None:
    """Writes a file atomically, and creates its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(content, indent=1))
    os.replace(beside, path)


def over_seeds(
    measure: Callable[[int], Figures],
    seeds: Sequence[int],
    path: Path,
    settings: object,
    progress: Progress,
) -> list[Figures]:
    """Runs a comparison for each seed, and saves its results after each.

    An interrupted program resumes: seeds whose results are in the file are not run
    again, unless the settings have changed.

    Args:
      measure: Runs one seed and returns its results.
      seeds: The seeds.
      path: The results file, `{"settings": ..., "seeds": {seed: figures}}`.
      settings: An object whose `repr` changes whenever the results may change.
      progress: Reports the current seed.

    Returns:
      The results of each seed.
    """
    known: dict[str, Figures] = {}
    if path.exists():
        kept = json.loads(path.read_text())
        if kept["settings"] == repr(settings):
            known = kept["seeds"]
    for seed in seeds:
        if str(seed) in known:
            continue
        progress.part(f"seed {seed}")
        known[str(seed)] = measure(seed)
        write_json(path, {"settings": repr(settings), "seeds": known})
    return [known[str(seed)] for seed in seeds]


def mean_and_spread(values: Sequence[float]) -> str:
    """Returns the mean and the standard deviation over seeds, such as `77.2 ± 3.6`."""
    return f"{np.mean(values):.1f} ± {np.std(values):.1f}"


def format_table(
    figures: Sequence[Figures],
    title: str,
    beside: tuple[str, Mapping[str, str]] | None = None,
    columns: Sequence[str] = ("plain", "regularized"),
) -> str:
    """Formats the results of all seeds as a text table.

    Args:
      figures: The results, as returned by `over_seeds`.
      title: The quantity, such as 'test accuracy in %'.
      beside: The title of an extra column, such as 'NSL 1.4', and its cells by row.
      columns: The titles of the result columns.
    """
    width = max(len(title), *map(len, figures[0])) + 2
    titles = [*columns, *([beside[0]] if beside else [])]
    line = "-" * (width + 16 * len(titles))
    lines = [f"{title:{width}}" + "".join(f"{column:>16}" for column in titles), line]
    for row in figures[0]:
        measured = zip(*(found[row] for found in figures), strict=True)
        cells = [mean_and_spread(values) for values in measured]
        if beside and row in beside[1]:
            cells.append(beside[1][row])
        lines.append(f"{row:{width}}" + "".join(f"{cell:>16}" for cell in cells))
    count = f"{len(figures)} seeds" if len(figures) > 1 else "1 seed"
    return "\n".join([*lines, line, f"mean ± standard deviation of {count}"])
