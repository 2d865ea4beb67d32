"""How a benchmark is run as a command: its progress, and its end."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn

from stream_app.errors import GanomalyError, UsageError


def progress(console: Console, done: ProgressColumn | None = None) -> Progress:
    """What is being done, a bar, `done` (so many of so many, unless told), and the time since the start."""
    columns = (TextColumn("{task.description}"), BarColumn(), done or MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def place() -> int:
    """Keeps this process, and what it starts from now on, off one core, and returns that core.

    Raises UsageError where there is no second one.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise UsageError("two cores are needed: one for the worker, one for the broker, Redis and the publisher")
    os.sched_setaffinity(0, cores[1:])
    return cores[0]


def run(main: Callable[..., Any], console: Console, exit_code: Callable[[GanomalyError], int]) -> None:
    """Runs `main` as a typer command; an error of ours is said in a line and ends with its exit code."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except GanomalyError as error:
        console.print(f"error: {error}", markup=False, style="red")
        raise SystemExit(exit_code(error)) from None
