"""Tests of `nsl.tools.similar_pairs`."""

import functools

import numpy as np
import pytest

from nsl.tools.embeddings import Embeddings
from nsl.tools.indexes import AllPairs
from nsl.tools.lsh import Buckets
from nsl.tools.similar_pairs import Search, nearest_pairs, similar_pairs
from nsl.tools.similarity import NumpyProduct, Pairs, num_comparisons, one_block


def random_embeddings(count: int) -> Embeddings:
    vectors = np.random.default_rng(0).standard_normal((count, 3)).astype(np.float32)
    return Embeddings([b"%d" % i for i in range(count)], vectors)


@pytest.mark.parametrize("rows", [1, 20, 700, 1499])
def test_two_blocks_are_compared_with_each_other_only(rows: int) -> None:
    embeddings = random_embeddings(1500)
    search = Search("Comparing", one_block(rows, 1500 - rows))
    assert num_comparisons(search.order) == rows * (1500 - rows)
    found = [
        pair
        for pairs in similar_pairs(embeddings, [search], NumpyProduct(), 0.99)
        for pair in zip(pairs.sources.tolist(), pairs.targets.tolist(), strict=True)
    ]
    units = embeddings.unit_rows(slice(None)).astype(np.float64)
    expected = np.argwhere(units[:rows] @ units[rows:].T >= 0.99)
    expected[:, 1] += rows
    assert len(found) == len(set(found))
    assert {tuple(sorted(pair)) for pair in found} == set(map(tuple, expected.tolist()))


def test_blocks_together_give_what_one_search_gives() -> None:
    embeddings = random_embeddings(90)
    product = NumpyProduct()

    def pairs_of(some: list[Search]) -> set[tuple[int, ...]]:
        return {
            tuple(sorted(pair))
            for pairs in similar_pairs(embeddings, some, product, 0.5)
            for pair in zip(pairs.sources.tolist(), pairs.targets.tolist(), strict=True)
        }

    codes = np.random.default_rng(1).integers(0, 4, (3, 90), np.int32)
    buckets = Buckets(codes)
    by_rounds = pairs_of(list(buckets.searches()))
    assert by_rounds < pairs_of(list(AllPairs(90).searches()))
    together = [
        Search("", buckets.order(number), functools.partial(buckets.is_new, number))
        for number in (2, 0, 1)
    ]
    assert pairs_of(together) == by_rounds
    nearest = nearest_pairs(embeddings, AllPairs(90).searches(), product, -1.0, 4)
    assert np.bincount(Pairs.joined(nearest).sources).tolist() == [4] * 90
