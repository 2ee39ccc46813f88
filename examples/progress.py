"""What a program tells while it works."""

import sys
import time


class Progress:
    """One line a part, and on a terminal a running line below it."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._live = sys.stderr.isatty()

    def part(self, title: str) -> None:
        """Shows that a part begins."""
        self._show(title, end="\n")

    def step(self, title: str) -> None:
        """Shows what is going on, on a terminal only."""
        if self._live:
            self._show(f"  {title}", end="")

    def _show(self, title: str, end: str) -> None:
        seconds = time.monotonic() - self._start
        clear = "\r\033[K" if self._live else ""
        print(
            f"{clear}[{seconds:4.0f} s] {title}", end=end, file=sys.stderr, flush=True
        )
