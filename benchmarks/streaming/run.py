"""One worker, in a process and on a core of its own, from its first fetch to its last commit."""

from __future__ import annotations

import asyncio
import cProfile
import multiprocessing
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from stream_app import lane, metrics
from stream_app.commit import CommitCycle
from stream_app.decode import Decoder
from stream_app.drift import DriftMonitor
from stream_app.log import configure
from stream_app.offsets import Fetch
from stream_app.pipeline import Pipeline
from stream_app.records import Chunk
from stream_app.settings import Settings
from stream_app.store import StateStore
from stream_app.streams import Streams
from stream_app.worker import Worker
from streaming.meter import Meter, Stage, observe
from streaming.null import NullDetector, serve_null_detectors

METERED = (
    (Decoder, "decode", "decode"),
    (Streams, "ensure", "streams"),
    (Streams, "take", "windows"),
    (NullDetector, "score", "score"),
    (lane, "judge", "threshold"),
    (lane.Lane, "_add_evidence", "evidence"),
    (lane.Lane, "_publish_verdicts", "publish"),
    (DriftMonitor, "observe", "drift"),
    (CommitCycle, "prepare", "commit"),
    (StateStore, "load", "load"),
    (StateStore, "save", "save"),
)
OWN = ("decode", "windows", "score", "threshold", "evidence", "publish")


@dataclass(frozen=True, slots=True)
class Run:
    """What a run cost from the first fetch until everything was committed, in seconds.

    `cpu` is the process's, `threads` its threads' by name, `stages` as `Meter` counts, `own` by stage as the worker's
    own metrics tell: on the clock, waiting included. `loaded` and `saved` count states, `round_trips` those to Redis;
    `memory` is what was resident in the end, in bytes.
    """

    records: int
    seconds: float
    cpu: float
    threads: dict[str, float]
    stages: dict[str, Stage]
    own: dict[str, float]
    loaded: int
    saved: int
    round_trips: int
    memory: int


def run_worker(settings: Settings, records: int, core: int, profile: Path | None = None) -> Run:
    """Runs a worker with null detectors until it has committed `records` records.

    With `profile`, its event loop runs under cProfile. Raises RuntimeError when the worker ends by itself.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_work, settings, records, core, profile).result()


def _work(settings: Settings, records: int, core: int, profile: Path | None) -> Run:
    os.sched_setaffinity(0, {core})
    configure(settings.log)
    serve_null_detectors()
    watch = _Watch(records)
    if profile is None:
        return asyncio.run(_follow(settings, watch))
    profiler = cProfile.Profile()
    try:
        return profiler.runcall(asyncio.run, _follow(settings, watch))
    finally:
        profiler.dump_stats(profile)


async def _follow(settings: Settings, watch: _Watch) -> Run:
    worker = Worker(settings)
    watch.when_judged = worker.stop  # the last commit doesn't wait for its turn then
    code = await worker.run()
    if watch.judged < watch.records:
        msg = f"the worker ended with {code} after {watch.judged} of {watch.records} records"
        raise RuntimeError(msg)
    return watch.run()


@dataclass(frozen=True, slots=True)
class _Reading:
    """All clocks at one moment."""

    seconds: float
    cpu: float
    threads: Mapping[str, float]
    own: Mapping[str, float]

    @classmethod
    def now(cls) -> _Reading:
        return cls(time.monotonic(), time.process_time(), _thread_times(), _own_times())


class _Watch:
    """Sees what passes through the parts of the worker of this process."""

    def __init__(self, records: int) -> None:
        self.records = records
        self.judged = 0
        self.when_judged: Any = None
        self._meter = Meter()
        self._loaded = self._saved = self._round_trips = 0
        self._begin: _Reading | None = None
        self._end: _Reading | None = None
        observe(Pipeline, "next_fetch", self._fetching)
        observe(Pipeline, "committed", self._committed)
        observe(lane, "judge", self._judged)
        observe(StateStore, "load", self._loading)
        observe(StateStore, "save", self._saving)
        for owner, name, stage in METERED:
            self._meter.wrap(owner, name, stage)

    def run(self) -> Run:
        """What it cost."""
        begin, end = self._begin, self._end
        assert begin is not None
        assert end is not None
        return Run(
            records=self.judged,
            seconds=end.seconds - begin.seconds,
            cpu=end.cpu - begin.cpu,
            threads={name: spent - begin.threads.get(name, 0.0) for name, spent in end.threads.items()},
            stages=self._meter.stages,
            own={stage: spent - begin.own[stage] for stage, spent in end.own.items()},
            loaded=self._loaded,
            saved=self._saved,
            round_trips=self._round_trips,
            memory=psutil.Process().memory_info().rss,
        )

    def _fetching(self, fetch: Fetch, *_: Any) -> None:
        if self._begin is None and fetch.partitions:
            self._begin = _Reading.now()

    def _judged(self, _result: Any, _detector: str, chunk: Chunk, *_: Any) -> None:
        self.judged += len(chunk)
        if self.judged >= self.records:
            self.when_judged()

    def _committed(self, *_: Any) -> None:
        self._end = _Reading.now()

    def _loading(self, states: Mapping[str, Any], *_: Any) -> None:
        self._loaded += len(states)
        self._round_trips += 1

    def _saving(self, _result: Any, _store: StateStore, changes: Mapping[Any, Mapping[str, Any]], *_: Any) -> None:
        self._saved += sum(len(states) for states in changes.values())
        self._round_trips += bool(changes)


def _thread_times() -> dict[str, float]:
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    times: dict[str, float] = {}
    for thread in psutil.Process().threads():
        name = names.get(thread.id, "others")
        times[name] = times.get(name, 0.0) + thread.user_time + thread.system_time
    return times


def _own_times() -> dict[str, float]:
    read = metrics.REGISTRY.get_sample_value
    times = {stage: read("ganomaly_stage_seconds_sum", {"stage": stage}) or 0.0 for stage in OWN}
    return {**times, "commit": read("ganomaly_commit_seconds_sum") or 0.0}
