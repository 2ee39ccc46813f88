"""Runs a job in a separate process and measures its time and memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]

_PROGRAM = """\
import json, sys, time
import nsl.tools
arguments = json.loads(sys.argv[1])
function = getattr(nsl.tools, arguments.pop("function"))
import google_crc32c
from nsl.tools.example_proto import example_class
example_class()
def peak():
    # Not getrusage: its peak includes that of the parent process.
    with open("/proc/self/status") as status:
        return next(int(l.split()[1]) for l in status if l[:6] == "VmHWM:") * 1024
before = peak()
start, cpu_start = time.perf_counter(), time.process_time()
report = function(**arguments)
print(json.dumps({
    "seconds": time.perf_counter() - start,
    "cpu_seconds": time.process_time() - cpu_start,
    "bytes_above_import": peak() - before,
    "report": report,
}))
"""


def run(function: str, **arguments: Any) -> dict[str, Any]:
    """Calls a function of `nsl.tools` in a new process.

    Args:
      function: The function's name.
      **arguments: Its arguments, as JSON values.

    Returns:
      A dict of seconds, cpu_seconds, bytes_above_import (peak memory minus that of the
      imports) and report (the return value of the function).
    """
    arguments["function"] = function
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, json.dumps(arguments)],
        cwd=_ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])
