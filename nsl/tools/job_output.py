"""The output files of a job and its report, which is logged and written as JSON."""

import contextlib
import json
import os
from collections.abc import Iterable
from typing import Any

from absl import logging

from nsl.files import output_files
from nsl.files.input_files import PathLike


class JobOutput:
    """The output files of a job and its report.

    Attributes:
      path: The path of the output.
      num_shards: The number of shards, or None for a single file.
      compression: None, 'none' or 'gzip'.
      files: The paths of the output files.
    """

    def __init__(
        self,
        path: PathLike,
        inputs: Iterable[str],
        num_shards: int | None = None,
        compression: str | None = None,
        report_path: PathLike | None = None,
    ) -> None:
        """Checks that the files can be written.

        Args:
          path: The path of the output.
          inputs: The files that the job reads, none of which may be written.
          num_shards: The number of shards, or None for a single file.
          compression: None, 'none' or 'gzip'.
          report_path: The JSON file to write the report to, if any.

        Raises:
          FileNotFoundError: If a directory does not exist.
          OSError: If a path is a directory or a device, or its directory is not
            writable.
          ValueError: If the number of shards or the compression is invalid, or a path
            is empty, one of `inputs`, or also that of the report.
        """
        if num_shards is not None and num_shards < 1:
            raise ValueError(f"num_shards must be at least 1, but is {num_shards}.")
        if compression not in (None, *output_files.COMPRESSIONS):
            raise ValueError(
                f"compression must be one of {output_files.COMPRESSIONS}, but is "
                f"{compression!r}."
            )
        inputs = list(inputs)
        self.path = os.fspath(path)
        self.num_shards = num_shards
        self.compression = compression
        self.files = output_files.shard_names(self.path, num_shards)
        output_files.check_outputs(self.files, inputs)
        self._report_path = None if report_path is None else os.fspath(report_path)
        if self._report_path is not None:
            output_files.check_outputs([self._report_path], [*inputs, *self.files])

    def open(self) -> contextlib.AbstractContextManager[list[output_files.OutputFile]]:
        """Returns a context with the output files; see `atomic_files`."""
        compression = "gzip" if self.compression == "gzip" else None
        return output_files.atomic_files(self.files, compression)

    def report(self, values: dict[str, Any], dry_run: bool = False) -> None:
        """Logs the report, one line for each value, and writes it.

        Args:
          values: The report.
          dry_run: Whether the output was not written.

        Raises:
          OSError: If the report cannot be written.
        """
        shown = ", ".join(self.files)
        logging.info("%s %s", "Would write" if dry_run else "Wrote", shown)
        for name, value in values.items():
            logging.info("  %s: %s", name.replace("_", " "), value)
        if self._report_path is not None:
            text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
            with output_files.atomic_files([self._report_path]) as (file,):
                file.write(text.encode())
