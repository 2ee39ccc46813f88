"""Tests of `nsl.beam.pack_nbrs`: its output is that of `nsl.tools.pack_nbrs`."""

import json
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
import tensorflow as tf
from apache_beam.metrics.cells import DistributionData, DistributionResult
from apache_beam.options.pipeline_options import PipelineOptions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nsl.beam.pack_nbrs
import nsl.tools
from tests.beam.runner import OPTIONS
from tests.tools.example_files import read_records, write_examples, write_lines

GOLDEN = Path(__file__).parents[1] / "golden" / "packing.json"
ONLY_LOCAL = {"first_unknown_ids"}
ONLY_BEAM = {"neighbors_per_record"}


def write_inputs(
    folder: Path,
    labeled: list[dict[str, Any]],
    unlabeled: list[dict[str, Any]],
    edges: list[tuple[Any, ...]],
) -> tuple[str, str, str]:
    return (
        write_examples(folder / "labeled", labeled),
        write_examples(folder / "unlabeled", unlabeled),
        write_lines(folder / "graph", *("\t".join(map(str, edge)) for edge in edges)),
    )


def pack_both_ways(
    folder: Path, inputs: tuple[str, str, str], **arguments: Any
) -> dict[str, Any]:
    """Runs both tools, and checks that records and reports are equal."""
    local = nsl.tools.pack_nbrs(*inputs, folder / "local", **arguments)
    report = nsl.beam.pack_nbrs(
        *inputs, folder / "beam", **arguments, pipeline_options=OPTIONS
    )
    gzip = "GZIP" if arguments.get("compression") == "gzip" else ""
    found, expected = (
        sorted(
            record
            for path in folder.glob(f"{name}*")
            for record in read_records(path, gzip)
        )
        for name in ("beam", "local")
    )
    assert found == expected
    names = sorted(path.name for path in folder.glob("beam*"))
    assert names == sorted(
        path.name.replace("local", "beam") for path in folder.glob("local*")
    )
    assert {k: v for k, v in report.items() if k not in ONLY_BEAM} == {
        k: v for k, v in local.items() if k not in ONLY_LOCAL
    }
    return report


@pytest.mark.parametrize(
    "case",
    # Random graphs try the rest; the local tool passes all.
    json.loads(GOLDEN.read_text())["cases"][::3],
    ids=lambda case: str(case["config"]),
)
def test_golden(case: dict[str, Any], tmp_path: Path) -> None:
    inputs = case["inputs"]
    labeled, unlabeled = (
        [
            {
                "id": [name],
                "words": inputs["features"][name]["words"],
                "label": [inputs["features"][name]["label"]],
            }
            for name in inputs[kind]
        ]
        for kind in ("labeled", "unlabeled")
    )
    paths = write_inputs(tmp_path, labeled, unlabeled, inputs["edges"])
    report = pack_both_ways(tmp_path, paths, **case["config"])
    assert report["records"] == len(case["expected"])


