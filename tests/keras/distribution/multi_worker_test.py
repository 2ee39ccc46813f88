"""Two processes train to the weights of one, also when one of them is killed.

All tests share two jobs, for a process takes seconds to start.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.keras.contract.base import X, Y, assert_weights_equal
from tests.keras.distribution.cases import (
    CASES,
    FIRST,
    OF_WORKERS,
    Case,
    on_one_device,
    on_two_devices,
)
from tests.keras.distribution.cluster import SECONDS
from tests.keras.distribution.nodes import NODES, VARIANTS, train_on_nodes
from tests.keras.distribution.worker import CODES, JOBS, load

ROOT = Path(__file__).parents[3]
WORKER = "tests.keras.distribution.worker"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory for all processes of a test run, of which one at a time goes on."""
    base = tmp_path_factory.getbasetemp()
    directory = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    directory /= "cluster"
    directory.mkdir(exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield directory


@pytest.fixture(scope="module")
def cluster(shared: Path) -> Path:
    """Where two workers wrote what they came to.

    One was killed at the end of a job, and another job went on.
    """
    if not (shared / CODES).exists():
        with subprocess.Popen(
            [sys.executable, "-m", WORKER, str(shared)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,  # It ends when this end of the pipe is closed.
        ) as process:
            assert process.wait(len(JOBS) * SECONDS + 60) == 0, logs(shared)
    first, second = json.loads((shared / CODES).read_text())
    assert first[1] == -signal.SIGKILL, logs(shared)
    assert second == [0, 0], logs(shared)
    return shared


def logs(directory: Path) -> str:
    return "\n".join(
        f"{path}:\n{path.read_text(errors='replace')[-3000:]}"
        for path in sorted(directory.glob("logs-*/*.log"))
    )


def of_workers(directory: Path, name: str) -> list[Any]:
    """The weights that the workers came to, which must be the same."""
    weights = [load(directory / f"worker-{i}" / f"{name}.npz") for i in range(2)]
    assert_weights_equal(*weights, 0.0)
    return weights[0]


def log_of(directory: Path, name: str, worker: int) -> Any:
    return json.loads((directory / f"worker-{worker}" / f"{name}.json").read_text())


@pytest.mark.parametrize("case", OF_WORKERS.values(), ids=OF_WORKERS)
def test_against_one_device(case: Case, cluster: Path) -> None:
    weights = of_workers(cluster, case.name)
    # Two workers draw what two devices of one machine draw.
    train = on_two_devices if case.draws else on_one_device
    expected, history = train(case)
    assert_weights_equal(weights, expected, 1e-5)
    for worker in range(2):
        found = log_of(cluster, case.name, worker)["fit"]
        assert found.keys() == history.keys()
        for name, values in history.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-4, err_msg=name)


def test_evaluation_and_prediction(cluster: Path) -> None:
    model = CASES[FIRST].compiled()
    CASES[FIRST].fit(model)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    expected = model.evaluate(data, verbose=0, return_dict=True)
    expected = {name: float(value) for name, value in expected.items()}
    for worker in range(2):
        found = log_of(cluster, FIRST, worker)
        assert found["evaluate"] == pytest.approx(expected, rel=1e-4)
        outputs = model.predict(X, verbose=0)
        np.testing.assert_allclose(found["predict"], outputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_nodes_are_divided_among_workers(variant: str, cluster: Path) -> None:
    epochs = [log_of(cluster, f"nodes-{variant}", worker) for worker in range(2)]
    for of_first, of_second in zip(*epochs, strict=True):
        assert sorted(of_first + of_second) == sorted(X.tolist())
        assert abs(len(of_first) - len(of_second)) <= 2
        assert len(of_first) + len(of_second) == NODES
    assert epochs[0][0] != epochs[0][1]
    weights = of_workers(cluster, f"nodes-{variant}")
    if variant != "uneven-parts":
        # Keras averages the replicas' labeled losses, whatever the sizes of parts are.
        expected, _ = train_on_nodes(tf.distribute.get_strategy(), variant)
        assert_weights_equal(weights, expected, 1e-5)
    assert all(np.isfinite(weight).all() for weight in weights)


@pytest.mark.parametrize("way", ["fit", "loop"])
def test_a_failed_job_goes_on_from_its_backup(way: str, cluster: Path) -> None:
    resumed = of_workers(cluster, f"{way}-resumed")
    assert_weights_equal(resumed, of_workers(cluster, f"{way}-undisturbed"), 1e-6)
