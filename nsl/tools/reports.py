"""Reports of the commands, as log messages and as JSON."""

import json
import os
from typing import Any

from absl import logging

from nsl.files import output_files


def log(title: str, values: dict[str, Any]) -> None:
    """Logs a report, one line for each value."""
    logging.info("%s", title)
    for name, value in values.items():
        logging.info("  %s: %s", name.replace("_", " "), value)


def write_json(path: str | os.PathLike[str], values: dict[str, Any]) -> None:
    """Writes a report as a JSON object.

    Args:
      path: The file to write, atomically.
      values: The report.

    Raises:
      OSError: If the file cannot be written.
    """
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    with output_files.atomic_files([os.fspath(path)]) as (file,):
        file.write(text.encode())
