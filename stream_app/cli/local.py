"""`local`: embedded servers for development, alone or around a command."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from types import FrameType
from typing import Annotated

import typer

from stream_app.cli.common import ConfigOption, JsonOption, console, error_console, print_json
from stream_app.errors import UsageError
from stream_app.local import EmbeddedServers
from stream_app.settings import load_settings

CHECK_INTERVAL = 0.5  # seconds between two looks at whether the servers still run


def local(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- COMMAND …", help="Run it with the settings in its environment, then stop."),
    ] = None,
    kafka_port: Annotated[int | None, typer.Option(min=1, max=65535, show_default="a free one")] = None,
    redis_port: Annotated[int | None, typer.Option(min=1, max=65535, show_default="a free one")] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Run the embedded broker and Redis.

    Alone, it prints the settings that point at the servers and stays until Ctrl-C.

    Around a command, it runs it with those settings, stops the servers after it, and ends with its exit code.
    """
    signal.signal(signal.SIGTERM, _terminate)
    with EmbeddedServers(load_settings(config), kafka_port=kafka_port, redis_port=redis_port) as servers:
        code = _run(command, servers.environment()) if command else _stay(servers, json)
    raise typer.Exit(code)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _stay(servers: EmbeddedServers, json: bool) -> int:
    try:
        _announce(servers.environment(), json)
        while True:
            time.sleep(CHECK_INTERVAL)
            servers.check()
    except KeyboardInterrupt:
        return 0


def _announce(variables: dict[str, str], json: bool) -> None:
    if json:
        print_json(variables)
        return
    for name, value in variables.items():
        console.print(f"export {name}={shlex.quote(value)}", markup=False, soft_wrap=True)
    error_console.print("The embedded Kafka broker and Redis are running. Ctrl-C stops them; what they hold is lost.")


def _run(command: list[str], variables: dict[str, str]) -> int:
    """Runs the command and returns its exit code, 128 + N when signal N ended it."""
    try:
        process = subprocess.Popen(command, env=os.environ | variables)
    except OSError as error:
        raise UsageError(f"{command[0]}: {error.strerror}") from error
    # Ctrl-C reaches the command too, by the terminal. How it ends is its own affair; the servers stay until it has.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    code = process.wait()
    return code if code >= 0 else 128 - code
