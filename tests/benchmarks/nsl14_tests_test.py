"""benchmarks/nsl14_tests.py, on a small checkout that is made up."""

import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "benchmarks" / "nsl14_tests.py"

MIXED = """
import os
import unittest

import tensorflow as tf
from neural_structured_learning.tools import build_graph as build_graph_lib

import neural_structured_learning.configs as configs
import nsl


class SomeTest(tf.test.TestCase):

  def test_passes(self):
    self.assertIs(configs.NormType, nsl.configs.NormType)
    self.assertTrue(os.path.isdir(self.get_temp_dir()))
    self.assertTrue(callable(build_graph_lib.build_graph))

  def test_fails(self):
    self.assertEqual("one", "two", "\\n\\nfirst line\\nsecond line")

  @unittest.skip("not here")
  def test_is_skipped(self):
    pass

  def test_with_parts(self):
    for i in range(2):
      with self.subTest(i=i):
        raise KeyError(i)

  def test_z_ends_the_process(self):
    os._exit(3)

  def test_zz_comes_too_late(self):
    pass
"""


def test_table_and_reasons(tmp_path: Path) -> None:
    package = tmp_path / "neural_structured_learning"
    (package / "lib").mkdir(parents=True)
    # Were it imported, the package of the checkout would fail.
    (package / "__init__.py").write_text("raise ImportError('the original')\n")
    (package / "lib" / "mixed_test.py").write_text(MIXED)
    (package / "gone_test.py").write_text("import neural_structured_learning.gone\n")
    (package / "left_out_test.py").write_text("raise ImportError\n")
    command = [sys.executable, str(PROGRAM), str(tmp_path)]
    done = subprocess.run(
        [*command, "--only", "lib/", "gone"], capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    table, *reasons = done.stdout.split("\n\n")
    rows = [line.split() for line in table.splitlines()]
    assert rows == [
        ["file", "passed", "failed", "not", "runnable"],
        ["gone_test.py", "0", "0", "1"],
        ["lib/mixed_test.py", "1", "2", "3"],
        ["all", "1", "2", "4"],
    ]
    told = "\n".join(reasons)
    assert "No module named 'neural_structured_learning.gone'" in told
    assert "SomeTest.test_fails\n    failed: AssertionError: " in told
    assert "second line" not in told
    assert "SomeTest.test_with_parts\n    failed: KeyError: 0" in told
    assert "test_is_skipped\n    not runnable: skipped: not here" in told
    ended = "\n    not runnable: the process ended with status 3: "
    assert f"test_z_ends_the_process{ended}" in told
    assert f"test_zz_comes_too_late{ended}" in told
    assert "test_passes" not in told
    assert "test_session" not in told


def test_a_file_that_takes_too_long(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("nsl14_tests", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    path = tmp_path / "some_test.py"
    path.write_text("")
    expected = {"(the file)": ("not runnable", "not done after 0.01 seconds")}
    assert program.run(path, 0.01) == expected


def test_no_checkout(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "there are no such files *_test.py" in done.stderr
