"""benchmarks/index_shards.py counts the edges that meet in a shard."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from nsl.tools.embeddings import Embeddings

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_shares_of_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    # Other tests know a module of this name.
    monkeypatch.delitem(sys.modules, "build_graph", raising=False)
    index_shards = importlib.import_module("index_shards")
    vectors = np.random.default_rng(0).standard_normal((600, 8)).astype(np.float32)
    embeddings = Embeddings([b"%d" % i for i in range(600)], vectors)
    shares = index_shards.shares_met(embeddings, 6, [0, 1, 5], 4)
    assert list(shares) == [
        "at random",
        *(f"by centroids, {v} visits" for v in (0, 1, 5)),
    ]
    at_random, *by_centroids = shares.values()
    # 2400 edges, of which a sixth meet: four standard errors.
    assert abs(at_random - 1 / 6) < 4 * np.sqrt(0.14 / 2400)
    assert at_random < by_centroids[0] < by_centroids[1] < by_centroids[2] == 1
