"""Compares settings of examples on their training data; the test data stays unseen.

    python benchmarks/settings.py tables
    python benchmarks/settings.py robust_table
    python benchmarks/settings.py graph --data=aclImdb
    python benchmarks/settings.py distill --data=aclImdb

The first two try settings in 3-fold cross-validation; the examples have the best ones.
The others run examples/imdb/graph.py and distill.py as they are on a held-out fifth of
the training reviews: change their settings, and run again.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import KFold

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "imdb"))

import distill
import graph
import reviews
import robust_table
import tables

Errors = dict[str, float]
FOLDS = KFold(3, shuffle=True, random_state=0)


def of_tables() -> Iterator[tuple[str, list[Errors]]]:
    """Yields settings, and errors of the prediction by row in each fold."""
    patients, _ = tables.load_patients()
    tried = [{"epochs": epochs} for epochs in (3, 5, 10, 20, 40)]
    tried += [{"epochs": 10, "step": step} for step in (0.5, 1.0, 2.0)]
    for settings in tried:
        found = []
        for seed, parts in enumerate(FOLDS.split(patients.y)):
            known, new = (
                tables.Patients({n: x[i] for n, x in patients.x.items()}, patients.y[i])
                for i in parts
            )
            model = tables.train(known, seed, **settings)
            found.append(tables.evaluate(model, new, seed))
        yield str(settings), found


def of_robust_table() -> Iterator[tuple[str, list[Errors]]]:
    """Yields settings, and correct diagnoses in percent by row in each fold."""
    patients, _, radii = robust_table.load_patients()
    *names, trades = robust_table.NAMES
    tried: list[tuple[str, dict[str, Any]]]
    tried = [(name, {"epochs": e}) for name in names for e in (15, 30, 60, 120)]
    for epochs in (30, 60, 120):
        tried += [(trades, {"epochs": epochs, "beta": b}) for b in (1.0, 3.0, 6.0)]
    for name, settings in tried:
        found = []
        for seed, parts in enumerate(FOLDS.split(patients.y)):
            known, new = (
                robust_table.Patients(patients.x[i], patients.y[i]) for i in parts
            )
            model = robust_table.train(name, known, radii, seed, **settings)
            found.append(robust_table.evaluate(model, new, radii, "quick"))
        yield f"{name}, {settings}", found


def hold_out(given: reviews.Reviews) -> tuple[reviews.Reviews, reviews.Reviews]:
    """Splits off a fifth of the reviews."""
    texts, labels = given
    order = np.random.default_rng(0).permutation(len(labels))
    held_out, rest = np.split(order, [len(order) // 5])
    new, known = (([texts[row] for row in r], labels[r]) for r in (held_out, rest))
    return known, new


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    searches = {"tables": of_tables, "robust_table": of_robust_table}
    held_out = {"graph": graph, "distill": distill}
    parser.add_argument("example", choices=[*searches, *held_out])
    parser.add_argument("--data", type=Path, help="folder of film reviews")
    options = parser.parse_args()
    if options.example in held_out:
        if options.data is None:
            parser.error("--data is missing")
        known, new = hold_out(reviews.load(options.data, "train"))
        example = held_out[options.example]
        print(example.compare(example.make_task(known, new, quick=False), seed=0))
        return
    for settings, found in searches[options.example]():
        means = {row: np.mean([fold[row] for fold in found]) for row in found[0]}
        shown = "  ".join(f"{row} {mean:.1f}" for row, mean in means.items())
        print(f"{settings}: {shown}", flush=True)


if __name__ == "__main__":
    main()
