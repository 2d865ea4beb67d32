"""What the stages of a worker cost.

A stage that waits lets others run on the event loop, so that its time on the clock says little of a busy worker. CPU is
counted step by step instead: only while the stage itself runs, on whichever thread that is.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Stage:
    """Of all calls together: CPU seconds, and seconds on the clock."""

    calls: int = 0
    cpu: float = 0.0
    seconds: float = 0.0


class Meter:
    """Counts what functions cost, by stage. One that is called within another counts for both."""

    def __init__(self) -> None:
        self.stages: dict[str, Stage] = {}

    def wrap(self, owner: Any, name: str, stage: str) -> None:
        """Puts one that counts in the place of the function, or coroutine function, `owner.name`."""
        function = getattr(owner, name)
        spent = self.stages.setdefault(stage, Stage())
        counted = _counted_steps if inspect.iscoroutinefunction(function) else _counted_call
        setattr(owner, name, functools.wraps(function)(counted(function, spent)))


def observe(owner: Any, name: str, seen: Callable[..., None]) -> None:
    """Has `seen` called after each call of `owner.name`, with its result and its arguments."""
    function = getattr(owner, name)

    def call(*args: Any, **options: Any) -> Any:
        result = function(*args, **options)
        seen(result, *args, **options)
        return result

    async def steps(*args: Any, **options: Any) -> Any:
        result = await function(*args, **options)
        seen(result, *args, **options)
        return result

    setattr(owner, name, functools.wraps(function)(steps if inspect.iscoroutinefunction(function) else call))


def _counted_call(function: Callable[..., Any], spent: Stage) -> Callable[..., Any]:
    def counted(*args: Any, **options: Any) -> Any:
        started, cpu = time.monotonic(), time.thread_time()
        try:
            return function(*args, **options)
        finally:
            spent.calls += 1
            spent.cpu += time.thread_time() - cpu
            spent.seconds += time.monotonic() - started

    return counted


def _counted_steps(function: Callable[..., Coroutine[Any, Any, Any]], spent: Stage) -> Callable[..., Any]:
    async def counted(*args: Any, **options: Any) -> Any:
        started = time.monotonic()
        try:
            return await _Steps(function(*args, **options), spent)
        finally:
            spent.calls += 1
            spent.seconds += time.monotonic() - started

    return counted


class _Steps:
    """Runs a coroutine to its end and counts the CPU of each step between two waits."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], spent: Stage) -> None:
        self._coroutine = coroutine
        self._spent = spent

    def __await__(self) -> Generator[Any, Any, Any]:
        resume: Callable[[], Any] = functools.partial(self._coroutine.send, None)
        while True:
            cpu = time.thread_time()
            try:
                waits_for = resume()
            except StopIteration as end:
                return end.value
            finally:
                self._spent.cpu += time.thread_time() - cpu
            try:
                resume = functools.partial(self._coroutine.send, (yield waits_for))
            except BaseException as error:  # a cancellation is the coroutine's to handle
                resume = functools.partial(self._coroutine.throw, error)
