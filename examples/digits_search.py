"""Compares settings of part (b) of examples/digits.py on its validation images.

    python examples/digits_search.py

takes about 20 minutes. The test images stay unseen.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from digits import EPSILONS
from digits_adversarial import (
    PGD_ITERATIONS,
    AdversarialSettings,
    accuracy_under_attack,
    train_on_all,
)
from digits_data import Split, load_split

ADVERSARIAL = AdversarialSettings()


def grid(base: Any, **choices: Sequence[Any]) -> Iterator[Any]:
    for values in itertools.product(*choices.values()):
        yield dataclasses.replace(base, **dict(zip(choices, values, strict=True)))


def search_adversaries(split: Split, seeds: Sequence[int]) -> None:
    """Prints accuracies with all labels, clean and under PGD."""
    candidates = [
        *grid(ADVERSARIAL, multiplier=(0.0,), learning_rate=(0.001, 0.003, 0.01)),
        *grid(ADVERSARIAL, multiplier=(0.2, 1.0, 5.0), step_size=(0.05, 0.1, 0.2, 0.3)),
    ]
    for settings in candidates:
        curves = [
            accuracy_under_attack(
                train_on_all(split.train, settings, seed, settings.multiplier > 0),
                split.validation,
                PGD_ITERATIONS,
                EPSILONS,
            )
            for seed in seeds
        ]
        clean, attacked = np.mean(curves, axis=0)[0], np.mean(curves)
        print(
            f"clean {clean:.4f}, over epsilons {attacked:.4f}  {settings}", flush=True
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="default: %(default)s")
    seeds = range(parser.parse_args(arguments).seeds)
    split = load_split()
    search_adversaries(split, seeds)


if __name__ == "__main__":
    main()
