"""Simulates what a graph loses where each shard of the nodes has an index of its own.

Nodes are put into shards at random, or by the nearest of as many centroids as there are
shards. Then the edges of the exact graph are counted whose two nodes meet in a shard.

Examples:
  python benchmarks/index_shards.py
  python benchmarks/index_shards.py --nodes=200000 --data=noise
"""

import argparse

import build_graph
import numpy as np

from nsl.tools.embeddings import Embeddings
from nsl.tools.inverted_lists import InvertedLists
from nsl.tools.similar_pairs import sample_pairs
from nsl.tools.similarity import NumpyProduct

_SAMPLE = 1000


def shares_met(
    embeddings: Embeddings, shards: int, visits: list[int], k: int
) -> dict[str, float]:
    """Returns which share of the edges of a sample meet in a shard.

    Args:
      embeddings: The vectors.
      shards: The number of shards.
      visits: In how many shards besides its own a node is searched for.
      k: How many neighbors a node has.

    Returns:
      The share for shards at random, where a node is searched for in its own, and for
      shards by centroids with each number of visits.
    """
    edges = sample_pairs(embeddings, _SAMPLE, NumpyProduct(), -1.0, k)
    random = np.random.default_rng(0).integers(shards, size=len(embeddings))
    together = random[edges.sources] == random[edges.targets]
    shares = {"at random": float(together.mean())}
    lists = InvertedLists(embeddings, 0, lists=shards)
    needed = lists.probes_needed(edges.sources, edges.targets)[0].min(axis=0)
    for count in visits:
        shares[f"by centroids, {count} visits"] = float((needed <= count).mean())
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=50_000)
    parser.add_argument("--neighbors", type=int, default=15)
    parser.add_argument("--shards", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--visits", type=int, nargs="+", default=[0, 1, 2, 4, 8])
    parser.add_argument("--data", default="mild", choices=build_graph.KINDS)
    build_graph.add_reviews(parser)
    flags = parser.parse_args()
    vectors = build_graph.make_vectors(flags.nodes, 128, flags.data, flags.reviews)
    embeddings = Embeddings([b"%d" % i for i in range(len(vectors))], vectors)
    print(f"{len(vectors):,} x 128, {flags.data}, {flags.neighbors} neighbors")
    for shards in flags.shards:
        shares = shares_met(embeddings, shards, flags.visits, flags.neighbors)
        text = "; ".join(f"{name}: {share:.3f}" for name, share in shares.items())
        print(f"{shards} shards: {text}", flush=True)


if __name__ == "__main__":
    main()
