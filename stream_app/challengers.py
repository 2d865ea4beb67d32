"""Challengers in shadow: each scores live records beside the champion of its detector, and nothing of it is published.

It is scored in the scoring thread, after the champion's batch is answered for, while nothing else waits and within
`shadow.max_cost`; under load it is what is left out first.
"""

from __future__ import annotations

import asyncio
import math
import os
import secrets
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis

from model.errors import ModelError, RegistryError
from stream_app import metrics
from stream_app.clock import Clock
from stream_app.errors import RedisUnavailable
from stream_app.log import get_logger
from stream_app.redis_client import connect
from stream_app.scoring import Scorer, Scores, ScoringThread
from stream_app.settings import Settings, ShadowSettings
from stream_app.shadow import Comparison, Tally, write_comparison
from stream_app.updates import ModelUpdate, UpdateAction
from stream_app.versions import limit_torch_to_one_thread

log = get_logger(__name__)

MOST_SECONDS = 0.02  # about as long the stream may have to wait for a piece of a challenger's batch
FEWEST_ROWS = 8  # of a piece
BURST = 2.0  # seconds whose allowance can be saved up
_LAST_REPORT = 2.0  # seconds for it

Load = Callable[[str, str], Scorer]


class Challenger:
    """One challenger beside one detector's champion; `watch` is the scoring thread's, the rest the event loop's."""

    def __init__(self, scorer: Scorer, settings: ShadowSettings, threshold: float, clock: Clock) -> None:
        self.scorer = scorer
        self._settings = settings
        self._threshold = threshold
        self._clock = clock
        self._lock = Lock()
        self._tally = Tally()
        self._champion = ""
        self._failed = ""
        self._turn = 0.0  # of the batches: one is taken whenever this reaches 1
        self._allowance = settings.max_cost * BURST
        self._filled_at = clock.monotonic()
        self._row_seconds = 0.0

    def watch(
        self, rows: NDArray[Any], scores: Scores, scorer: Scorer, seconds: float, is_idle: Callable[[], bool]
    ) -> None:
        """Scores rows `[n, …]` that the champion `scorer` has scored in `seconds`, piece by piece, if it may.

        Raises nothing: a challenger that does, or whose scores aren't finite, is given up.
        """
        self._turn += self._settings.share
        if self._failed or scorer.version == self.scorer.version or not (self._turn >= 1.0 or self._has_time()):
            self._turn = min(self._turn, 1.0)
            return
        self._turn = max(0.0, self._turn - 1.0)
        if scorer.version != self._champion:
            self._begin(scorer.version)
        first = 0
        while first < len(rows) and not self._failed:
            if reason := self._why_not(is_idle):
                self._skip(reason, len(rows) - first)
                return
            part = slice(first, min(len(rows), first + self._piece()))
            first = part.stop
            share = (part.stop - part.start) / len(rows)
            self._score(rows[part], np.asarray(scores.score[part]), seconds * share)

    def comparison(self, worker: str, run: str) -> Comparison:
        """As it stands."""
        with self._lock:
            return Comparison(
                worker=worker,
                run=run,
                detector=self.scorer.name,
                challenger=self.scorer.version,
                champion=self._champion,
                threshold=self._threshold,
                failed=self._failed,
                **self._tally.sums(),
            )

    @property
    def failed(self) -> str:
        """Why it was given up; empty while it wasn't."""
        return self._failed

    def _begin(self, champion: str) -> None:
        """What was seen beside another champion says nothing about this one."""
        with self._lock:
            self._champion = champion
            self._tally = Tally()

    def _has_time(self) -> bool:
        """Whether all the time it may take is left: a stream so slow can have each batch compared."""
        return self._fill() >= self._settings.max_cost * BURST

    def _fill(self) -> float:
        """Seconds that it may take now."""
        now = self._clock.monotonic()
        cost = self._settings.max_cost
        self._allowance = min(self._allowance + cost * (now - self._filled_at), cost * BURST)
        self._filled_at = now
        return self._allowance

    def _why_not(self, is_idle: Callable[[], bool]) -> str:
        if self._fill() <= 0.0:
            return "cost"
        return "" if is_idle() else "load"

    def _piece(self) -> int:
        return FEWEST_ROWS if not self._row_seconds else max(FEWEST_ROWS, int(MOST_SECONDS / self._row_seconds))

    def _score(self, rows: NDArray[Any], champion: NDArray[np.float32], champion_seconds: float) -> None:
        name, started = self.scorer.name, self._clock.monotonic()
        try:
            found = np.asarray(self.scorer.score(rows).score, dtype=np.float64)
            fault = _fault_of(found, len(rows))
        except Exception as error:
            fault = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        seconds = self._clock.monotonic() - started
        self._allowance -= seconds
        metrics.SHADOW_SECONDS.labels(name).inc(seconds)
        if fault:
            self._failed = fault
            log.error("a challenger is given up", detector=name, version=self.scorer.version, error=fault)
            return
        self._row_seconds = seconds / len(rows)
        metrics.SHADOW_ROWS.labels(name).inc(len(rows))
        with self._lock:
            self._tally.champion_seconds += champion_seconds
            self._tally.challenger_seconds += seconds
            self._tally.add(champion, found, self._threshold)

    def _skip(self, reason: str, rows: int) -> None:
        metrics.SHADOW_SKIPPED.labels(self.scorer.name, reason).inc(rows)
        with self._lock:
            if reason == "load":
                self._tally.skipped_load += rows
            else:
                self._tally.skipped_cost += rows


def _fault_of(scores: NDArray[np.float64], rows: int) -> str:
    if scores.shape != (rows,):
        return f"{rows} records got scores of shape {list(scores.shape)}"
    wrong = int((~(np.isfinite(scores) & (scores >= 0.0))).sum())
    return f"{wrong} of {rows} scores are not finite and >= 0" if wrong else ""


