"""Choosing settings with few trainings, by their scores on validation data."""

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from progress import Progress
from seeds import write_json

Settings = TypeVar("Settings")


def _grid(**choices: Sequence[Any]) -> list[dict[str, Any]]:
    """Lists all combinations of what may be chosen."""
    combinations = itertools.product(*choices.values())
    return [dict(zip(choices, values, strict=True)) for values in combinations]


PLAIN = _grid(
    multiplier=[0.0],
    word_dropout=[0.0, 0.5, 0.8],
    dropout=[0.2, 0.5, 0.8],
    learning_rate=[0.003, 0.01],
)
REGULARIZED = _grid(
    hops=[2, 4],
    sharpening_temperature=[0.25, 0.4],
    distribution_alignment=[0.5, 1.0],
    dropout=[0.2, 0.6],
)
# How many settings a round compares, at most, and with how many seeds each.
ROUNDS = ((1000, 1), (4, 3), (2, 5))


def search(
    make: Callable[..., Settings],
    score: Callable[[Settings, int], float],
    path: Path,
    progress: Progress,
) -> tuple[Settings, Settings]:
    """Chooses settings of a network without the graph, and of one that may use it.

    The second are the first where the graph is of no use.

    Args:
      make: Makes settings of some of their values, such as `multiplier=0.0`.
      score: The accuracy of settings with a seed, on validation data.
      path: A file of all scores; those that stand in it are not computed again.
      progress: Where to tell what is at work.
    """
    plain = best([make(**choice) for choice in PLAIN], score, path, progress)
    candidates = [plain, *(make(**choice) for choice in REGULARIZED)]
    return plain, best(candidates, score, path, progress)


def best(
    candidates: Sequence[Settings],
    score: Callable[[Settings, int], float],
    path: Path,
    progress: Progress,
) -> Settings:
    """Chooses the settings with the best mean score, by successive halving.

    Few seeds tell bad settings from good ones, and only the best need more seeds to be
    told apart (Jamieson and Talwalkar, 2016, https://arxiv.org/abs/1502.07943).

    Args:
      candidates: What may be chosen. Of equally good ones the first is.
      score: Scores settings with a seed; more is better.
      path: As in `search`.
      progress: As in `search`.
    """
    scores: dict[str, float] = {}
    if path.exists():
        scores = json.loads(path.read_text())

    def known_score(settings: Settings, seed: int) -> float:
        key = f"{settings} seed={seed}"
        if key not in scores:
            progress.step(key)
            scores[key] = score(settings, seed)
            write_json(path, scores)
        return scores[key]

    ranked = list(candidates)
    for count, seeds in ROUNDS:
        progress.part(f"{min(count, len(ranked))} settings, {seeds} seed(s) each")
        means = {
            place: np.mean([known_score(settings, seed) for seed in range(seeds)])
            for place, settings in enumerate(ranked[:count])
        }
        order = sorted(means, key=means.__getitem__, reverse=True)
        ranked = [ranked[place] for place in order]
        for place, settings in zip(order[:3], ranked, strict=False):
            print(f"validation {means[place]:.2f}%  {settings}", flush=True)
    return ranked[0]
