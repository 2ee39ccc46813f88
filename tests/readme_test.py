"""Every program and command of the README runs as written."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.pages import ROOT, blocks, commands

PAGE = ROOT / "README.md"
README = PAGE.read_text()


@pytest.mark.arithmetic
def test_the_programs_run_in_order_and_learn() -> None:
    keras.utils.set_random_seed(0)
    namespace: dict[str, Any] = {}
    for block in blocks(PAGE, "python"):
        exec(block, namespace)
    x, y = namespace["x_test"], namespace["y_test"]
    for name in ("adv_model", "graph_model"):
        predictions = namespace[name].predict(x, verbose=0)
        assert np.mean(np.argmax(predictions, axis=-1) == y) > 0.8, name


def _write(path: Path, ids: range) -> None:
    rng = np.random.default_rng(0)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for i in ids:
            embedding = rng.normal([3.0 if i % 2 else -3.0, 1.0], 0.1)
            features = {
                "id": tf.train.Feature(
                    bytes_list=tf.train.BytesList(value=[b"%d" % i])
                ),
                "embedding": tf.train.Feature(
                    float_list=tf.train.FloatList(value=embedding)
                ),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())


def test_the_tools_run_as_written(tmp_path: Path) -> None:
    _write(tmp_path / "labeled.tfr", range(4))
    _write(tmp_path / "unlabeled.tfr", range(4, 20))
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    tool_commands = [c for c in commands(PAGE) if "graph.tsv" in c]
    assert len(tool_commands) == 2
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in tool_commands:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    records = list(tf.data.TFRecordDataset(str(tmp_path / "merged.tfr")))
    assert len(records) == 4
    example = tf.train.Example.FromString(records[0].numpy())
    assert example.features.feature["NL_num_nbrs"].int64_list.value[:] == [5]
    assert "NL_nbr_4_embedding" in example.features.feature


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_knows_what_the_readme_names(target: str) -> None:
    assert ["make", target] in commands(PAGE)
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_what_the_readme_points_to_exists() -> None:
    linked = re.findall(r"\]\(([^)#:]+)\)", README)
    named = re.findall(
        r"`((?:nsl|tools|examples|docs|tests|benchmarks)/[\w./]+)`", README
    )
    programs = [c[1] for c in commands(PAGE) if c[0] == "python"]
    assert {"docs/images/digits.png", "CHANGELOG.md", "LICENSE"} <= set(linked)
    for path in (*linked, *named, *programs):
        assert (ROOT / path).exists(), path
