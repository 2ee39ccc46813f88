"""The jobs of the tests' cluster.

    python -m tests.keras.distribution.worker DIRECTORY

A process can make one MultiWorkerMirroredStrategy only, so the stages of a job share
it.
"""

import contextlib
import functools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.keras.contract.base import X, Y
from tests.keras.distribution import recovery
from tests.keras.distribution.cases import FIRST, OF_WORKERS
from tests.keras.distribution.cluster import end_with_parent, run_workers
from tests.keras.distribution.nodes import VARIANTS, train_on_nodes

#: The second job goes on with what the first, which does not end well, left.
JOBS = (
    (
        "cases",
        "nodes",
        "fit-undisturbed",
        "loop-undisturbed",
        "loop-failed",
        "fit-killed",
    ),
    ("fit-resumed", "loop-resumed"),
)
CODES = "codes.json"


def save(path: Path, weights: list[Any]) -> None:
    """Saves weights."""
    np.savez(path, *weights)


def load(path: Path) -> list[Any]:
    """Loads what `save` saved."""
    with np.load(path) as arrays:
        return list(arrays.values())


def train_cases(strategy: tf.distribute.Strategy, directory: Path) -> None:
    """Trains each case, and evaluates and predicts with the first."""
    for name, case in OF_WORKERS.items():
        with strategy.scope():
            model = case.compiled()
        logs: dict[str, Any] = {"fit": case.fit(model)}
        if name == FIRST:
            data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
            logs["evaluate"] = model.evaluate(data, verbose=0, return_dict=True)
            logs["predict"] = model.predict(X, batch_size=8, verbose=0).tolist()
        save(directory / f"{name}.npz", model.get_weights())
        # Before 3.14, Keras logs tensors.
        logs = tf.nest.map_structure(float, logs)
        (directory / f"{name}.json").write_text(json.dumps(logs))


def recover(
    stage: str, strategy: tf.distribute.Strategy, directory: Path, own: Path
) -> None:
    """Trains undisturbed, until it fails in the middle, or from the backup on."""
    way, _, fate = stage.partition("-")
    train = {"fit": recovery.fit, "loop": recovery.loop}[way]
    backup = directory / (way if fate == "undisturbed" else f"{way}-disturbed")
    if fate == "failed":
        with contextlib.suppress(recovery.FailureError):
            train(strategy, backup, recovery.fail)
            raise AssertionError("Training did not fail.")
        return
    dies = fate == "killed" and own.name == "worker-1"
    kill = recovery.kill_this_process if dies else None
    save(own / f"{stage}.npz", train(strategy, backup, kill))


def work(directory: Path, stages: Sequence[str]) -> None:
    """Runs the stages of a job in order, in one of its processes."""
    end_with_parent()
    keras.utils.set_random_seed(0)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    index = strategy.cluster_resolver.task_id
    own = directory / f"worker-{index}"
    own.mkdir(exist_ok=True)
    for stage in stages:
        if stage == "cases":
            train_cases(strategy, own)
        elif stage == "nodes":
            for name in VARIANTS:
                weights, seen = train_on_nodes(strategy, name)
                save(own / f"nodes-{name}.npz", weights)
                (own / f"nodes-{name}.json").write_text(json.dumps(seen))
        else:
            recover(stage, strategy, directory, own)
        print(f"done: {stage}, {time.process_time():.1f} s of CPU time", flush=True)


def main() -> None:
    """Runs the jobs and leaves the return codes of their workers."""
    end_with_parent()
    directory = Path(sys.argv[1])
    recovery.example()  # So that workers need not import what it imports.
    codes = [
        run_workers(
            functools.partial(work, directory, job), directory / f"logs-{number}"
        )
        for number, job in enumerate(JOBS)
    ]
    (directory / CODES).write_text(json.dumps(codes))


if __name__ == "__main__":
    main()
