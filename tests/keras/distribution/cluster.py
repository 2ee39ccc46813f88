"""Processes on this machine that find each other through TF_CONFIG."""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

SECONDS = 900  # Far more than a job takes, so that only a hang fails.


def run_workers(work: Callable[[], None], logs: Path, workers: int = 2) -> list[int]:
    """Does some work in one process a worker and waits until all are gone.

    The processes are forks of this one, for importing TensorFlow takes longer than what
    they do; this one must not have used it. When a worker fails the others are ended
    too, as a job manager does.

    Args:
      work: What each worker does.
      logs: Where each worker's output goes.
      workers: How many there are.

    Returns:
      The return codes, of a killed worker minus the signal.

    Raises:
      TimeoutError: If they take too long.
    """
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(workers)]
    logs.mkdir(parents=True, exist_ok=True)
    running: dict[int, int] = {}
    for index in range(workers):
        process = os.fork()
        if not process:
            task = {"type": "worker", "index": index}
            config = {"cluster": {"worker": addresses}, "task": task}
            os.environ["TF_CONFIG"] = json.dumps(config)
            with (logs / f"worker-{index}.log").open("wb") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            work()
            sys.exit()
        running[process] = index
    codes = [0] * workers
    deadline = time.monotonic() + SECONDS
    try:
        while running and not any(codes):
            if time.monotonic() > deadline:
                raise TimeoutError(f"The workers took more than {SECONDS} s.")
            time.sleep(0.05)
            for process, index in list(running.items()):
                ended, status = os.waitpid(process, os.WNOHANG)
                if ended:
                    codes[index] = os.waitstatus_to_exitcode(status)
                    del running[process]
    finally:
        for process, index in running.items():
            os.kill(process, signal.SIGKILL)
            codes[index] = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return codes


def end_with_parent() -> None:
    """Ends this process when the one that holds the other end of its input is gone."""

    def wait() -> None:
        # Not `sys.stdin`, whose lock Python needs when it ends.
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _free_ports(count: int) -> list[int]:
    """Finds ports that nobody listens on; held together so that none comes twice."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
