"""A challenger scores beside the champion: a share, within its cost, first to give way, never the stream's fault."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stream_app.challengers import BURST, FEWEST_ROWS, Challenger, Challengers
from stream_app.clock import ManualClock, SystemClock
from stream_app.errors import RegistryError
from stream_app.events import rfc3339
from stream_app.scoring import ScoredRows, ScoringThread
from stream_app.settings import BatchSettings, Settings, ShadowSettings
from stream_app.updates import ModelUpdate, UpdateAction

ALWAYS = ShadowSettings(share=1.0, max_cost=1.0)


class Version:
    """Scores a row with its mean, times a factor; takes its time on the clock it is given."""

    name, sha256 = "images", "0" * 64

    def __init__(self, version: str, factor: float = 1.0, clock: ManualClock | None = None, row_seconds: float = 0.0):
        self.version, self.factor, self.clock, self.row_seconds = version, factor, clock, row_seconds
        self.sizes: list[int] = []

    def score(self, inputs: Any) -> ScoredRows:
        self.sizes.append(len(inputs))
        if self.clock is not None:
            self.clock.advance(self.row_seconds * len(inputs))
        found = (self.factor * inputs.reshape(len(inputs), -1).mean(axis=1)).astype(np.float32)
        return ScoredRows(found, {"mean": found}, self)

    def localize(self, inputs: Any) -> Any:
        return np.asarray(inputs, np.float32)


ROWS = np.linspace(0.0, 3.0, 60, dtype=np.float32)[:, None]


def watched(
    challenger: Challenger, champion: Version, *, idle: Callable[[], bool] = lambda: True, rows: Any = ROWS
) -> None:
    challenger.watch(rows, champion.score(rows), champion, 0.006, idle)


def test_both_score_the_same_rows_and_are_counted_alike() -> None:
    challenger = Challenger(Version("b", 1.5), ALWAYS, 2.0, ManualClock())
    watched(challenger, Version("a"))
    seen = challenger.comparison("w", "r")
    assert (seen.champion, seen.challenger, seen.rows) == ("a", "b", 60)
    assert (seen.champion_alerts, seen.challenger_alerts, seen.both_alert) == (20, 33, 20)
    assert seen.champion_seconds == pytest.approx(0.006)
    assert sum(count for *_, count in seen.grid) == 60


@pytest.mark.parametrize(("share", "batches"), [(0.25, 10), (0.1, 4), (1.0, 40), (0.3, 12)])
def test_a_share_of_the_batches_is_taken(share: float, batches: int) -> None:
    clock = ManualClock()
    version = Version("b", clock=clock, row_seconds=1e-4)
    challenger = Challenger(version, ShadowSettings(share=share, max_cost=0.5), 2.0, clock)
    for _ in range(40):
        watched(challenger, Version("a"))
    assert challenger.comparison("w", "r").rows == pytest.approx(60 * batches, abs=60)


def test_every_record_of_a_stream_is_taken_that_is_so_slow_that_it_costs_next_to_nothing() -> None:
    clock = ManualClock()
    challenger = Challenger(Version("b", clock=clock, row_seconds=0.01), ShadowSettings(), 2.0, clock)
    for _ in range(100):
        clock.advance(3.6)
        watched(challenger, Version("a"), rows=ROWS[:1])
    assert challenger.comparison("w", "r").rows == 100


def test_what_waits_goes_first_and_what_is_left_out_is_counted() -> None:
    """Others come to wait after the second piece."""
    version = Version("b")
    answers = iter([True, True, False])
    challenger = Challenger(version, ALWAYS, 2.0, ManualClock())
    challenger._row_seconds = 0.001  # 20 rows in 20 ms
    version.clock, version.row_seconds = challenger._clock, 0.001
    watched(challenger, Version("a"), idle=lambda: next(answers))
    seen = challenger.comparison("w", "r")
    assert version.sizes == [20, 20]
    assert (seen.rows, seen.skipped_load, seen.skipped_cost) == (40, 20, 0)
    assert seen.challenger_seconds == pytest.approx(0.04)
    assert seen.champion_seconds == pytest.approx(0.004)


def test_it_takes_no_more_of_the_time_than_it_may() -> None:
    clock = ManualClock()
    version = Version("b", clock=clock, row_seconds=0.01)
    challenger = Challenger(version, ShadowSettings(share=1.0, max_cost=0.1), 2.0, clock)
    for _ in range(300):
        watched(challenger, Version("a"))
        clock.advance(0.2)
    seen, total = challenger.comparison("w", "r"), clock.monotonic()
    slack = 0.1 * BURST + FEWEST_ROWS * 0.01
    assert 0.09 * total < seen.challenger_seconds < 0.1 * total + slack
    assert seen.skipped_cost == 300 * 60 - seen.rows > 0
    assert seen.skipped_load == 0


class Raises(Version):
    def score(self, inputs: Any) -> ScoredRows:
        raise ZeroDivisionError("out of luck")


class GivesNan(Version):
    def score(self, inputs: Any) -> ScoredRows:
        scored = super().score(inputs)
        scored.score[0] = np.nan
        return scored


class GivesTooFew(Version):
    def score(self, inputs: Any) -> ScoredRows:
        return super().score(inputs[1:])


@pytest.mark.parametrize(
    ("version", "says"),
    [
        (Raises("b"), "ZeroDivisionError: out of luck"),
        (GivesNan("b"), "1 of 8 scores are not finite"),
        (GivesTooFew("b"), r"8 records got scores of shape \[7\]"),
    ],
)
def test_a_challenger_with_a_fault_is_given_up_and_says_why(version: Version, says: str) -> None:
    challenger = Challenger(version, ALWAYS, 2.0, ManualClock())
    watched(challenger, Version("a"))
    asked = len(version.sizes)
    watched(challenger, Version("a"))
    assert len(version.sizes) == asked
    seen = challenger.comparison("w", "r")
    assert seen.rows == 0
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(seen.failed)


def test_beside_another_champion_it_begins_anew_and_beside_itself_it_is_not_asked() -> None:
    challenger = Challenger(Version("b"), ALWAYS, 2.0, ManualClock())
    for champion, rows in (("a", 60), ("c", 60), ("c", 120), ("b", 120)):
        watched(challenger, Version(champion))
        assert challenger.comparison("w", "r").rows == rows
    assert challenger.comparison("w", "r").champion == "c"


async def test_the_scoring_thread_answers_first_and_leaves_the_challenger_out_under_load() -> None:
    thread = ScoringThread(BatchSettings(max_batch=10), SystemClock(), asyncio.get_running_loop(), pytest.fail)
    champion, challenger = Version("a"), Challenger(Version("b"), ALWAYS, 2.0, SystemClock())
    thread.use("images", champion)
    thread.accompany("images", challenger)
    futures = [thread.submit("images", ROWS[:10]) for _ in range(5)]
    thread.start()
    await asyncio.gather(*futures)
    await _until(lambda: challenger.comparison("w", "r").rows == 10)  # of the last, when nothing waits any more
    seen = challenger.comparison("w", "r")
    assert seen.skipped_load == 40
    assert champion.sizes == [10] * 5
    thread.accompany("images", None)
    await thread.submit("images", ROWS[:10])
    thread.close()
    assert challenger.comparison("w", "r").rows == 10


async def test_the_place_of_an_anomaly_is_found_before_the_challenger_s_turn_which_comes_all_the_same() -> None:
    """As in a stream that has drifted, each of whose batches has an alert."""
    loop = asyncio.get_running_loop()
    thread = ScoringThread(BatchSettings(), SystemClock(), loop, pytest.fail)
    order: list[str] = []
    places = [loop.create_future() for _ in range(3)]

    class Alerts(Version):
        def score(self, inputs: Any) -> ScoredRows:
            place = places[len(self.sizes)]
            loop.call_soon_threadsafe(place.set_result, thread.localize(self, inputs[:1]))
            return super().score(inputs)

        def localize(self, inputs: Any) -> Any:
            order.append("place")
            return super().localize(inputs)

    class Second(Version):
        def score(self, inputs: Any) -> ScoredRows:
            order.append("challenger")
            return super().score(inputs)

    challenger = Challenger(Second("b"), ALWAYS, 2.0, SystemClock())
    thread.use("images", Alerts("a"))
    thread.accompany("images", challenger)
    thread.start()
    for number in range(3):
        await thread.submit("images", ROWS[:8])
        await (await places[number])
        await _until(lambda number=number: challenger.comparison("w", "r").rows == 8 * (number + 1))
    thread.close()
    assert order == ["place", "challenger"] * 3
    assert challenger.comparison("w", "r").skipped_load == 0


async def test_a_challenger_that_raises_costs_the_champion_nothing() -> None:
    thread = ScoringThread(BatchSettings(), SystemClock(), asyncio.get_running_loop(), pytest.fail)
    thread.use("images", Version("a"))
    thread.accompany("images", Challenger(Raises("b"), ALWAYS, 2.0, SystemClock()))
    thread.start()
    for _ in range(3):
        scored = await thread.submit("images", ROWS)
        assert scored.scorer.version == "a"
        assert np.array_equal(scored.score, ROWS[:, 0])
    thread.close()


async def _until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not met():
            await asyncio.sleep(0.01)


def update(action: UpdateAction, version: str, at: float, detector: str = "images") -> ModelUpdate:
    return ModelUpdate(detector=detector, version=version, sha256="0" * 64, action=action, at=rfc3339(at))


class Loading:
    """A registry of versions; "away" is one that can't be reached the first time, "bad" one that can't be loaded."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, name: str, version: str) -> Version:
        self.asked.append(version)
        if version == "bad":
            raise ValueError("no such thing")
        if version == "away" and self.asked.count("away") == 1:
            raise RegistryError("it can't be reached")
        return Version(version)


