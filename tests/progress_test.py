"""Tests of `nsl.progress`."""

import io
import logging

import pytest

from nsl.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Tells the time that it is set to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_line_on_a_terminal() -> None:
    stream, clock = Terminal(), Clock()
    with Progress("Reading", 2000, "bytes", stream=stream, clock=clock) as progress:
        progress.advance(1)
        assert stream.getvalue() == ""
        clock.now += 10
        progress.advance(499)
        line = stream.getvalue()
        assert line.startswith("\r")
        assert line.strip() == "Reading: 25%, 50 bytes/s, 0:30 left"
        progress.reach(1999)
        assert stream.getvalue() == line
    # The line is wiped at the end.
    assert stream.getvalue().endswith(" \r")


def test_log_lines_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        with (
            caplog.at_level(logging.INFO, logger="absl"),
            Progress(
                "Job", 100, "pairs", stream=io.StringIO(), clock=clock
            ) as progress,
        ):
            clock.now += 29
            progress.advance(1)
            assert not caplog.records
            clock.now += 3601 * 4 - 29
            progress.advance(49)
    finally:
        logger.setLevel(before)
    assert [record.getMessage() for record in caplog.records] == [
        "Job: 50%, 0 pairs/s, 4:00:04 left"
    ]


def test_nothing_to_do() -> None:
    progress = Progress("Job", 0, "pairs", stream=io.StringIO(), clock=Clock())
    assert progress.line(100.0) == "Job: 100%, 0 pairs/s, 0:00 left"
