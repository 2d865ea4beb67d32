"""The scoring thread: every row gets its own score, faults reach who waits, nothing waits for another."""

from __future__ import annotations

import asyncio
import threading
import weakref

import numpy as np
import pytest

from stream_app.clock import ManualClock, SystemClock
from stream_app.errors import ScorerFault
from stream_app.scoring import ScoredRows, ScoringThread
from stream_app.settings import BatchSettings


class SumScorer:
    """Scores a row with the sum of its values, and keeps the sizes of its batches."""

    name, version, sha256 = "images", "v1", "0" * 64

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def score(self, inputs):
        self.entered.set()
        self.gate.wait(10)
        self.batches.append(len(inputs))
        total = inputs.reshape(len(inputs), -1).sum(axis=1, dtype=np.float32)
        return ScoredRows(total, {"sum": total}, self)

    def localize(self, inputs):
        return np.asarray(inputs, np.float32)


class BrokenScorer(SumScorer):
    """Raises on rows with a negative value."""

    def score(self, inputs):
        if inputs.min() < 0:
            raise ZeroDivisionError("out of luck")
        return super().score(inputs)


@pytest.fixture
def faults():
    """What the thread itself failed with."""
    return []


@pytest.fixture
async def scoring(faults):
    thread = ScoringThread(BatchSettings(max_batch=4), SystemClock(), asyncio.get_running_loop(), faults.append)
    thread.start()
    yield thread
    thread.close()


async def test_rows_get_their_own_scores_though_they_share_batches(scoring):
    scorer = SumScorer()
    scoring.use("images", scorer)
    scorer.gate.clear()
    futures = [scoring.submit("images", np.full((n, 2), n, np.float32)) for n in (1, 2, 3, 9)]
    scorer.gate.set()
    for n, future in zip((1, 2, 3, 9), futures, strict=True):
        scored = await future
        assert scored.score.tolist() == [2.0 * n] * n
        assert scored.raw["sum"].tolist() == [2.0 * n] * n
    assert max(scorer.batches) <= 4
    assert sum(scorer.batches) == 15


async def test_the_next_batch_gathers_while_one_is_on_the_device(scoring):
    scorer = SumScorer()
    scoring.use("images", scorer)
    scorer.gate.clear()
    first = scoring.submit("images", np.ones((1, 1), np.float32))
    await asyncio.to_thread(scorer.entered.wait, 10)
    rest = [scoring.submit("images", np.ones((1, 1), np.float32)) for _ in range(3)]
    scorer.gate.set()
    await asyncio.gather(first, *rest)
    assert scorer.batches == [1, 3]


async def test_a_batch_that_raises_is_a_fault_for_its_rows_and_the_thread_lives(scoring):
    scoring.use("images", BrokenScorer())
    with pytest.raises(ScorerFault, match=r"detector images raised on a batch of \(1, 1\): ZeroDivisionError"):
        await scoring.submit("images", -np.ones((1, 1), np.float32))
    assert (await scoring.submit("images", np.ones((1, 1), np.float32))).score.tolist() == [1.0]


async def test_several_detectors_share_the_thread(scoring):
    scoring.use("images", SumScorer())
    scoring.use("sequences", SumScorer())
    images = scoring.submit("images", np.ones((2, 3), np.float32))
    sequences = scoring.submit("sequences", np.ones((2, 5), np.float32))
    assert ((await images).score.tolist(), (await sequences).score.tolist()) == ([3, 3], [5, 5])


async def test_localize_answers_with_the_detectors_map(scoring):
    assert (await scoring.localize(SumScorer(), np.eye(2))).tolist() == [[1, 0], [0, 1]]


async def test_how_long_a_batch_hangs_can_be_seen(faults):
    clock = ManualClock()
    thread = ScoringThread(BatchSettings(), clock, asyncio.get_running_loop(), faults.append)
    scorer = SumScorer()
    scorer.gate.clear()
    thread.use("images", scorer)
    assert thread.busy_for() == 0.0
    thread.start()
    future = thread.submit("images", np.ones((1, 1), np.float32))
    await asyncio.to_thread(scorer.entered.wait, 10)
    clock.advance(61.0)
    assert thread.busy_for() == 61.0
    scorer.gate.set()
    await future
    thread.close()


async def test_a_job_is_scored_by_one_version_though_another_comes_into_service(scoring):
    old, new = SumScorer(), SumScorer()
    new.version = "v2"
    scoring.use("images", old)
    old.gate.clear()
    first = scoring.submit("images", np.ones((10, 1), np.float32))
    await asyncio.to_thread(old.entered.wait, 10)
    scoring.use("images", new)
    second = scoring.submit("images", np.ones((3, 1), np.float32))
    old.gate.set()
    assert ((await first).scorer.version, (await second).scorer.version) == ("v1", "v2")
    assert (old.batches, new.batches) == ([4, 4, 2], [3])


async def test_the_version_before_is_let_go_of_though_nothing_comes_after_it(scoring):
    old = SumScorer()
    scoring.use("images", old)
    await scoring.submit("images", np.ones((3, 1), np.float32))
    gone = weakref.ref(old)
    del old
    scoring.use("images", SumScorer())
    async with asyncio.timeout(10):
        while gone() is not None:
            await asyncio.sleep(0.001)


async def test_of_versions_that_come_before_a_half_scored_job_is_done_the_last_one_counts(scoring):
    versions = [SumScorer() for _ in range(4)]
    for number, each in enumerate(versions):
        each.version = f"v{number}"
    scoring.use("images", versions[0])
    versions[0].gate.clear()
    first = scoring.submit("images", np.ones((10, 1), np.float32))
    await asyncio.to_thread(versions[0].entered.wait, 10)
    for each in versions[1:]:
        scoring.use("images", each)
    versions[0].gate.set()
    assert (await first).scorer.version == "v0"
    assert (await scoring.submit("images", np.ones((1, 1), np.float32))).scorer.version == "v3"
    assert [each.batches for each in versions] == [[4, 4, 2], [], [], [1]]


async def test_the_end_of_the_thread_itself_is_a_fault(scoring, faults, monkeypatch):
    def out_of_memory(pieces):
        raise MemoryError

    monkeypatch.setattr("stream_app.batching._join", out_of_memory)
    scoring.use("images", SumScorer())
    scoring.submit("images", np.ones((1, 1), np.float32))
    async with asyncio.timeout(10):
        while not faults:
            await asyncio.sleep(0)
    assert "the scoring thread ended: MemoryError()" in str(faults[0])
