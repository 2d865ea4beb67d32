"""The `ganomaly-stream` command: a table of commands, each loaded when it is asked for, and what errors become.

Exit codes: 0 done, 1 failed, 2 asked for something impossible, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import importlib
import itertools
import sys
import traceback
from importlib.metadata import version
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from stream_app.cli.common import print_error
from stream_app.errors import GanomalyError, UsageError, WorkerFault


class Command(NamedTuple):
    """Where a command is found, and its line in the list: the first of its own help."""

    target: str  # "module:function", or "module:app" for a typer.Typer with commands of its own
    help: str
    passes_through: bool = False  # options after the first argument belong to that argument


# In the order that they are first met in.
COMMANDS = {
    "demo": Command("stream_app.cli.demo.command:demo", "Train, stream and find real anomalies, on embedded servers."),
    "train": Command("stream_app.cli.train:train", "Train a detector and put it in service."),
    "worker": Command("stream_app.cli.worker:worker", "Score what is published, until SIGTERM or Ctrl-C."),
    "local": Command("stream_app.cli.local:local", "Run the embedded broker and Redis.", passes_through=True),
    "publish": Command("stream_app.cli.publish:publish", "Publish the rows of a file as records."),
    "watch": Command("stream_app.cli.watch:watch", "Follow the alerts, one line each."),
    "label": Command(
        "stream_app.cli.label:label", "Say of alerts, or of other records, that they were normal or anomalies."
    ),
    "score": Command("stream_app.cli.score:score", "Score a file's rows in order, as the stream would."),
    "evaluate": Command(
        "stream_app.cli.evaluate:evaluate", "Measure a detector, and simple methods beside it, on a labelled file."
    ),
    "corrupt": Command("stream_app.cli.corrupt:corrupt", "Corrupt a share of clean pictures, to test a detector on."),
    "models": Command("stream_app.cli.models:app", "Look at the detectors, and choose what is in service."),
    "schedule": Command(
        "stream_app.cli.schedule:schedule", "Retrain detectors from their streams whenever a run is due."
    ),
    "doctor": Command(
        "stream_app.cli.doctor:doctor", "Check what the worker needs, and say what is wrong and how to mend it."
    ),
}


class LazyGroup(TyperGroup):
    """Imports a command's module only when the command runs: listing them costs no torch."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=command.help) for name, command in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command itself, in place of the stand-in that lists it."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, load(name) if name and found else found, rest


def load(name: str) -> Any:
    """Imports the command `name` of the table and returns it ready to be invoked."""
    module, _, attribute = COMMANDS[name].target.partition(":")
    target = getattr(importlib.import_module(module), attribute)
    if isinstance(target, typer.Typer):
        return typer.main.get_command(target)
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    context = {"allow_interspersed_args": not COMMANDS[name].passes_through}
    single.command(name, context_settings=context)(target)
    return typer.main.get_command(single)


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ganomaly-stream {version('ganomaly-stream')}")
        raise typer.Exit


@app.callback()
def ganomaly_stream(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an unexpected error.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Watch live streams of pictures and of sequences for anomalies."""


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line (of the process, unless `arguments` are given) and ends with its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        app(arguments, prog_name="ganomaly-stream")
    except KeyboardInterrupt:
        sys.exit(130)
    except GanomalyError as error:
        print_error(str(error))
        sys.exit(exit_code(error))
    except Exception as error:
        if "--debug" in itertools.takewhile(lambda argument: argument.startswith("-"), arguments):
            traceback.print_exc()
        else:
            print_error(
                f"{type(error).__name__}: {error}\nThis is unexpected; `ganomaly-stream --debug …` shows where."
            )
        sys.exit(1)


def exit_code(error: GanomalyError) -> int:
    """What the process ends with after `error`."""
    if isinstance(error, UsageError):
        return 2
    return error.exit_code if isinstance(error, WorkerFault) else 1
