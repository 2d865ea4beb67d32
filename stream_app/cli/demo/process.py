"""The demo's worker: a process of its own, as in production, with its log in a file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.error import URLError
from urllib.request import urlopen

from stream_app.errors import GanomalyError

START_TIMEOUT = 60.0  # seconds until the worker must be ready
STOP_TIMEOUT = 15.0  # seconds from SIGTERM to the exit; it promises 10
COMMAND = [sys.executable, "-c", "from stream_app.cli.main import main; main()"]


class DemoFailed(GanomalyError):
    """The demo did not get through; the message says where it stopped."""


class WorkerProcess:
    """A worker, or another `command` that goes on until SIGTERM, from `start` to `stop`, or as a context manager."""

    def __init__(
        self, variables: Mapping[str, str], arguments: list[str], url: str, log: Path, command: str = "worker"
    ) -> None:
        self.url = url
        self.log = log
        self._name = command
        self._command = [*COMMAND, command, *arguments]
        self._variables = variables
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it. Its log is JSON lines in the file."""
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C in the terminal is for the demo, which then ends the worker in order.
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | dict(self._variables),
                start_new_session=True,
            )

    def await_ready(self) -> None:
        """Returns when every route scores. Raises DemoFailed when the worker ends, or takes too long."""
        deadline = time.monotonic() + START_TIMEOUT
        while not self._ready():
            self.check()
            if time.monotonic() > deadline:
                raise DemoFailed(f"the worker was not ready within {START_TIMEOUT:.0f} s{self._last_lines()}")
            time.sleep(0.1)

    def check(self) -> None:
        """Raises DemoFailed when the worker has ended."""
        if self._process is not None and (code := self._process.poll()) is not None:
            raise DemoFailed(f"the {self._name} ended with exit code {code}{self._last_lines()}")

    def stop(self) -> int:
        """Sends SIGTERM and returns its exit code."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return 137

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _ready(self) -> bool:
        try:
            with urlopen(self.url + "readyz", timeout=2.0) as answer:  # noqa: S310 -- our own http:// URL
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def _last_lines(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-15:]
        return f". It wrote ({self.log}):\n" + "\n".join(lines) if lines else ". It wrote nothing."