@pytest.fixture
async def shadows():
    """Challengers of a worker whose Redis is away, with what they load."""
    away = {"url": "redis://127.0.0.1:1", "timeout": 0.2}
    settings = Settings(redis=away, shadow={"report_interval": 0.02, "timeout": 100.0})
    loading = Loading()
    scoring = ScoringThread(BatchSettings(), SystemClock(), asyncio.get_running_loop(), pytest.fail)
    challengers = Challengers(settings, scoring, SystemClock(), loading)
    yield challengers, loading
    await challengers.close()


async def test_a_history_of_shadows_loads_only_the_last_that_has_not_ended(shadows: Any) -> None:
    challengers, loading = shadows
    now = SystemClock().time()
    challengers.take(update(UpdateAction.SHADOW, "old", now - 101.0))
    for version in ("one", "two"):
        challengers.take(update(UpdateAction.SHADOW, version, now))
        challengers.take(update(UpdateAction.UNSHADOW, version, now))
    challengers.take(update(UpdateAction.PROMOTE, "two", now))
    challengers.take(update(UpdateAction.SHADOW, "elsewhere", now, detector="of another worker"))
    challengers.take(update(UpdateAction.SHADOW, "three", now))
    await _until(lambda: challengers.versions == {"images": "three"})
    assert loading.asked == ["three"]
    challengers.take(update(UpdateAction.UNSHADOW, "two", now))  # of one that is over
    assert challengers.versions == {"images": "three"}
    challengers.take(update(UpdateAction.UNSHADOW, "three", now))
    assert challengers.versions == {}


async def test_a_registry_that_is_away_is_asked_again_and_a_bad_version_is_not(shadows: Any) -> None:
    challengers, loading = shadows
    challengers.begin("images", "away")
    await _until(lambda: challengers.versions == {"images": "away"})
    challengers.begin("images", "bad")
    await _until(lambda: "bad" in loading.asked)
    await asyncio.sleep(0.1)
    assert loading.asked == ["away", "away", "bad"]
    assert challengers.versions == {}


async def test_a_shadow_that_nobody_ends_ends_by_itself(shadows: Any) -> None:
    challengers, _ = shadows
    challengers.begin("images", "one", age=99.7)
    await _until(lambda: challengers.versions == {"images": "one"})
    await _until(lambda: challengers.versions == {})