@dataclass(slots=True)
class _Wanted:
    """A shadow that shall run, and how far it is."""

    version: str
    run: str
    ends_at: float  # monotonic
    challenger: Challenger | None = None
    refused: Comparison | None = None  # instead of a challenger, where it could not be loaded
    stop: asyncio.Event = field(default_factory=asyncio.Event)


class Challengers:
    """Which challengers a worker has in shadow: begins and ends them, and writes what they show to Redis.

    `load` gives a version ready to score, off the event loop; it raises ModelError, or RegistryError where it may be
    had later. A Redis that is away costs the reports until it is back.
    """

    def __init__(self, settings: Settings, scoring: ScoringThread, clock: Clock, load: Load) -> None:
        self._settings = settings
        self._scoring = scoring
        self._clock = clock
        self._load = load
        self._worker = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._wanted: dict[str, _Wanted] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loading = ThreadPoolExecutor(1, "challenger", limit_torch_to_one_thread)
        self._client: Redis | None = None
        self._is_away = False

    @property
    def versions(self) -> dict[str, str]:
        """The version in shadow of each detector that has one at work."""
        return {name: each.version for name, each in self._wanted.items() if each.challenger}

    def begin(self, name: str, version: str, run: str = "", age: float = 0.0) -> None:
        """Puts a version in shadow, in place of the one that was. `age`: seconds since it was asked for.

        One that was asked for longer ago than any shadow lasts is let be: whoever asked is gone.
        """
        now = self._wanted.get(name)
        if now is not None and (now.version, now.run) == (version, run):
            return
        self.end(name)
        remaining = self._settings.shadow.timeout - age
        if name not in self._settings.routes.values() or remaining <= 0.0:
            return
        wanted = self._wanted[name] = _Wanted(version, run, self._clock.monotonic() + remaining)
        task = asyncio.get_running_loop().create_task(self._shadow(name, wanted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def end(self, name: str, version: str | None = None) -> None:
        """Ends a detector's shadow, if it has one (of that version); what it showed is written once more."""
        wanted = self._wanted.get(name)
        if wanted is None or version not in (None, wanted.version):
            return
        del self._wanted[name]
        wanted.stop.set()
        self._scoring.accompany(name, None)

    def take(self, update: ModelUpdate) -> None:
        """Begins or ends what an update says; those of what is in service are for others."""
        if update.action is UpdateAction.SHADOW:
            asked_at = datetime.fromisoformat(update.at).timestamp()
            self.begin(update.detector, update.version, update.at, max(0.0, self._clock.time() - asked_at))
        elif update.action is UpdateAction.UNSHADOW:
            self.end(update.detector, update.version)

    async def close(self) -> None:
        """Ends all, and writes what they showed."""
        for name in list(self._wanted):
            self.end(name)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_LAST_REPORT)
            for task in late:  # one that is still loading
                task.cancel()
        self._loading.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _shadow(self, name: str, wanted: _Wanted) -> None:
        """One shadow, from its loading to its last report."""
        interval = self._settings.shadow.report_interval
        while not wanted.stop.is_set():
            if wanted.challenger is None and wanted.refused is None:
                await self._prepare(name, wanted)
            await self._report(wanted)
            if self._clock.monotonic() >= wanted.ends_at:
                self.end(name, wanted.version)
            try:
                await asyncio.wait_for(wanted.stop.wait(), interval)
            except TimeoutError:
                continue
        await self._report(wanted)

    async def _prepare(self, name: str, wanted: _Wanted) -> None:
        try:
            loop = asyncio.get_running_loop()
            scorer = await loop.run_in_executor(self._loading, self._load, name, wanted.version)
        except RegistryError as error:
            if not _is_final(error):
                log.warning("a challenger can't be loaded yet", detector=name, version=wanted.version, error=str(error))
                return
            self._refuse(name, wanted, error)
        except Exception as error:
            self._refuse(name, wanted, error)
        else:
            if not wanted.stop.is_set():
                wanted.challenger = Challenger(scorer, self._settings.shadow, self._threshold, self._clock)
                self._scoring.accompany(name, wanted.challenger)
                log.info("challenger in shadow", detector=name, version=wanted.version)

    def _refuse(self, name: str, wanted: _Wanted, error: Exception) -> None:
        log.error("a challenger is given up", detector=name, version=wanted.version, error=str(error))
        said = str(error) if isinstance(error, ModelError) else repr(error)
        wanted.refused = Comparison(
            worker=self._worker,
            run=wanted.run,
            detector=name,
            challenger=wanted.version,
            champion="",
            threshold=self._threshold,
            failed=said[:500] or type(error).__name__,
        )

    async def _report(self, wanted: _Wanted) -> None:
        challenger = wanted.challenger
        comparison = challenger.comparison(self._worker, wanted.run) if challenger else wanted.refused
        if comparison is None:
            return
        redis, group = self._settings.redis, self._settings.kafka.group_id
        self._client = self._client or connect(redis)
        try:
            await write_comparison(self._client, redis, group, comparison, self._settings.shadow.keep)
        except RedisUnavailable as error:
            metrics.STORE_ERRORS.inc()
            if not self._is_away:
                log.warning("what a challenger shows can't be written; it is tried again", error=str(error))
            self._is_away = True
        else:
            self._is_away = False

    @property
    def _threshold(self) -> float:
        return -math.log10(self._settings.threshold.target_rate)


def _is_final(error: RegistryError) -> bool:
    """Whether the version itself is wrong, and not the way to it."""
    return type(error) is not RegistryError
