"""What the commands share: their common options, and how they print.

Results go to stdout: for people as text, with `--json` as one JSON object a line and nothing else. Progress and errors
go to stderr, so that a pipe carries results alone.
"""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stream_app.errors import UsageError

console = Console(highlight=False)
error_console = Console(stderr=True, highlight=False)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="YAML settings; the environment wins.", dir_okay=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
RegistryOption = Annotated[
    str | None,
    typer.Option(
        "--registry", metavar="URL", help="Folder or fsspec URL of the models.", show_default="GANOMALY_REGISTRY__URL"
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:1, …", show_default="GANOMALY_WORKER__DEVICE"
    ),
]
ProfileOption = Annotated[
    str | None,
    typer.Option("--profile", metavar="PROFILE", help="accurate or fast.", show_default="GANOMALY_WORKER__PROFILE"),
]
NameOption = Annotated[str, typer.Option("--name", metavar="DETECTOR", help="The detector's name.")]
VersionOption = Annotated[
    str | None, typer.Option("--version", metavar="V", help="Of the detector.", show_default="the one in service")
]
DataOption = Annotated[
    Path,
    typer.Option("--data", metavar="FILE", help=".npz with rows x and labels y, or .csv with a line an observation."),
]


def check_input(option: str, path: Path) -> None:
    """Raises UsageError where there is no such file: said before anything slow begins."""
    if not path.is_file():
        raise UsageError(f"{option} {path}: there is no such file")


def check_output(option: str, path: Path) -> None:
    """Raises UsageError where no file can be written: said before the work that it is for."""
    if path.is_dir():
        raise UsageError(f"{option} {path}: is a folder; name a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {path.parent}")


def user_name() -> str:
    """Whoever runs the command, for what is kept of it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return f"user {os.getuid()}"


def print_json(value: Any) -> None:
    """Writes `value` (dicts, lists, numbers, strings, dates, NumPy arrays and scalars) as one line of JSON to stdout.

    The line is flushed, so that whoever reads the pipe sees it at once. NaN and infinity become null.
    """
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY, default=str).decode() + "\n")
    sys.stdout.flush()


def print_error(message: str) -> None:
    """One message to stderr, as it stands: brackets in it are no markup."""
    error_console.print(f"[bold red]error:[/bold red] {escape(message)}", soft_wrap=True)


def progress(json: bool) -> Progress:
    """A progress bar on stderr, to be used as a context manager; silent with `--json` and outside a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=error_console,
        disable=json or not error_console.is_terminal,
        transient=True,
    )
