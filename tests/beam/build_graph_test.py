"""Tests of `nsl.beam.build_graph`: its output is that of `nsl.tools.build_graph`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import nsl.beam
import nsl.tools
from tests.beam.runner import OPTIONS
from tests.tools.example_files import write_examples

GOLDEN = Path(__file__).parents[1] / "golden" / "graph_building.json"


def write_vectors(path: Path, vectors: np.ndarray, first: int = 0) -> str:
    return write_examples(
        path,
        (
            {"id": [f"n{i}"], "embedding": list(map(float, row))}
            for i, row in enumerate(vectors, first)
        ),
    )


def build_both_ways(
    folder: Path, inputs: list[str], block_size: int = 8192, **arguments: Any
) -> dict[str, Any]:
    """Runs both tools, and checks that edges and reports are equal."""
    local = nsl.tools.build_graph(inputs, folder / "local", **arguments)
    with pytest.MonkeyPatch.context() as patch:
        original = nsl.beam.BuildGraph.__init__
        patch.setattr(
            nsl.beam.BuildGraph,
            "__init__",
            lambda self, config: original(self, config, block_size=block_size),
        )
        report = nsl.beam.build_graph(
            inputs, folder / "beam", **arguments, pipeline_options=OPTIONS
        )
    found, expected = (
        sorted((folder / name).read_text().splitlines()) for name in ("beam", "local")
    )
    assert found == expected
    for name in ("nodes", "edges", "isolated_nodes"):
        assert report[name] == local[name], name
    return report


@pytest.mark.parametrize(
    "case",
    json.loads(GOLDEN.read_text())["cases"],
    ids=lambda case: str(case["config"]),
)
def test_golden(case: dict[str, Any], tmp_path: Path) -> None:
    inputs = case["inputs"]
    path = write_examples(
        tmp_path / "e",
        (
            {"id": [node], "embedding": row}
            for node, row in zip(inputs["ids"], inputs["embeddings"], strict=True)
        ),
    )
    report = build_both_ways(tmp_path, [path], **case["config"])
    assert report["edges"] == len(case["expected"])


@settings(max_examples=5, deadline=None)
@given(
    seed=st.integers(0, 1000),
    nodes=st.integers(2, 60),
    block_size=st.sampled_from([3, 10, 1000]),
    threshold=st.sampled_from([-0.31, 0.33, 0.77]),
    hashing=st.sampled_from([{}, {"lsh_splits": 2, "lsh_rounds": 3}]),
    nearest=st.sampled_from(
        [{}, {"num_neighbors": 2}, {"num_neighbors": 4, "mutual": True}]
    ),
)
def test_random_vectors(
    seed: int,
    nodes: int,
    block_size: int,
    threshold: float,
    hashing: dict[str, Any],
    nearest: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("job")
    random = np.random.default_rng(seed)
    # Small whole numbers: many equal similarities, equal and zero vectors.
    vectors = random.integers(-1, 2, (nodes, 5)).astype(np.float32)
    report = build_both_ways(
        folder,
        [write_vectors(folder / "e", vectors)],
        block_size,
        similarity_threshold=threshold,
        random_seed=seed,
        **hashing,
        **nearest,
    )
    if not hashing:
        assert report["compared_pairs"] >= nodes * (nodes - 1) // 2


def test_many_hyperplanes_and_several_inputs(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    centers = random.standard_normal((40, 8))
    vectors = np.repeat(centers, 3, axis=0) + random.normal(0, 0.01, (120, 8))
    inputs = [
        write_vectors(tmp_path / "first", vectors[:80]),
        # The last of these ids stand in the first input too.
        write_vectors(tmp_path / "second", vectors[70:], 70),
    ]
    report = build_both_ways(
        tmp_path, inputs, lsh_splits=40, lsh_rounds=4, random_seed=3
    )
    assert report["ids_in_several_inputs"] == 10
    assert report["edges"] > 100


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([["a", [1.0]], ["a", [2.0]]], "Duplicate id 'a' in one input"),
        ([["a", [1.0]], ["b", [float("nan")]]], "of id 'b' has a NaN"),
        ([["a", [1.0]], ["b", [1.0, 2.0]]], "record 1: its embedding has 2 values"),
    ],
)
def test_wrong_inputs(examples: list[list[Any]], message: str, tmp_path: Path) -> None:
    path = write_examples(
        tmp_path / "e", ({"id": [node], "embedding": row} for node, row in examples)
    )
    with pytest.raises(ValueError, match=message):
        nsl.beam.build_graph([path], tmp_path / "out", pipeline_options=OPTIONS)
    assert not (tmp_path / "out").exists()


def test_tables_of_embeddings(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    for path, rows in (("a.parquet", range(20)), ("b.parquet", range(20, 30))):
        table = pa.table({"id": rows, "embedding": vectors[rows].tolist()})
        parquet.write_table(table, tmp_path / path)
    report = build_both_ways(tmp_path, [f"{tmp_path}/*.parquet"])
    assert report["nodes"] == 30
    assert report["edges"]


def test_what_only_the_local_tool_does(tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "a", np.ones((2, 2)))
    np.save(tmp_path / "a.npy", np.ones((2, 2)))
    for inputs, output, error, message in (
        (np.ones((2, 2)), "out", TypeError, "received an array"),
        (path, "out.parquet", ValueError, "writes TSV"),
        (
            tmp_path / "a.npy",
            "out",
            ValueError,
            r"a\.npy is a NumPy array .* no ids",
        ),
    ):
        with pytest.raises(error, match=message):
            nsl.beam.build_graph(inputs, tmp_path / output, pipeline_options=OPTIONS)
        assert not (tmp_path / output).exists()


def test_an_id_that_no_line_can_hold(tmp_path: Path) -> None:
    table = pa.table({"id": ["a", "b\tc"], "embedding": [[1.0]] * 2})
    parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"x\.parquet, row 1: .*'b\\tc' .* tab"):
        nsl.beam.build_graph(
            tmp_path / "x.parquet", tmp_path / "out", pipeline_options=OPTIONS
        )
    assert not (tmp_path / "out").exists()


def test_files_of_different_dimensions(tmp_path: Path) -> None:
    inputs = [
        write_vectors(tmp_path / "a", np.ones((1, 2))),
        write_vectors(tmp_path / "b", np.ones((1, 3)), 1),
    ]
    with pytest.raises(ValueError, match="some have 2 and some 3"):
        nsl.beam.build_graph(inputs, tmp_path / "out", pipeline_options=OPTIONS)


def test_the_transform_refuses(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"must be a GraphBuilderConfig.*float"):
        nsl.beam.BuildGraph(0.8)
    with pytest.raises(ValueError, match="block_size must be at least 1"):
        nsl.beam.BuildGraph(nsl.configs.GraphBuilderConfig(), block_size=0)
    with pytest.raises(ValueError, match="edges_at_once must be at least 1"):
        nsl.beam.PackNeighbors(edges_at_once=0)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_vectors(tmp_path / "e", np.ones((3, 2)))
    main = nsl.beam.build_graph.__globals__["main"]
    out = tmp_path / "out"
    assert main([*OPTIONS, "--similarity_threshold=0.9", path, str(out)]) == 0
    assert len(out.read_text().splitlines()) == 6
    assert "edges: 6" in capsys.readouterr().err
    assert main([*OPTIONS, path]) == 2
    assert "Expected at least 2 arguments" in capsys.readouterr().err
