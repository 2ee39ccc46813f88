"""Runs pipelines from the command line: flags, Beam options, metrics."""

from collections.abc import Callable, Sequence
from typing import Any

from absl import flags
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions

from nsl.tools import command_line
from nsl.tools.command_line import UsageError

_USAGE = """

Runs on Apache Beam. --runner=... selects the runner; other Beam options are passed as
--name=value. Each file is read by one worker, different files in parallel."""

# The job servers of these runners have options that Beam's Python package lacks.
_OPEN_RUNNERS = ("portable", "flink", "spark")


def run(
    program: str,
    usage: str,
    define_flags: Callable[[flags.FlagValues], None],
    job: Callable[[list[str], dict[str, Any]], object],
    argv: Sequence[str] | None,
) -> int:
    """Like `command_line.run`, but also accepts Beam options.

    Args:
      program: The command's name.
      usage: The description and the arguments, for --help.
      define_flags: Defines the command's flags.
      job: Does the work; `pipeline_options` is one of its keyword arguments.
      argv: The command line without the program's name; `sys.argv[1:]` by default.

    Returns:
      The exit code.
    """

    def run_job(arguments: list[str], keywords: dict[str, Any]) -> None:
        positional, options = split_arguments(arguments)
        job(positional, keywords | {"pipeline_options": options})

    return command_line.run(
        program, usage + _USAGE, define_flags, run_job, argv, pass_unknown_flags=True
    )


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates positional arguments and Beam options.

    Args:
      arguments: Positional arguments, and flags that the command does not have.

    Returns:
      The positional arguments, and the Beam options.

    Raises:
      UsageError: If Beam does not have a flag either.
    """
    positional = [argument for argument in arguments if argument[:2] != "--"]
    options = [argument for argument in arguments if argument[:2] == "--"]
    known = PipelineOptions().get_all_options()
    runner = str(PipelineOptions(options).get_all_options()["runner"]).lower()
    if not any(name in runner for name in _OPEN_RUNNERS):
        for option in options:
            name = option[2:].partition("=")[0]
            if name not in known and name.removeprefix("no_") not in known:
                raise UsageError(
                    f"Unknown flag --{name}: neither this command nor Beam has it "
                    "(write --name=value)"
                )
    return positional, options


def metrics(result: Any, namespace: str) -> tuple[dict[str, int], dict[str, Any]]:
    """Returns the metrics of a pipeline.

    Args:
      result: The result of running the pipeline.
      namespace: The namespace of the metrics.

    Returns:
      The counters by name, and the distributions by name.
    """
    found = result.metrics().query(MetricsFilter().with_namespace(namespace))
    counters: dict[str, int] = {}
    for metric in found["counters"]:
        name = metric.key.metric.name
        counters[name] = counters.get(name, 0) + metric.result
    return counters, {
        metric.key.metric.name: metric.result for metric in found["distributions"]
    }
