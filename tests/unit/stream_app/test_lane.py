"""One partition's way through the worker: how far reading runs ahead of the scores."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from stream_app.clock import ManualClock
from stream_app.dead_letter import Fuse
from stream_app.decode import Decoder, InputSpec
from stream_app.lane import Lane, Route, Services
from stream_app.offsets import OffsetLedger
from stream_app.records import Kind
from stream_app.scoring import ScoredRows
from stream_app.settings import Settings
from stream_app.streams import Streams
from tests.unit.stream_app.raw import TP, chunk_of, raw

WINDOW, FEATURES, COUNT = 64, 8, 256
MADE = (COUNT - WINDOW + 1) * WINDOW * FEATURES * 4  # bytes of the windows of the first chunk


class Scoring:
    """Answers when it is told to."""

    def __init__(self):
        self.asked: list[asyncio.Future[ScoredRows]] = []

    def submit(self, detector, rows):
        self.asked.append(asyncio.get_running_loop().create_future())
        self.asked[-1].rows = len(rows)
        return self.asked[-1]

    def answer(self, number):
        future = self.asked[number]
        future.set_result(ScoredRows(np.full(future.rows, 0.1, np.float32), {}, SimpleNamespace(version="v1")))


@pytest.fixture
def threads():
    with ThreadPoolExecutor(1) as threads:
        yield threads


@pytest.fixture
async def lane_of(threads):
    """Makes a lane with a bound, a ledger, and a scoring thread that is waited for."""
    lanes = []

    def make(bound):
        settings = Settings(batch={"max_in_hand_bytes": bound})
        spec, ledger, scoring = InputSpec(Kind.SEQUENCE, (WINDOW, FEATURES)), OffsetLedger(), Scoring()
        ledger.assign([TP], generation=1)
        announcer = SimpleNamespace(wants_evidence=lambda _: False, events=lambda *_: ())
        services = Services(settings, ManualClock(), scoring, None, Fuse(settings.dead_letter), threads, None)
        lane = Lane(
            TP,
            Route(TP.topic, "sequences", Decoder(spec, settings.limits), announcer),
            Streams("sequences", TP, spec, settings),
            SimpleNamespace(observe=lambda *_: None),
            services,
            ledger,
            on_done=ledger.finish,
            on_fault=pytest.fail,
        )
        lane.streams.begin(["camera-1"])
        lanes.append(lane)
        return lane, ledger, scoring

    yield make
    for lane in lanes:
        lane.close()
        await lane.closed()


def deliver(lane, ledger, count):
    """Chunks as the transport delivers them."""
    for first in range(0, COUNT * count, COUNT):
        chunk = chunk_of(*(raw(np.full(FEATURES, i, np.float32)) for i in range(COUNT)), first=first)
        ledger.deliver(chunk)
        lane.put(chunk)


async def until(true):
    async with asyncio.timeout(10.0):
        while not true():
            await asyncio.sleep(0)


async def settle(threads):
    """Lets everything happen that can without a score: the decoding thread takes turns with the loop."""
    for _ in range(3):
        for _ in range(10):
            await asyncio.sleep(0)
        await asyncio.get_running_loop().run_in_executor(threads, lambda: None)


async def test_windows_and_tails_that_wait_to_be_scored_are_in_hand(lane_of):
    lane, ledger, scoring = lane_of(64 << 20)
    deliver(lane, ledger, 1)
    fetched = ledger.in_hand_bytes
    await until(lambda: scoring.asked)
    assert ledger.in_hand_bytes > fetched + MADE + WINDOW * FEATURES * 4
    scoring.answer(0)
    await until(lambda: lane.idle)
    assert ledger.in_hand_bytes == 0


async def test_with_too_much_in_hand_reading_waits_for_the_scores_and_goes_on_with_them(lane_of, threads):
    lane, ledger, scoring = lane_of(MADE)
    deliver(lane, ledger, 3)
    for number in range(3):
        await until(lambda number=number: len(scoring.asked) > number)
        await settle(threads)
        assert len(scoring.asked) == number + 1
        scoring.answer(number)
    await until(lambda: lane.idle)
    assert ledger.in_hand_bytes == 0


async def test_with_room_reading_runs_ahead_of_the_scores(lane_of):
    lane, ledger, scoring = lane_of(64 << 20)
    deliver(lane, ledger, 3)
    await until(lambda: len(scoring.asked) == 3)
