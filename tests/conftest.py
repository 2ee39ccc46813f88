"""What all tests share: quiet TensorFlow on two devices, golden figures."""

import functools
import gc
import json
import os
from pathlib import Path
from typing import Any

import hypothesis
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# What XLA compiles runs for milliseconds: optimizing it takes longer.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
if "PYTEST_XDIST_WORKER" in os.environ:
    # A core a worker. Threads of two that share the cores wait for each other, busily.
    for _name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

hypothesis.settings.register_profile(
    "nsl", max_examples=15, deadline=None, derandomize=True, database=None
)
hypothesis.settings.load_profile("nsl")


def pytest_configure(config: pytest.Config) -> None:
    # Before any test file runs a TensorFlow op while it is collected. The process that
    # hands tests to workers runs none, and workers would wait until it has imported
    # TensorFlow.
    if config.getoption("dist", "no") == "no":
        import tests.two_devices  # noqa: F401


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # First the jobs of several processes, for which one worker waits a minute or two:
    # begun last, they are what the other worker waits for with nothing to do.
    items.sort(key=lambda item: item.path.name != "multi_worker_test.py")


def pytest_collection_finish() -> None:
    # What lives as long as the process need not be searched for garbage, and models
    # and graphs make so many objects that the default thresholds cost time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


@functools.cache
def golden(name: str) -> list[dict[str, Any]]:
    """Returns the cases that NSL 1.4 computed, as {config, inputs, expected}."""
    path = Path(__file__).parent / "golden" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["cases"]
