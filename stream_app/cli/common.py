"""What the commands share: their common options, and how they print.

Results go to stdout: for people as text, with `--json` as one JSON object a line and nothing else. Progress and errors
go to stderr, so that a pipe carries results alone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(highlight=False)
error_console = Console(stderr=True, highlight=False)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="YAML settings; the environment wins.", dir_okay=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]


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
