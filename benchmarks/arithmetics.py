"""Runs the tests marked `arithmetic` under each arithmetic that this machine supports.

Rounding differs between processors, and the differences grow during training. One
machine can imitate others: with one or two threads, without the kernels of oneDNN,
without NumPy's kernels for newer processors, and with all libraries restricted to the
instructions of a processor of 2008. Tests whose margins are too small fail here instead
of on other machines.

    make test-arithmetics
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

from numpy._core import _multiarray_umath as numpy_core  # type: ignore[attr-defined]

ROOT = Path(__file__).resolve().parents[1]


def arithmetics() -> dict[str, dict[str, str]]:
    """Returns the environment of each arithmetic, by its name."""
    found = {
        "one thread": {"TF_NUM_INTRAOP_THREADS": "1", "TF_ENABLE_ONEDNN_OPTS": "1"},
        "two threads": {"TF_NUM_INTRAOP_THREADS": "2", "TF_ENABLE_ONEDNN_OPTS": "1"},
        "without oneDNN": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    }
    # NumPy rejects features that its build requires, and warns about features that this
    # processor lacks.
    features = [
        name
        for name in numpy_core.__cpu_dispatch__
        if numpy_core.__cpu_features__.get(name)
    ]
    plain_numpy = {}
    if features:
        plain_numpy["NPY_DISABLE_CPU_FEATURES"] = " ".join(features)
        found["NumPy's baseline"] = plain_numpy
    if platform.machine().lower() in ("x86_64", "amd64"):
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_max_isa=SSE4_2"
        found["old processor"] = {
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "OPENBLAS_CORETYPE": "Nehalem",
            "XLA_FLAGS": flags.strip(),
            **plain_numpy,
        }
    return found


def run(
    environment: dict[str, str], arguments: list[str]
) -> subprocess.CompletedProcess[str]:
    """Runs pytest under an arithmetic, and returns its exit status and output."""
    command = [sys.executable, "-m", "pytest", "-m", "arithmetic", "-q", "--tb=short"]
    return subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pytest", nargs="*", help="further arguments of pytest")
    arguments = parser.parse_args().pytest
    live = sys.stderr.isatty()
    rows, failed = [], False
    for name, environment in arithmetics().items():
        if live:
            print(f"\r\033[K{name} ...", end="", file=sys.stderr, flush=True)
        start = time.monotonic()
        done = run(environment, arguments)
        seconds = time.monotonic() - start
        if live:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        # If pytest printed no summary, only its status shows the failure.
        last = done.stdout.rstrip().rsplit("\n", 1)[-1]
        counts = {kind: int(n) for n, kind in re.findall(r"(\d+) ([a-z]+)", last)}
        bad = sum(counts.get(kind, 0) for kind in ("failed", "error", "errors"))
        rows.append((name, counts.get("passed", 0), bad, seconds))
        if done.returncode:
            failed = True
            print(f"{name}:\n{done.stdout}{done.stderr}", flush=True)
    print(f"{'arithmetic':16} {'passed':>7} {'failed':>7} {'seconds':>8}")
    for name, passed, bad, seconds in rows:
        print(f"{name:16} {passed:7} {bad:7} {seconds:8.0f}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
