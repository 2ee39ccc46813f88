"""Tests of `nsl.tools.build_graph`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsl.configs import GraphBuilderConfig
from nsl.tools import build_graph, build_graph_from_config
from nsl.tools.build_graph import GraphBuilder, main
from tests.tools.example_files import write_examples

GOLDEN = Path(__file__).parents[1] / "golden" / "graph_building.json"
LAUNCHER = Path(__file__).parents[2] / "tools" / "build_graph.py"


def write_vectors(path: Path, vectors: np.ndarray, ids: list[str] | None = None) -> str:
    ids = ids or [f"n{i}" for i in range(len(vectors))]
    return write_examples(
        path,
        [
            {"id": [name], "embedding": [float(v) for v in vector]}
            for name, vector in zip(ids, vectors, strict=True)
        ],
    )


def read_edges(path: Path) -> list[tuple[str, str, str]]:
    text = path.read_text(encoding="utf-8")
    return [tuple(line.split("\t")) for line in text.split("\n")[:-1]]


def grouped_vectors(nodes: int, dimensions: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    centers = random.standard_normal((nodes // 5 + 1, dimensions))
    noise = random.standard_normal((nodes, dimensions)) * 0.3
    return (centers[np.arange(nodes) // 5] + noise).astype(np.float32)


def cosines(vectors: np.ndarray) -> np.ndarray:
    wide = vectors.astype(np.float64)
    norms = np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-6)
    return (wide / norms) @ (wide / norms).T


def slow_edges(vectors: np.ndarray, threshold: float) -> set[tuple[str, str]]:
    similarity = cosines(vectors)
    return {
        (f"n{i}", f"n{j}")
        for i, j in np.argwhere(similarity >= threshold).tolist()
        if i != j
    }


@pytest.mark.parametrize(
    "case",
    json.loads(GOLDEN.read_text())["cases"],
    ids=lambda case: str(case["config"]),
)
def test_golden(case: dict[str, Any], tmp_path: Path) -> None:
    inputs = case["inputs"]
    embeddings = write_vectors(
        tmp_path / "e.tfr", np.array(inputs["embeddings"]), inputs["ids"]
    )
    graph = tmp_path / "graph.tsv"
    build_graph_from_config([embeddings], graph, GraphBuilderConfig(**case["config"]))
    edges = sorted((s, t, float(w)) for s, t, w in read_edges(graph))
    expected = sorted((s, t, float(w)) for s, t, w in case["expected"])
    assert [edge[:2] for edge in edges] == [edge[:2] for edge in expected]
    np.testing.assert_allclose(
        [edge[2] for edge in edges], [edge[2] for edge in expected], atol=1e-6
    )


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(
        st.tuples(*[st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0])] * 3),
        max_size=30,
    ),
    threshold=st.sampled_from([-1.0, -0.31, 0.0001, 0.33, 0.77, 0.999]),
)
def test_agrees_with_all_pairs(
    values: list[tuple[float, ...]],
    threshold: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("job")
    vectors = np.array(values, np.float32).reshape(-1, 3)
    embeddings = write_vectors(folder / "e.tfr", vectors)
    report = build_graph(embeddings, folder / "g.tsv", threshold)
    edges = read_edges(folder / "g.tsv")
    assert len(edges) == len(set(edges)) == report["edges"]
    if threshold > -1:
        assert {edge[:2] for edge in edges} == slow_edges(vectors, threshold)
    else:  # exactly opposite vectors may come out just above or below -1
        assert {edge[:2] for edge in edges} >= slow_edges(vectors, -1 + 1e-12)


def test_many_blocks(tmp_path: Path) -> None:
    vectors = grouped_vectors(2500, 24)
    embeddings = write_vectors(tmp_path / "e.tfr", vectors)
    build_graph(embeddings, tmp_path / "g.tsv", similarity_threshold=0.8)
    edges = read_edges(tmp_path / "g.tsv")
    assert {edge[:2] for edge in edges} == slow_edges(vectors, 0.8)
    assert len(edges) == len(set(edges))
    similarity = cosines(vectors)
    for source, target, weight in edges[::97]:
        expected = similarity[int(source[1:]), int(target[1:])]
        assert weight == f"{expected:.6f}"


def test_threshold_is_decided_in_float64(tmp_path: Path) -> None:
    # In float32 all these similarities are the same number or its neighbors.
    angle = np.arccos(0.9)
    directions = angle + np.arange(-50, 51) * 2e-9
    vectors = np.zeros((102, 16), np.float32)
    vectors[0, 0] = 1
    vectors[1:, 0] = np.cos(directions) * 1e4
    vectors[1:, 1] = np.sin(directions) * 1e4
    vectors[1:, 2] = np.random.default_rng(0).random(101) * 5
    expected = cosines(vectors)[0, 1:]
    threshold = float(np.median(expected))
    assert np.ptp(expected) < 1e-6
    build_graph(write_vectors(tmp_path / "e", vectors), tmp_path / "g", threshold)
    found = {t for s, t, _ in read_edges(tmp_path / "g") if s == "n0"}
    assert found == {f"n{i + 1}" for i in np.flatnonzero(expected >= threshold)}
    assert 0 < len(found) < 101


def test_equal_vectors_reach_threshold_one(tmp_path: Path) -> None:
    vectors = np.random.default_rng(3).standard_normal((40, 7)).astype(np.float32)
    vectors = np.concatenate((vectors, vectors, vectors * np.float32(4)))
    build_graph(write_vectors(tmp_path / "e", vectors), tmp_path / "g", 1.0)
    edges = {edge[:2] for edge in read_edges(tmp_path / "g")}
    groups = [[i, i + 40, i + 80] for i in range(40)]
    assert edges == {
        (f"n{a}", f"n{b}") for group in groups for a in group for b in group if a != b
    }


def test_huge_and_tiny_vectors(tmp_path: Path) -> None:
    vectors = np.array(
        [[3e38, 3e38], [1e38, 1e38], [1e-7, 1e-7], [0, 0], [1, 1]], np.float32
    )
    build_graph(write_vectors(tmp_path / "e", vectors), tmp_path / "g", 0.05)
    weights = {edge[:2]: edge[2] for edge in read_edges(tmp_path / "g")}
    assert weights["n0", "n1"] == weights["n0", "n4"] == "1.000000"
    # Below a norm of 1e-6 a vector is divided by 1e-6, not by its norm.
    assert weights["n2", "n4"] == "0.141421"
    assert ("n3", "n4") not in weights


def slow_nearest(
    vectors: np.ndarray, k: int, threshold: float, mutual: bool
) -> list[tuple[str, str]]:
    similarity = cosines(vectors)
    chosen = {
        i: sorted(
            (
                j
                for j in range(len(vectors))
                if j != i and similarity[i, j] >= threshold
            ),
            key=lambda j: (similarity[i, j], f"n{j}"),
            reverse=True,
        )[:k]
        for i in range(len(vectors))
    }
    return [
        (f"n{i}", f"n{j}")
        for i, row in chosen.items()
        for j in row
        if not mutual or i in chosen[j]
    ]


@pytest.mark.parametrize("mutual", [False, True])
@pytest.mark.parametrize(
    ("k", "threshold"), [(1, -1.0), (4, 0.8), (7, 0.2), (999, 0.9)]
)
def test_nearest_neighbors(
    k: int, threshold: float, mutual: bool, tmp_path: Path
) -> None:
    vectors = grouped_vectors(700, 12)
    build_graph(
        write_vectors(tmp_path / "e", vectors),
        tmp_path / "g",
        threshold,
        num_neighbors=k,
        mutual=mutual,
    )
    edges = [edge[:2] for edge in read_edges(tmp_path / "g")]
    assert edges == slow_nearest(vectors, k, threshold, mutual)


def test_nearest_of_equally_similar_are_the_larger_ids(tmp_path: Path) -> None:
    vectors = np.ones((9, 3), np.float32)
    build_graph(write_vectors(tmp_path / "e", vectors), tmp_path / "g", num_neighbors=2)
    rows = [edge[:2] for edge in read_edges(tmp_path / "g")]
    assert rows[:4] == [("n0", "n8"), ("n0", "n7"), ("n1", "n8"), ("n1", "n7")]
    assert rows[-2:] == [("n8", "n7"), ("n8", "n6")]


def test_hashing_finds_a_part_of_the_edges_each_once(tmp_path: Path) -> None:
    vectors = grouped_vectors(900, 16)
    embeddings = write_vectors(tmp_path / "e", vectors)
    build_graph(embeddings, tmp_path / "exact", 0.9)
    report = build_graph(
        embeddings, tmp_path / "lsh", 0.9, lsh_splits=6, lsh_rounds=5, random_seed=1
    )
    exact, hashed = set(read_edges(tmp_path / "exact")), read_edges(tmp_path / "lsh")
    assert len(set(hashed)) == len(hashed)
    assert set(hashed) < exact
    # All nodes fit in the sample, so the estimate is the recall itself.
    assert report["estimated_recall"] == pytest.approx(len(hashed) / len(exact))
    assert len(hashed) / len(exact) > 0.8


def test_hashing_compares_what_shares_a_bucket_of_nsl_14(tmp_path: Path) -> None:
    vectors = grouped_vectors(300, 8)
    build_graph(
        write_vectors(tmp_path / "e", vectors),
        tmp_path / "g",
        0.7,
        lsh_splits=3,
        lsh_rounds=2,
        random_seed=11,
    )
    random = np.random.RandomState(11)
    together = np.zeros((300, 300), bool)
    for _ in range(2):
        signs = vectors @ (random.rand(3, 8) * 2 - 1).T > 0
        together |= (signs[:, np.newaxis] == signs[np.newaxis]).all(axis=-1)
    expected = {
        (s, t) for s, t in slow_edges(vectors, 0.7) if together[int(s[1:]), int(t[1:])]
    }
    assert {edge[:2] for edge in read_edges(tmp_path / "g")} == expected


def test_more_hyperplanes_than_bits_of_an_integer(tmp_path: Path) -> None:
    vectors = np.repeat(grouped_vectors(50, 8), 2, axis=0)
    embeddings = write_vectors(tmp_path / "e", vectors)
    build_graph(embeddings, tmp_path / "g", 1.0, lsh_splits=100, lsh_rounds=1)
    assert len(read_edges(tmp_path / "g")) == 100


def test_hashing_with_nearest_neighbors(tmp_path: Path) -> None:
    vectors = grouped_vectors(600, 10)
    embeddings = write_vectors(tmp_path / "e", vectors)
    exact = build_graph(embeddings, tmp_path / "exact", 0.5, num_neighbors=3)
    hashed = build_graph(
        embeddings,
        tmp_path / "lsh",
        0.5,
        lsh_splits=2,
        lsh_rounds=40,
        random_seed=0,
        num_neighbors=3,
    )
    assert hashed["estimated_recall"] == 1.0
    assert hashed["edges"] == exact["edges"]
    assert (tmp_path / "lsh").read_bytes() == (tmp_path / "exact").read_bytes()


def test_report(tmp_path: Path) -> None:
    embeddings = write_examples(
        tmp_path / "e",
        [
            {"id": ["a"], "embedding": [1.0, 0.0], "label": [1]},
            {"id": ["b"], "embedding": [1.0, 0.1], "label": [1]},
            {"id": ["c"], "embedding": [1.0, 0.2], "label": [2]},
            {"id": ["d"], "embedding": [0.0, 1.0], "label": [1]},
        ],
    )
    report = build_graph(
        embeddings,
        tmp_path / "g",
        0.99,
        label_feature_name="label",
        report_path=tmp_path / "report.json",
    )
    assert report == {
        "nodes": 4,
        "edges": 4,
        "isolated_nodes": 1,
        "degree_quantiles": {
            "0": 0,
            "0.25": 1,
            "0.5": 1,
            "0.75": 1,
            "0.9": 2,
            "0.99": 2,
            "1": 2,
        },
        "largest_component": 3,
        "homophily": 0.5,
    }
    assert json.loads((tmp_path / "report.json").read_text()) == report


def test_the_first_of_several_inputs_wins(tmp_path: Path) -> None:
    first = write_vectors(tmp_path / "1", np.array([[1, 0], [0, 1]]), ["a", "b"])
    second = write_vectors(tmp_path / "2", np.array([[1, 0], [0, 1]]), ["b", "c"])
    build_graph([first, second], tmp_path / "g", 0.9)
    assert [edge[:2] for edge in read_edges(tmp_path / "g")] == [("b", "c"), ("c", "b")]
    build_graph([second, first], tmp_path / "g", 0.9)
    assert [edge[:2] for edge in read_edges(tmp_path / "g")] == [("b", "a"), ("a", "b")]


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_nodes_for_an_edge(count: int, tmp_path: Path) -> None:
    embeddings = write_vectors(tmp_path / "e", np.ones((count, 2)))
    for options in ({}, {"lsh_splits": 2}, {"num_neighbors": 2, "mutual": True}):
        report = build_graph(embeddings, tmp_path / "g", -1.0, **options)
        assert (report["nodes"], report["edges"]) == (count, 0)
        assert (tmp_path / "g").read_bytes() == b""


BAD_EMBEDDINGS: list[tuple[list[dict[str, Any]], str]] = [
    ([{"id": ["a"]}], "record 0: it has no feature 'embedding'; its features are 'id'"),
    ([{"embedding": [1.0]}], "record 0: it has no feature 'id'"),
    ([{"id": [""], "embedding": [1.0]}], "record 0: its feature 'id' is the empty"),
    ([{"id": ["a", "b"], "embedding": [1.0]}], "must hold one value, but holds 2"),
    ([{"id": [b"\xff"], "embedding": [1.0]}], "must be UTF-8"),
    ([{"id": ["a\tb"], "embedding": [1.0]}], "record 0: the id .* contains a tab or a"),
    ([{"id": ["a\r"], "embedding": [1.0]}], "contains a tab or a line break"),
    ([{"id": ["a"], "embedding": [1]}], "must hold floats, but holds int64_list"),
    ([{"id": ["a"], "embedding": []}], "must hold floats, but holds none"),
    (
        [{"id": ["a"], "embedding": [1.0]}, {"id": ["b"], "embedding": [1.0, 2.0]}],
        "record 1: its embedding has 2 values, but earlier embeddings have 1",
    ),
    (
        [{"id": ["a"], "embedding": [1.0]}, {"id": ["a"], "embedding": [1.0]}],
        "record 1: duplicate id 'a', which an earlier record has",
    ),
    (
        [{"id": ["a"], "embedding": [1.0]}, {"id": ["b"], "embedding": [np.nan]}],
        "the embedding of id 'b' has a NaN or infinite value",
    ),
    ([{"id": ["a"], "embedding": [np.inf]}], "NaN or infinite"),
]


@pytest.mark.parametrize(("examples", "message"), BAD_EMBEDDINGS)
def test_bad_embeddings(
    examples: list[dict[str, Any]], message: str, tmp_path: Path
) -> None:
    embeddings = write_examples(tmp_path / "e.tfr", examples)
    before = set(tmp_path.iterdir())
    with pytest.raises(ValueError, match=message) as error:
        build_graph(embeddings, tmp_path / "g.tsv")
    assert "e.tfr" in str(error.value)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"similarity_threshold": 1.01}, "similarity_threshold"),
        ({"similarity_threshold": -2}, "similarity_threshold"),
        ({"similarity_threshold": float("nan")}, "similarity_threshold"),
        ({"lsh_splits": -1}, "lsh_splits"),
        ({"lsh_splits": 1, "lsh_rounds": 0}, "lsh_rounds"),
        ({"num_neighbors": 0}, "num_neighbors"),
        ({"mutual": True}, "num_neighbors"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], name: str, tmp_path: Path) -> None:
    embeddings = write_vectors(tmp_path / "e", np.ones((2, 2)))
    with pytest.raises(ValueError, match=name):
        build_graph(embeddings, tmp_path / "g", **arguments)
    assert not (tmp_path / "g").exists()


def test_paths_are_checked_first(tmp_path: Path) -> None:
    embeddings = write_vectors(tmp_path / "e", np.ones((2, 2)))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        build_graph(tmp_path / "nowhere", tmp_path / "g")
    with pytest.raises(FileNotFoundError, match="directory of the output"):
        build_graph(embeddings, tmp_path / "nowhere" / "g")
    with pytest.raises(ValueError, match="also one of the inputs"):
        build_graph(embeddings, embeddings)
    with pytest.raises(ValueError, match="at least one file"):
        build_graph([], tmp_path / "g")
    with pytest.raises(TypeError, match="GraphBuilderConfig"):
        build_graph_from_config(embeddings, tmp_path / "g", 0.8)


def test_builder_of_nsl_14(tmp_path: Path) -> None:
    config = GraphBuilderConfig(similarity_threshold=0.6)
    builder = GraphBuilder(config)
    assert builder.config is config
    embeddings = write_vectors(tmp_path / "e", grouped_vectors(60, 5))
    report = builder.build([embeddings], str(tmp_path / "g"))
    expected = build_graph_from_config([embeddings], tmp_path / "expected", config)
    assert report == expected
    assert (tmp_path / "g").read_bytes() == (tmp_path / "expected").read_bytes()


def test_main(tmp_path: Path) -> None:
    vectors = grouped_vectors(60, 5)
    embeddings = write_vectors(tmp_path / "e", vectors)
    build_graph(embeddings, tmp_path / "expected", 0.6, num_neighbors=2, mutual=True)
    flags = ["--similarity_threshold=0.6", "--num_neighbors=2", "--mutual"]
    assert main([*flags, embeddings, str(tmp_path / "g")]) == 0
    assert (tmp_path / "g").read_bytes() == (tmp_path / "expected").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--similarity_threshold=2", "a", "b"], 2, "similarity_threshold"),
        (["a"], 2, "Expected at least 2 arguments"),
        (["--lsh_splits=3", "--lsh_rounds=0", "a", "b"], 1, "lsh_rounds"),
        (["missing", "b"], 1, "There is no file 'missing'."),
    ],
)
def test_main_with_errors(
    arguments: list[str], code: int, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("build_graph: ")
    assert message in line


def test_launcher_runs_from_any_folder(tmp_path: Path) -> None:
    write_vectors(tmp_path / "e.tfr", np.ones((2, 2)))
    subprocess.run(
        [sys.executable, str(LAUNCHER), "e.tfr", "g.tsv"], cwd=tmp_path, check=True
    )
    assert (tmp_path / "g.tsv").read_text() == "n0\tn1\t1.000000\nn1\tn0\t1.000000\n"
