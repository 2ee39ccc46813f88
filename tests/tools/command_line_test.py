"""Tests of `nsl.tools.command_line`."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from absl import flags, logging

from nsl.tools import command_line


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_integer("count", 3, "How many.", lower_bound=0, flag_values=values)
    flags.DEFINE_bool("loud", False, "Whether to shout.", flag_values=values)


def run(arguments: list[str], job: Callable[..., None] = lambda *_: None) -> int:
    return command_line.run("tool", "Does a thing.", define, job, arguments)


def raising(error: BaseException) -> Callable[..., None]:
    def job(arguments: list[str], keywords: dict[str, object]) -> None:
        raise error

    return job


def test_flags_and_arguments_in_any_order() -> None:
    seen = []
    code = run(
        ["a", "--count=5", "", "--loud", "--", "--b"],
        lambda arguments, keywords: seen.append((arguments, keywords)),
    )
    assert code == 0
    assert seen == [(["a", "", "--b"], {"count": 5, "loud": True})]


def test_the_number_of_arguments() -> None:
    assert command_line.expect(["x", "y"], "a b") == ["x", "y"]
    assert command_line.expect(["x", "y", "z"], "a... b") == ["x", "y", "z"]
    for arguments, names, message in (
        (["x"], "a b", r"Expected 2 arguments \(a b\), but received 1"),
        (["x", "y", "z"], "a b", "Expected 2 arguments .* 3"),
        (["x"], "a... b", "Expected at least 2 arguments .* 1"),
    ):
        with pytest.raises(command_line.UsageError, match=message):
            command_line.expect(arguments, names)


def test_logging_flags_of_nsl_14(capfd: pytest.CaptureFixture[str]) -> None:
    """Its commands took all flags of absl; scripts that set them must go on."""
    arguments = ["--alsologtostderr", "--nologtostderr", "--log_dir=/tmp", "a"]
    arguments += ["--stderrthreshold=info", "--noshowprefixforinfo"]

    def job(positional: list[str], keywords: dict[str, object]) -> None:
        assert positional == ["a"]
        assert "log_dir" not in keywords
        logging.info("read")
        logging.warning("odd")

    for flag, lines in (
        ([], ["read", "odd"]),
        (["--verbosity=-1"], ["odd"]),
        (["-v", "-2"], []),
    ):
        assert run([*arguments, *flag], job) == 0
        assert capfd.readouterr().err.splitlines() == lines


@pytest.mark.parametrize("flag", ["--help", "-h", "--helpfull"])
def test_help(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["a", flag], raising(AssertionError("the job must not run"))) == 0
    text = capsys.readouterr().out
    assert "Does a thing." in text
    assert "--count (default 3)\n    How many." in text
    assert "--[no]loud" in text
    assert "undefok" not in text
    assert "--verbosity (default 0)" in text
    assert "alsologtostderr" not in text


def test_help_for_a_reader_that_leaves() -> None:
    """As with `nsl-pack-nbrs --help | head -1`."""
    program = "from nsl.tools.build_graph import main; raise SystemExit(main(['-h']))"
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer) as closed:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdout=closed,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cuont=5"], "cuont"),
        (["--count=many"], "count"),
        (["--count=-1"], "count"),
        (["--count"], "count"),
    ],
)
def test_wrong_flags(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tool: ")
    assert message in line
    assert line.endswith(". Try --help.")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("The file\nis bad."), "tool: The file is bad."),
        (
            OSError(errno.ENOENT, "No such file or directory", "x.tfr"),
            "tool: No such file or directory: x.tfr",
        ),
        (FileNotFoundError("There is no file 'x'."), "tool: There is no file 'x'."),
        (MemoryError(), "tool: MemoryError"),
    ],
)
def test_errors_are_one_line(
    error: Exception, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([], raising(error)) == 1
    assert capsys.readouterr().err == f"{line}\n"


def test_an_interrupt_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([], raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == ""


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run([], raising(ZeroDivisionError()))