NODES = ["a", "b", "é", "漢字", "😀", "b" * 17, "Ω-7", "10", "9"]


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    cuts=st.tuples(st.integers(1, 5), st.integers(5, 9)),
    in_both=st.booleans(),
    edges=st.lists(
        st.tuples(
            st.sampled_from(NODES),
            st.sampled_from(NODES),
            st.sampled_from([1.0, 0.5, 0.25, -1.0, 1e-30]),
        ),
        min_size=20,
        max_size=60,
    ),
    both_ways=st.booleans(),
    max_nbrs=st.sampled_from([None, 0, 1, 3]),
    seeds=st.sampled_from(["labeled", "all"]),
)
def test_random_graphs(
    cuts: tuple[int, int],
    in_both: bool,
    edges: list[tuple[str, str, float]],
    both_ways: bool,
    max_nbrs: int | None,
    seeds: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("job")
    examples = [{"id": [name], "x": [float(i)]} for i, name in enumerate(NODES)]
    again = [{"id": [NODES[0]], "x": [99.0]}] * in_both
    paths = write_inputs(
        folder, examples[: cuts[0]], examples[cuts[0] : cuts[1]] + again, edges
    )
    with pytest.MonkeyPatch.context() as patch:
        # So small a graph has hubs too, if two edges make one.
        original = nsl.beam.PackNeighbors.__init__
        patch.setattr(
            nsl.beam.PackNeighbors,
            "__init__",
            lambda self, **arguments: original(
                self, **arguments, edges_at_once=2, hot_seed_fanout=2
            ),
        )
        pack_both_ways(
            folder,
            paths,
            add_undirected_edges=both_ways,
            max_nbrs=max_nbrs,
            seeds=seeds,
        )


def test_patterns_shards_compression_and_chosen_features(tmp_path: Path) -> None:
    names = [f"n{i}" for i in range(12)]
    examples = [{"id": [n], "x": [float(i)], "y": [i]} for i, n in enumerate(names)]
    for i in range(3):
        write_examples(tmp_path / f"part-{i}", examples[i::3])
        edges = [f"{a}\t{b}" for a in names[i::3] for b in names[:4]]
        write_lines(tmp_path / f"edges-{i}", *edges, "", "n1\tn2\t0.5\r")
    report = pack_both_ways(
        tmp_path,
        (f"{tmp_path}/part-[01]", f"{tmp_path}/part-2", f"{tmp_path}/edges-*"),
        neighbor_features=["y"],
        max_nbrs=2,
        num_shards=3,
        compression="gzip",
    )
    assert report["blank_lines"] == report["windows_line_ends"] == 3
    assert len(list(tmp_path.glob("beam-0000?-of-00003"))) == 3


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    paths = write_inputs(tmp_path, [{"id": ["a"]}], [{"id": ["b"]}], [("a", "b")])
    out = tmp_path / "out"
    report = nsl.beam.pack_nbrs(
        *paths,
        out,
        dry_run=True,
        report_path=tmp_path / "report",
        pipeline_options=OPTIONS,
    )
    assert not out.exists()
    assert report["output_bytes"] > 0
    assert json.loads((tmp_path / "report").read_text())["records"] == 1


@pytest.mark.parametrize(
    ("labeled", "arguments", "message"),
    [
        (["a", "a"], {}, "Duplicate id 'a' among the labeled examples"),
        (["a"], {"neighbor_features": ["y"]}, r"neighbor_features has \['y'\]"),
        ([""], {}, "labeled, record 0: its feature 'id' is the empty string"),
    ],
)
def test_wrong_inputs(
    labeled: list[str], arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    examples = [{"id": [name]} for name in labeled]
    paths = write_inputs(tmp_path, examples, [{"id": ["b"]}], [("a", "b")])
    with pytest.raises(ValueError, match=message):
        nsl.beam.pack_nbrs(
            *paths, tmp_path / "out", **arguments, pipeline_options=OPTIONS
        )
    assert not (tmp_path / "out").exists()


def test_sequence_examples_are_refused() -> None:
    message = tf.train.SequenceExample()
    message.feature_lists.feature_list["words"].feature.add().int64_list.value[:] = [1]
    transform = nsl.beam.PackNeighbors()
    error = "unlabeled example with id 'b': .*SequenceExample"
    with (
        pytest.raises(ValueError, match=error),
        beam.Pipeline(options=PipelineOptions(OPTIONS)) as pipeline,
    ):
        _ = {
            "labeled": pipeline | "L" >> beam.Create([(b"a", b"")]),
            "unlabeled": pipeline
            | "U" >> beam.Create([(b"b", message.SerializeToString())]),
            "edges": pipeline | "E" >> beam.Create([(b"a", b"b", 0.5)]),
        } | transform


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_nbrs": -1}, "max_nbrs must be at least 0"),
        ({"seeds": "none"}, "seeds must be one of"),
        ({"num_shards": 0}, "num_shards must be at least 1"),
        ({"compression": "zip"}, "compression must be one of"),
    ],
)
def test_wrong_arguments(
    arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        nsl.beam.pack_nbrs("l", "u", "g", tmp_path / "out", **arguments)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = write_inputs(tmp_path, [{"id": ["a"]}], [{"id": ["b"]}], [("a", "b")])
    main = nsl.beam.pack_nbrs.__globals__["main"]
    out = tmp_path / "out"
    assert main([*OPTIONS, "--max_nbrs=1", *paths, str(out), "--job_name=n"]) == 0
    assert len(read_records(out)) == 1
    assert "records: 1" in capsys.readouterr().err
    assert main([*OPTIONS, "--max_nbr=1", *paths, str(out)]) == 2
    assert "Unknown flag --max_nbr" in capsys.readouterr().err
    assert main([*OPTIONS, *paths]) == 2
    assert "Expected 4 arguments" in capsys.readouterr().err
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert "--runner=" in printed
    assert "--max_nbrs" in printed


@pytest.mark.parametrize(("packed", "warns"), [(2, True), (3, False)])
def test_lost_neighbors_are_told(
    packed: int, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    check = nsl.beam.pack_nbrs.__globals__["_check_complete"]
    neighbors = DistributionResult(DistributionData(packed, 2, 1, 2))
    with caplog.at_level("WARNING", logger="absl"):
        check({"neighbors_chosen": 3}, {"neighbors_per_record": neighbors})
    assert ("3 neighbors were chosen" in caplog.text) == warns
