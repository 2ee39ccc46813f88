"""Flags, help, one-line errors and exit codes of the commands."""

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
# absl flags that the commands of NSL 1.4 accepted. Messages always go to stderr.
_NO_EFFECT = ("alsologtostderr", "logtostderr", "showprefixforinfo")
_NO_EFFECT_WITH_VALUE = ("log_dir", "stderrthreshold")
_HIDDEN = {"flagfile", "undefok", "v", *_NO_EFFECT, *_NO_EFFECT_WITH_VALUE}
_HELP_FLAGS = {"--help", "-help", "-h", "-?", "--helpfull", "--helpshort"}


class UsageError(Exception):
    """An invalid flag or a wrong number of arguments on the command line."""


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
      usage: The description and the arguments, for --help.
      define_flags: Defines the command's flags.
      job: Does the work, given the positional arguments, and the values of the
        command's flags as keyword arguments. It raises `UsageError` for invalid
        arguments.
      argv: The command line without the program's name; `sys.argv[1:]` by default.
      pass_unknown_flags: Whether to pass unknown flags to `job` with the positional
        arguments, instead of failing.

    Returns:
      The exit code: 0 for success, 1 after an error, 2 for an invalid command line.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    values = flags.FlagValues()  # type: ignore[no-untyped-call]
    values.set_gnu_getopt(True)  # allow flags between and after the arguments
    define_flags(values)
    names = set(values) - {"flagfile", "undefok"}
    if not pass_unknown_flags:
        _define_logging_flags(values)
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if _HELP_FLAGS.intersection(own):
        _print(f"{usage}\n\nFlags:\n{_describe(values)}")
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
      arguments: The positional arguments.
      names: Their names, separated by spaces; one that ends in "..." may be repeated.

    Returns:
      The arguments.

    Raises:
      UsageError: If the number is wrong.
    """
    expected, received = len(names.split()), len(arguments)
    is_minimum = "..." in names
    if received < expected or (received > expected and not is_minimum):
        raise UsageError(
            f"Expected {'at least ' * is_minimum}{expected} arguments ({names}), but "
            f"received {received}."
        )
    return arguments


def define_output_flags(values: flags.FlagValues) -> None:
    """Defines the flags for output files and the report."""
    flags.DEFINE_integer(
        "num_shards",
        None,
        "The number of shards, <output>-00000-of-0000N. By default, the output is a "
        "single file.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_enum(
        "compression",
        "none",
        output_files.COMPRESSIONS,
        "The compression of the output.",
        flag_values=values,
    )
    define_report_flag(values)


def define_report_flag(values: flags.FlagValues) -> None:
    """Defines the flag for the report file."""
    flags.DEFINE_string(
        "report", None, "A JSON file to write the report to.", flag_values=values
    )


def _define_logging_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_integer(
        "verbosity",
        logging.INFO,
        "The verbosity of the log on stderr: 0 everything, -1 warnings, -2 errors.",
        short_name="v",
        flag_values=values,
    )
    for name in _NO_EFFECT:
        flags.DEFINE_bool(name, False, "No effect.", flag_values=values)
    for name in _NO_EFFECT_WITH_VALUE:
        flags.DEFINE_string(name, None, "No effect.", flag_values=values)


@contextlib.contextmanager
def _plain_log_lines(verbosity: int) -> Iterator[None]:
    """Logs to stderr, messages only."""
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


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The reader, such as head, wants no more. Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _describe(values: flags.FlagValues) -> str:
    described = []
    names = sorted({flag.name for flag in values._flags().values()})
    for name in names:
        if name in _HIDDEN:
            continue
        flag: Any = values[name]
        title = f"--[no]{name}" if flag.boolean else f"--{name}"
        if flag.default is not None and flag.default is not False:
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
    """Turns SIGTERM into SystemExit, so that temporary files are cleaned up."""

    def exit_now(number: int, frame: object) -> NoReturn:
        raise SystemExit(_TERMINATED)

    try:
        signal.signal(signal.SIGTERM, exit_now)
    except ValueError:
        return  # not the main thread: keep the caller's handler


def _expected_errors() -> tuple[type[BaseException], ...]:
    expected: tuple[type[BaseException], ...] = (
        OSError,
        ValueError,
        TypeError,
        ImportError,
        MemoryError,
    )
    if "tensorflow" in sys.modules:  # imported only for remote files and GPUs
        expected += (sys.modules["tensorflow"].errors.OpError,)
    return expected


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f": {os.fspath(error.filename)}" if error.filename else ""
        message = f"{error.strerror}{where}"
    else:
        message = str(error) or type(error).__name__
    return " ".join(message.split("\n"))
