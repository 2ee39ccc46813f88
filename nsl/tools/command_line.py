"""What both commands share: flags, help, one-line errors and exit codes."""

import contextlib
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from logging import StreamHandler
from typing import Any, NoReturn

from absl import flags, logging

from nsl.files import output_files

_FAILED = 1
_WRONG_USE = 2
_INTERRUPTED = 128 + signal.SIGINT
_TERMINATED = 128 + signal.SIGTERM
# Flags of absl that the commands of NSL 1.4 took. Messages go to stderr alone.
_NO_EFFECT = ("alsologtostderr", "logtostderr", "showprefixforinfo")
_NO_EFFECT_WITH_VALUE = ("log_dir", "stderrthreshold")
_HIDDEN = {"flagfile", "undefok", "v", *_NO_EFFECT, *_NO_EFFECT_WITH_VALUE}
_HELP_FLAGS = {"--help", "-help", "-h", "-?", "--helpfull", "--helpshort"}


class UsageError(Exception):
    """The command was given wrong flags or a wrong number of arguments."""


def run(
    program: str,
    usage: str,
    define_flags: Callable[[flags.FlagValues], None],
    job: Callable[[list[str], dict[str, Any]], object],
    argv: Sequence[str] | None = None,
    *,
    pass_unknown_flags: bool = False,
) -> int:
    """Runs a command.

    Args:
      program: The command's name.
      usage: What it does and which arguments it takes.
      define_flags: Defines the command's flags.
      job: Does the work, given the arguments that are no flags, and the values of the
        command's flags as keyword arguments. It raises `UsageError` if the arguments
        are not the ones it expects.
      argv: The command line without the program's name. None takes `sys.argv`.
      pass_unknown_flags: Whether `job` gets flags that are not defined among the
        arguments, instead of an error.

    Returns:
      The exit code: 0, 1 after an error, 2 for a wrong command line.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    values = flags.FlagValues()  # type: ignore[no-untyped-call]
    values.set_gnu_getopt(True)  # flags may stand between and after the arguments
    define_flags(values)
    names = set(values) - {"flagfile", "undefok"}
    if not pass_unknown_flags:
        _define_logging_flags(values)
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if _HELP_FLAGS.intersection(own):
        print(f"{usage}\n\nFlags:\n{_describe(values)}")
        return 0
    try:
        positional = values([program, *arguments], known_only=pass_unknown_flags)[1:]
        _exit_on_termination()
        with _plain_log_lines(0 if pass_unknown_flags else values.verbosity):
            keywords = {name: values[name].value for name in names}
            if "report" in keywords:
                keywords["report_path"] = keywords.pop("report")
            job(positional, keywords)
    except (flags.Error, UsageError) as error:
        message = str(error).rstrip(".")
        print(f"{program}: {message}. Try --help.", file=sys.stderr)
        return _WRONG_USE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:
        if not isinstance(error, _expected_errors()):
            raise
        print(f"{program}: {_one_line(error)}", file=sys.stderr)
        return _FAILED
    return 0


def expect(arguments: list[str], names: str) -> list[str]:
    """Checks the number of arguments.

    Args:
      arguments: The arguments that are no flags.
      names: What they are, separated by spaces; one that ends in dots may stand for
        several.

    Returns:
      The arguments.

    Raises:
      UsageError: If their number is wrong.
    """
    wanted, received = len(names.split()), len(arguments)
    several = "..." in names
    if received < wanted or (received > wanted and not several):
        raise UsageError(
            f"Expected {'at least ' * several}{wanted} arguments ({names}), but "
            f"received {received}."
        )
    return arguments


def define_output_flags(values: flags.FlagValues) -> None:
    """Defines the flags that say how output files and the report are written."""
    flags.DEFINE_integer(
        "num_shards",
        None,
        "Writes this many files <output>-00000-of-0000N instead of one.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_enum(
        "compression",
        "none",
        output_files.COMPRESSIONS,
        "How the output is compressed: none or gzip.",
        flag_values=values,
    )
    define_report_flag(values)


def define_report_flag(values: flags.FlagValues) -> None:
    """Defines the flag for the file that gets the report."""
    flags.DEFINE_string(
        "report", None, "A file that gets the report as JSON.", flag_values=values
    )


def _define_logging_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_integer(
        "verbosity",
        logging.INFO,
        "What is logged on stderr: 0 all, -1 warnings, -2 errors.",
        short_name="v",
        flag_values=values,
    )
    for name in _NO_EFFECT:
        flags.DEFINE_bool(name, False, "Without effect.", flag_values=values)
    for name in _NO_EFFECT_WITH_VALUE:
        flags.DEFINE_string(name, None, "Without effect.", flag_values=values)


@contextlib.contextmanager
def _plain_log_lines(verbosity: int) -> Iterator[None]:
    """Logs on stderr, and nothing but the messages."""
    logger = logging.get_absl_logger()
    handler = StreamHandler()
    before = logger.propagate, logging.get_verbosity()
    logger.addHandler(handler)
    logger.propagate = False
    logging.set_verbosity(verbosity)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before[0]
        logging.set_verbosity(before[1])


def _describe(values: flags.FlagValues) -> str:
    described = []
    names = sorted({flag.name for flag in values._flags().values()})
    for name in names:
        if name in _HIDDEN:
            continue
        flag: Any = values[name]
        title = f"--[no]{name}" if flag.boolean else f"--{name}"
        if flag.default not in (None, False):
            title += f" (default {flag.default!r})"
        described.append(title)
        described.append(
            textwrap.fill(
                " ".join(flag.help.split()),
                width=79,
                initial_indent="    ",
                subsequent_indent="    ",
            )
        )
    return "\n".join(described)


def _exit_on_termination() -> None:
    """Makes a request to terminate unwind the program, so that it tidies up."""

    def exit_now(number: int, frame: object) -> NoReturn:
        raise SystemExit(_TERMINATED)

    try:
        signal.signal(signal.SIGTERM, exit_now)
    except ValueError:
        return  # not the main thread: the caller's own handling stays


def _expected_errors() -> tuple[type[BaseException], ...]:
    expected: tuple[type[BaseException], ...] = (
        OSError,
        ValueError,
        TypeError,
        ImportError,
        MemoryError,
    )
    if "tensorflow" in sys.modules:  # only remote files and GPUs bring it in
        expected += (sys.modules["tensorflow"].errors.OpError,)
    return expected


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f": {os.fspath(error.filename)}" if error.filename else ""
        message = f"{error.strerror}{where}"
    else:
        message = str(error) or type(error).__name__
    return " ".join(message.split("\n"))
