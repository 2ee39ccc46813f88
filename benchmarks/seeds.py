"""Repeats a comparison over several seeds, with a results file and a table."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

Figures = Mapping[str, Sequence[float]]
"""The results of one seed: a list per table row, with one number per column."""


def over_seeds(
    measure: Callable[[int], Figures],
    seeds: Sequence[int],
    path: Path,
    settings: object,
) -> list[Figures]:
    """Runs a comparison for each seed, and saves its results after each.

    An interrupted program resumes: seeds whose results are in the file are not run
    again, unless the settings have changed.

    Args:
      measure: Runs one seed and returns its results.
      seeds: The seeds.
      path: The results file, `{"settings": ..., "seeds": {seed: figures}}`.
      settings: An object whose `repr` changes whenever the results may change.

    Returns:
      The results of each seed.
    """
    known: dict[str, Figures] = {}
    if path.exists():
        kept = json.loads(path.read_text())
        if kept["settings"] == repr(settings):
            known = kept["seeds"]
    path.parent.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        if str(seed) not in known:
            print(f"{path.stem}: seed {seed}", file=sys.stderr, flush=True)
            known[str(seed)] = measure(seed)
            beside = path.with_suffix(".tmp")
            beside.write_text(json.dumps({"settings": repr(settings), "seeds": known}))
            os.replace(beside, path)
    return [known[str(seed)] for seed in seeds]


def format_table(
    figures: Sequence[Figures],
    title: str,
    columns: Sequence[str] = ("plain", "regularized"),
    beside: tuple[str, Mapping[str, str]] | None = None,
) -> str:
    """Formats the results of all seeds as a text table.

    Args:
      figures: The results, as returned by `over_seeds`. A row may have fewer numbers
        than there are columns, and may be missing after the first seeds.
      title: The quantity, such as 'test accuracy in %'.
      columns: The titles of the columns.
      beside: The title of an extra column, such as 'NSL 1.4', and its cells by row.
    """
    width = max(len(title), *map(len, figures[0])) + 2
    titles = [*columns, *([beside[0]] if beside else [])]
    line = "-" * (width + 16 * len(titles))
    lines = [f"{title:{width}}" + "".join(f"{column:>16}" for column in titles), line]
    for row in figures[0]:
        sides = zip(*(found[row] for found in figures if row in found), strict=True)
        cells = [f"{np.mean(side):.1f} ± {np.std(side):.1f}" for side in sides]
        if beside and row in beside[1]:
            cells.append(beside[1][row])
        lines.append(f"{row:{width}}" + "".join(f"{cell:>16}" for cell in cells))
    count = f"{len(figures)} seeds" if len(figures) > 1 else "1 seed"
    return "\n".join([*lines, line, f"mean ± standard deviation of {count}"])
