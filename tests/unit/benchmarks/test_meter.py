"""CPU is counted while a stage runs, and not while it waits."""

from __future__ import annotations

import asyncio
import time

import pytest

from streaming.meter import Meter, observe


class Work:
    def spin(self, seconds: float) -> str:
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass
        return "spun"

    async def wait_and_spin(self, event: asyncio.Event, seconds: float) -> str:
        await event.wait()
        return self.spin(seconds)

    async def wait_for_ever(self) -> None:
        await asyncio.Event().wait()


@pytest.fixture
def work() -> Work:
    return Work()


def test_a_function_is_counted_and_answers_as_before(work: Work) -> None:
    meter = Meter()
    meter.wrap(work, "spin", "spinning")
    assert work.spin(0.01) == "spun"
    stage = meter.stages["spinning"]
    assert stage.calls == 1
    assert 0.01 <= stage.cpu <= stage.seconds + 0.01


async def test_what_others_do_while_a_coroutine_waits_is_not_its_cost(work: Work) -> None:
    meter = Meter()
    meter.wrap(work, "wait_and_spin", "waiting")
    event = asyncio.Event()
    waiting = asyncio.create_task(work.wait_and_spin(event, 0.001))
    await asyncio.sleep(0)
    work.spin(0.05)
    event.set()
    assert await waiting == "spun"
    stage = meter.stages["waiting"]
    assert 0.001 <= stage.cpu < 0.04
    assert stage.seconds >= 0.05


async def test_a_cancelled_coroutine_is_cancelled(work: Work) -> None:
    meter = Meter()
    meter.wrap(work, "wait_for_ever", "waiting")
    waiting = asyncio.create_task(work.wait_for_ever())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert meter.stages["waiting"].calls == 1


async def test_results_and_arguments_are_seen(work: Work) -> None:
    seen: list[tuple[object, ...]] = []
    event = asyncio.Event()
    event.set()
    for name in ("spin", "wait_and_spin"):
        observe(work, name, lambda *args: seen.append(args))
    assert await work.wait_and_spin(event, 0.0) == "spun"
    assert seen == [("spun", 0.0), ("spun", event, 0.0)]
