"""Tests of `nsl.beam.running`."""

import pytest

from nsl.beam.running import split_arguments
from nsl.tools.command_line import UsageError


def test_options_of_beam_are_told_from_arguments() -> None:
    arguments = ["a", "--runner=FnApiRunner", "b", "--direct_num_workers=2", ""]
    assert split_arguments(arguments) == (
        ["a", "b", ""],
        ["--runner=FnApiRunner", "--direct_num_workers=2"],
    )


def test_an_unknown_flag_is_refused() -> None:
    with pytest.raises(UsageError, match="Unknown flag --max_nbr:"):
        split_arguments(["--max_nbr=5"])
    # Flink's job server knows options that Beam's Python package does not.
    _, options = split_arguments(["--runner=FlinkRunner", "--parallelism=8"])
    assert "--parallelism=8" in options
