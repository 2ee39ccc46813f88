"""Processes on this machine that find each other through TF_CONFIG."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[3]


def run_cluster(
    module: str, arguments: Sequence[str], logs: Path, workers: int = 2
) -> list[int]:
    """Runs a module in one process a worker and waits until all are gone.

    When a worker fails the others are ended too, as a job manager does. None outlives
    this call, and with `end_with_parent` none outlives this process.

    Args:
      module: What `python -m` runs.
      arguments: Its arguments.
      logs: Where each worker's output goes.
      workers: How many there are.

    Returns:
      The return codes, of a killed worker minus the signal.

    Raises:
      TimeoutError: If they take too long; shows what they last wrote.
    """
    seconds = 900  # Far more than it takes, so that only a hang fails.
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(workers)]
    logs.mkdir(parents=True, exist_ok=True)
    processes: list[subprocess.Popen[bytes]] = []
    files = [(logs / f"worker-{index}.log").open("wb") for index in range(workers)]
    try:
        for index in range(workers):
            task = {"type": "worker", "index": index}
            config = {"cluster": {"worker": addresses}, "task": task}
            environment = {
                **os.environ,
                "TF_CONFIG": json.dumps(config),
                "PYTHONPATH": str(ROOT),
            }
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", module, *arguments],
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=files[index],
                    stderr=subprocess.STDOUT,
                )
            )
        deadline = time.monotonic() + seconds
        while any(process.poll() is None for process in processes):
            codes = [process.poll() for process in processes]
            if any(code is not None and code != 0 for code in codes):
                break
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{module} took more than {seconds} s:\n{_tails(logs)}"
                )
            time.sleep(0.05)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
        for file in files:
            file.close()
    return [process.returncode for process in processes]


def end_with_parent() -> None:
    """Ends this worker when the process that started it is gone."""

    def wait() -> None:
        # Not `sys.stdin`, whose lock Python needs when it ends.
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _tails(logs: Path) -> str:
    return "\n".join(
        f"{path.name}:\n{path.read_text(errors='replace')[-3000:]}"
        for path in sorted(logs.glob("*.log"))
    )


def succeed(module: str, arguments: Sequence[str], logs: Path) -> None:
    """Runs a cluster whose workers must all end well."""
    codes = run_cluster(module, arguments, logs)
    assert codes == [0, 0], f"{codes}\n{_tails(logs)}"


def _free_ports(count: int) -> list[int]:
    """Finds ports that nobody listens on; held together so that none comes twice."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
