"""Progress of a long job: a live line on a terminal, log messages elsewhere."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from absl import logging

_TERMINAL_SECONDS = 0.2
_LOG_SECONDS = 30.0
_WIDTH = 79


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{seconds:02d}"
    return f"{minutes}:{seconds:02d}"


class Progress:
    """Reports how much of a job is done, its rate and the time left.

    Example:
      with Progress("Reading", total=file_size, unit="bytes") as progress:
          for record in records:
              progress.advance(len(record))
    """

    def __init__(
        self,
        title: str,
        total: float,
        unit: str,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts the clock.

        Args:
          title: The beginning of the line, such as "Reading".
          total: The total amount of work.
          unit: The unit of work, in the plural.
          stream: The stream to write the live line to if it is a terminal; stderr by
            default.
          clock: Returns the time in seconds.
        """
        self._title = title
        self._total = total
        self._unit = unit
        self._clock = clock
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream is not None and self._stream.isatty()
        self._interval = _TERMINAL_SECONDS if self._live else _LOG_SECONDS
        self._done = 0.0
        self._shown = False
        self._start = clock()
        self._next = self._start + self._interval

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._shown and self._live:
            # Clear the line for later output.
            self._stream.write("\r" + " " * _WIDTH + "\r")
            self._stream.flush()

    def advance(self, amount: float) -> None:
        """Adds `amount` to the work done, and reports if a report is due."""
        self.reach(self._done + amount)

    def reach(self, done: float) -> None:
        """Sets the work done so far to `done`, and reports if a report is due."""
        self._done = done
        now = self._clock()
        if now < self._next:
            return
        self._next = now + self._interval
        self._shown = True
        if self._live:
            self._stream.write("\r" + self.line(now)[:_WIDTH].ljust(_WIDTH))
            self._stream.flush()
        else:
            logging.info("%s", self.line(now))

    def line(self, now: float) -> str:
        """Returns the report at time `now`."""
        elapsed = now - self._start
        share = self._done / self._total if self._total else 1.0
        rate = self._done / elapsed if elapsed > 0 else 0.0
        left = (self._total - self._done) / rate if rate > 0 else 0.0
        return (
            f"{self._title}: {share:.0%}, {rate:,.0f} {self._unit}/s, "
            f"{_duration(max(left, 0.0))} left"
        )
