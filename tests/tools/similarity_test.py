"""Tests of `nsl.tools.similarity`."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from nsl.progress import Progress
from nsl.tools import build_graph, similarity
from nsl.tools.embeddings import Embeddings
from nsl.tools.similarity import (
    NumpyProduct,
    Order,
    Product,
    TensorFlowProduct,
    candidate_pairs,
    fastest_product,
    num_comparisons,
    one_run,
)
from tests.tools.example_files import write_examples

PRODUCTS = [NumpyProduct(), TensorFlowProduct("/CPU:0")]


def unit_rows(count: int, dimensions: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, dimensions))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("product", PRODUCTS, ids=["numpy", "tensorflow"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (64, 33), (512, 100)])
def test_products(product: Product, shape: tuple[int, int]) -> None:
    rows, columns = unit_rows(shape[0], 6, 1), unit_rows(shape[1], 6, 2)
    full = rows @ columns.T
    margin = 1e-6  # the two libraries may round differently
    for bound in (-1.1, 0.3, 1.1):
        found = set(
            zip(*map(np.ndarray.tolist, product(rows, columns, bound)[:2]), strict=True)
        )
        assert found >= set(map(tuple, np.argwhere(full >= bound + margin).tolist()))
        assert found <= set(map(tuple, np.argwhere(full >= bound - margin).tolist()))
    bounds = (
        np.linspace(0, 1, shape[0], dtype=np.float32),
        np.linspace(1, 0, shape[1], dtype=np.float32),
    )
    found = set(
        zip(*map(np.ndarray.tolist, product(rows, columns, bounds)[:2]), strict=True)
    )
    lower = np.minimum(bounds[0][:, np.newaxis], bounds[1])
    assert found >= set(map(tuple, np.argwhere(full >= lower + margin).tolist()))
    assert found <= set(map(tuple, np.argwhere(full >= lower - margin).tolist()))


@pytest.mark.parametrize("product", PRODUCTS, ids=["numpy", "tensorflow"])
def test_products_for_the_best(product: Product) -> None:
    rows, columns = unit_rows(300, 6, 1), unit_rows(200, 6, 2)
    full = rows @ columns.T
    none = np.full(300, -2, np.float32), np.full(200, -2, np.float32)
    *found, values = product(rows, columns, none, 2, 1e-5)
    mask = np.zeros_like(full, np.bool_)
    mask[tuple(found)] = True
    np.testing.assert_allclose(values, full[tuple(found)], atol=1e-6)
    assert mask.sum() == len(values) < 3 * 500 + 50
    assert mask[np.arange(300), full.argmax(axis=1)].all()
    assert mask[full.argmax(axis=0), np.arange(200)].all()
    assert mask[full >= np.sort(full, axis=1)[:, -3:-2]].all()


def pairs_found(
    order: Order, vectors: np.ndarray, bound: float
) -> list[tuple[int, int]]:
    embeddings = Embeddings([b""] * len(vectors), vectors)
    found = []
    with Progress("", num_comparisons(order), "pairs") as progress:
        for candidates in candidate_pairs(
            embeddings, order, NumpyProduct(), bound, progress
        ):
            found += [
                tuple(sorted(pair))
                for pair in zip(
                    candidates.sources.tolist(),
                    candidates.targets.tolist(),
                    strict=True,
                )
            ]
        assert progress._done == pytest.approx(num_comparisons(order))
    return found


def test_one_run_compares_each_pair_once() -> None:
    found = pairs_found(one_run(2100), unit_rows(2100, 2, 0), 2.0)
    assert found == []
    found = pairs_found(one_run(70), unit_rows(70, 2, 0), -2.0)
    assert sorted(found) == [(i, j) for i in range(70) for j in range(i + 1, 70)]


@pytest.mark.parametrize("seed", range(4))
def test_only_pairs_within_a_run_are_compared(seed: int) -> None:
    random = np.random.default_rng(seed)
    codes = random.integers(0, (1, 3, 40, 900)[seed], 700)
    nodes = np.argsort(codes, kind="stable")
    ordered = codes[nodes]
    order = Order(nodes, np.searchsorted(ordered, ordered, side="right"))
    found = pairs_found(order, unit_rows(700, 3, seed), -2.0)
    same = np.triu(codes[:, np.newaxis] == codes, 1)
    assert sorted(found) == sorted(map(tuple, np.argwhere(same).tolist()))


def test_tensorflow_is_asked_only_where_a_device_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gpus(kind: str) -> list[str]:
        asked.append(kind)
        return found

    asked: list[str] = []
    found: list[str] = []
    monkeypatch.setattr(tf.config, "list_physical_devices", gpus)
    monkeypatch.setattr(similarity.glob, "glob", lambda pattern: [])  # type: ignore[attr-defined]
    monkeypatch.setattr(similarity.sys, "platform", "linux")  # type: ignore[attr-defined]
    with fastest_product() as product:
        assert isinstance(product, NumpyProduct)
    assert asked == []
    monkeypatch.setattr(similarity.glob, "glob", lambda pattern: ["/dev/nvidia0"])  # type: ignore[attr-defined]
    with fastest_product() as product:
        assert isinstance(product, NumpyProduct)
    assert asked == ["GPU"]
    found.append("GPU:0")
    tensor_float = tf.config.experimental.tensor_float_32_execution_enabled
    before = tensor_float()
    with fastest_product() as product:
        assert isinstance(product, TensorFlowProduct)
        assert not tensor_float()
    assert tensor_float() == before


@pytest.mark.parametrize("k", [None, 3])
def test_both_products_build_the_same_graph(
    k: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"id": [f"n{i}"], "embedding": row}
        for i, row in enumerate(unit_rows(600, 4, 0).astype(float))
    ]
    embeddings = write_examples(tmp_path / "e", rows)
    for name, product in zip(("numpy", "tensorflow"), PRODUCTS, strict=True):
        monkeypatch.setattr(
            similarity,
            "fastest_product",
            lambda workers, p=product: contextlib.nullcontext(p),
        )
        build_graph(embeddings, tmp_path / name, 0.9, num_neighbors=k)
    lines = {name: (tmp_path / name).read_text() for name in ("numpy", "tensorflow")}
    assert sorted(lines["numpy"].split("\n")) == sorted(lines["tensorflow"].split("\n"))
    assert len(lines["numpy"]) > 1000
