"""Progress messages on stderr."""

import sys
import time


class Progress:
    """Prints a line per part, and a status line on a terminal."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._live = sys.stderr.isatty()

    def part(self, title: str) -> None:
        """Announces the next part."""
        self._show(title, end="\n")

    def step(self, title: str) -> None:
        """Updates the status line; does nothing without a terminal."""
        if self._live:
            self._show(f"  {title}", end="")

    def _show(self, title: str, end: str) -> None:
        seconds = time.monotonic() - self._start
        clear = "\r\033[K" if self._live else ""
        print(
            f"{clear}[{seconds:4.0f} s] {title}", end=end, file=sys.stderr, flush=True
        )
