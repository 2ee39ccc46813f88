"""Runs the tests of NSL 1.4 against `nsl`, through the old import name.

The tests are those of a checkout of NSL 1.4. Nothing else is imported from it: the
package under test, `neural_structured_learning`, is the one of this repository.

    git clone https://github.com/tensorflow/neural-structured-learning
    python benchmarks/nsl14_tests.py neural-structured-learning --only lib/ tools/

Each file runs in a separate process. A test is not runnable if it is skipped, if its
file cannot be imported, or if the process ended before it, by itself or after
`--seconds`. Names that Keras 3 and nsl lack are supplied if they exist under another
name (`_supply`).

The exit status is 1 if a test failed.
"""

import argparse
import collections
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OLD = "neural_structured_learning"

PASSED, FAILED, NOT_RUNNABLE, PLANNED = "passed", "failed", "not runnable", "planned"
_FILE = "(the file)"


class _Recorder(unittest.TestResult):
    """Records each result immediately, because the process may end."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._outcome, self._reason = PASSED, ""

    def write(self, name: str, outcome: str, reason: str = "") -> None:
        with self._path.open("a") as file:
            file.write(json.dumps([name, outcome, reason]) + "\n")

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._outcome, self._reason = PASSED, ""

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        self.write(_name(test), self._outcome, self._reason)

    def _fail(self, error: BaseException) -> None:
        if self._outcome != FAILED:
            self._outcome, self._reason = FAILED, first_line(error)

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        self._fail(err[1])

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._fail(err[1])

    def addSubTest(self, test: unittest.TestCase, subtest: Any, err: Any) -> None:
        if err is not None:
            self._fail(err[1])

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._outcome, self._reason = NOT_RUNNABLE, f"skipped: {reason}"

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._outcome, self._reason = FAILED, "passed, but was expected to fail"


def first_line(error: BaseException) -> str:
    """Returns the type of an error and the first line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _name(test: unittest.TestCase) -> str:
    # Not id(), because parameters in a name may contain periods.
    return f"{type(test).__name__}.{test._testMethodName}"


def _tests(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _tests(test)
        # A method of tf.test.TestCase that looks like a test and skips itself.
        elif test._testMethodName != "test_session":
            yield test


def _supply() -> None:
    """Supplies old names that the tests use and that now exist under another name."""
    import tensorflow as tf

    for old, new in (("squared", "mse"), ("absolute", "mae")):
        name = f"mean_{old}_error"
        if not hasattr(tf.keras.losses, name):
            setattr(tf.keras.losses, name, getattr(tf.keras.losses, new))
    regularizer = importlib.import_module(f"{OLD}.lib.regularizer")
    regularizer._virtual_adv_regularizer = regularizer.virtual_adversarial_loss  # type: ignore[attr-defined]
    # The build of NSL 1.4 tests these modules in an empty package. In the installed
    # package, these names are functions.
    tools = importlib.import_module(f"{OLD}.tools")
    for name in ("build_graph", "pack_nbrs"):
        importlib.import_module(f"{OLD}.tools.{name}")
        setattr(tools, name, sys.modules[f"{OLD}.tools.{name}"])


def run_here(path: Path, record: Path) -> None:
    """Runs one file in this process.

    Args:
      path: The test file.
      record: A file to which to append a line of JSON per planned and finished test.
    """
    # Import the packages of this repository instead of the files of this folder.
    sys.path[0] = str(ROOT)
    recorder = _Recorder(record)
    try:
        _supply()
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except Exception as error:
        recorder.write(_FILE, NOT_RUNNABLE, first_line(error))
        return
    from absl import flags

    flags.FLAGS([str(path)])
    suite = unittest.TestSuite(
        _tests(unittest.defaultTestLoader.loadTestsFromModule(module))
    )
    for test in suite:
        recorder.write(_name(test), PLANNED)
    suite.run(recorder)


def run(path: Path, seconds: float) -> dict[str, tuple[str, str]]:
    """Runs one file in a separate process.

    Args:
      path: The test file.
      seconds: The time limit.

    Returns:
      The outcome and the reason for each test.
    """
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record"
        try:
            done = subprocess.run(
                [sys.executable, __file__, str(path.resolve()), f"--record={record}"],
                cwd=folder,
                env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "TEST_TMPDIR": folder},
                capture_output=True,
                text=True,
                timeout=seconds,
            )
            last = (done.stderr.strip().splitlines() or ["nothing was printed"])[-1]
            ended = f"the process ended with status {done.returncode}: {last}"
        except subprocess.TimeoutExpired:
            ended = f"not done after {seconds:g} seconds"
        lines = record.read_text().splitlines() if record.exists() else []
    outcomes = {name: (outcome, why) for name, outcome, why in map(json.loads, lines)}
    if not outcomes:
        return {_FILE: (NOT_RUNNABLE, ended)}
    return {
        name: (NOT_RUNNABLE, ended) if outcome == PLANNED else (outcome, why)
        for name, (outcome, why) in outcomes.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, help="a checkout of NSL 1.4")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[""],
        metavar="TEXT",
        help="only run files whose path in the package contains one of these",
    )
    parser.add_argument(
        "--seconds", type=float, default=900, help="time limit per file"
    )
    parser.add_argument("--record", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.record:
        run_here(arguments.checkout, arguments.record)
        return
    package = arguments.checkout / OLD
    files = {
        file.relative_to(package).as_posix(): file
        for file in sorted(package.rglob("*_test.py"))
    }
    files = {n: f for n, f in files.items() if any(t in n for t in arguments.only)}
    if not files:
        parser.error(f"there are no such files *_test.py in {package}")

    width = max(map(len, files))
    total: collections.Counter[str] = collections.Counter()

    def print_row(name: str, counts: collections.Counter[str]) -> None:
        numbers = counts[PASSED], counts[FAILED], counts[NOT_RUNNABLE]
        print("{:{}} {:7} {:7} {:13}".format(name, width, *numbers), flush=True)

    print(f"{'file':{width}} {PASSED:>7} {FAILED:>7} {NOT_RUNNABLE:>13}")
    told = []
    for name, file in files.items():
        outcomes = run(file, arguments.seconds)
        counts = collections.Counter(outcome for outcome, _ in outcomes.values())
        total += counts
        print_row(name, counts)
        told += [
            f"{name}: {test}\n    {outcome}: {why}"
            for test, (outcome, why) in outcomes.items()
            if outcome != PASSED
        ]
    print_row("all", total)
    if told:
        print("", *told, sep="\n")
    sys.exit(bool(total[FAILED]))


if __name__ == "__main__":
    main()
