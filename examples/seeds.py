"""The same comparison over several seeds: kept in a file, laid out in a table."""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from progress import Progress

Figures = dict[str, tuple[float, ...]]
"""What one seed gave: by row of the table, in percent, a number a column."""


class _Parser(argparse.ArgumentParser):
    """With --quick, one seed will do."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, rest = super().parse_known_args(args, namespace)
        if options.quick:
            options.seeds = options.seeds[:1]
        return options, rest


def make_parser(
    description: str | None, output_dir: str, quick: str, seeds: int = 5
) -> argparse.ArgumentParser:
    """Makes the command line of a comparison: --output_dir, --seeds and --quick.

    Args:
      description: What the program does.
      output_dir: The folder it writes to unless told otherwise.
      quick: What --quick does, beside taking the first seed alone.
      seeds: Their number unless told otherwise; `seeds` of what is parsed lists them.

    Returns:
      The parser.
    """
    parser = _Parser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output_dir", type=Path, default=output_dir, help="default: %(default)s")
    number = "their number (default: %(default)s)"
    add("--seeds", type=_first_seeds, default=str(seeds), help=number)
    add("--quick", action="store_true", help=quick)
    return parser


def _first_seeds(number: str) -> range:
    if int(number) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, received {number}")
    return range(int(number))


def write_json(path: Path, content: object) -> None:
    """Writes a file as a whole or not at all, into a folder that need not exist."""
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
    """Measures with each seed, and keeps what came of it in a file after each.

    An interrupted program goes on where it was: a seed whose figures stand in the file
    is not run again, unless the settings have changed since.

    Args:
      measure: Runs one seed.
      seeds: All that are wanted.
      path: The file, `{"settings": ..., "seeds": {seed: figures}}`.
      settings: Anything whose `repr` changes when the figures may.
      progress: Where to tell which seed is at work.

    Returns:
      The figures of each seed.
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
    """Lays out the figures of all seeds, a line a row.

    Args:
      figures: What `over_seeds` returns.
      title: What the figures are, such as 'test accuracy in %'.
      beside: The title of one more column, such as 'NSL 1.4', and its cells by row.
      columns: The titles of the figures' columns.
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
