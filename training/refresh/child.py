"""Work in a process of its own, which can be ended at any moment and takes nobody with it.

The process ends with its parent, in whatever way that ended: what goes on after a trainer is gone would train beside
the next one.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar, cast

from stream_app.errors import GanomalyError

Result = TypeVar("Result")
Report = Callable[[dict[str, Any]], None]
_END_TIMEOUT = 3.0  # seconds from SIGTERM to SIGKILL
_CONTEXT = multiprocessing.get_context("spawn")  # a fork would copy the locks of our threads and torch's


class ChildFailed(GanomalyError):
    """The process raised, or ended without a result. `cause` is the error's name."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


async def run_in_child(work: Callable[..., Result], *arguments: Any, report: Report, niceness: int = 0) -> Result:
    """`work(*arguments, report)` in a process of its own, by `niceness` less urgent than this one; its result.

    `work` is a function of a module; it, the arguments, what is reported and the result are sent between the
    processes. Cancelled, it ends the process before it returns. Raises ChildFailed.
    """
    here, there = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_work, args=(there, niceness, work, arguments), daemon=True)
    try:
        process.start()
        there.close()
        return cast(Result, await _follow(here, report))
    except (EOFError, ConnectionError):
        await asyncio.to_thread(process.join, _END_TIMEOUT)
        code = process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise ChildFailed("Killed", f"the process that trains ended without a result ({how})") from None
    finally:
        here.close()
        await _end(process)


async def _follow(connection: Connection, report: Report) -> Any:
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(connection.fileno(), readable.set)
    try:
        while True:
            await readable.wait()
            readable.clear()
            while connection.poll():
                kind, value = connection.recv()
                if kind == "result":
                    return value
                if kind == "error":
                    raise ChildFailed(*value)
                report(value)
    finally:
        loop.remove_reader(connection.fileno())


async def _end(process: Any) -> None:
    if process.pid is None:
        return
    process.terminate()
    await asyncio.shield(asyncio.to_thread(process.join, _END_TIMEOUT))
    if process.is_alive():
        process.kill()
        await asyncio.shield(asyncio.to_thread(process.join))


def _work(connection: Connection, niceness: int, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """The process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent ends us
    os.nice(niceness)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def report(event: dict[str, Any]) -> None:
        connection.send(("event", event))

    try:
        result = work(*arguments, report)
    except Exception as error:
        connection.send(("error", (type(error).__name__, str(error) or type(error).__name__)))
    else:
        connection.send(("result", result))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
