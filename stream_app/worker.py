"""The worker process: it brings the parts together, watches over them, and ends them in order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, NoReturn

from stream_app import metrics
from stream_app.app import FaustProducer, build_app, log_end
from stream_app.challengers import Challengers
from stream_app.clock import Clock, SystemClock
from stream_app.dead_letter import Fuse
from stream_app.drift import watch_drift
from stream_app.errors import GanomalyError, WorkerFault
from stream_app.health import Health
from stream_app.history import read_before
from stream_app.http import HttpServer
from stream_app.kafka import end_tasks
from stream_app.labels import LabelFollower
from stream_app.lane import Services
from stream_app.log import get_logger
from stream_app.pipeline import Pipeline
from stream_app.publish import Publisher
from stream_app.scoring import ScoringThread
from stream_app.service import DetectorService
from stream_app.settings import Settings
from stream_app.store import StateStore
from stream_app.topics import ensure_topics
from stream_app.updates import follow_updates
from stream_app.watches import watch_broker, watch_faust, watch_publisher, watch_scorer

log = get_logger(__name__)


class Worker:
    """One worker, inside a running event loop. `run` lives until `stop` is called or a fault ends it.

    `on_ending` is called with the exit code when the end begins, for whoever bounds how long it may take.
    """

    def __init__(
        self, settings: Settings, clock: Clock | None = None, on_ending: Callable[[int], None] | None = None
    ) -> None:
        self._settings = settings
        self._clock = clock = clock or SystemClock()
        self._on_ending = on_ending
        self._ending: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._store = StateStore(settings.redis, settings.kafka.group_id, clock)
        self._decode_threads = ThreadPoolExecutor(settings.worker.decode_threads, "decode")
        self._producer = FaustProducer()
        self.scoring = ScoringThread(settings.batch, clock, asyncio.get_running_loop(), self.fail)
        self._publisher = Publisher(self._producer, self._producer.count_partitions, clock)
        fuse = Fuse(settings.dead_letter)
        self._labels = LabelFollower(settings, clock)
        services = Services(
            settings,
            clock,
            self.scoring,
            self._publisher,
            fuse,
            self._decode_threads,
            history=partial(read_before, settings),
            labels=self._labels.book,
        )
        self._pipeline = Pipeline(services, self._store, self.fail)
        self._detectors = DetectorService(settings, self.scoring, self._store, clock, self._pipeline.open)
        self.challengers = Challengers(settings, self.scoring, clock, self._detectors.load_challenger)
        self._app = build_app(settings, self._pipeline, list(settings.routes))
        self._producer.app = self._app
        self.http = HttpServer(settings.http, self.health)

    async def run(self) -> int:
        """Starts, works until told to end, ends, and returns the exit code.

        Raises DependencyError when it can't start.
        """
        settings = self._settings
        async with AsyncExitStack() as stack:
            stack.callback(self._decode_threads.shutdown, wait=False)
            stack.callback(self._detectors.close)
            stack.callback(self.scoring.close)
            await ensure_topics(settings)
            await self._store.start()
            stack.push_async_callback(self._store.close)
            stack.push_async_callback(self.challengers.close)
            await self.http.start()
            stack.push_async_callback(self.http.stop)
            self.scoring.start()
            stack.push_async_callback(self._app.stop)
            labels = asyncio.create_task(self._watched(self._labels.run()))
            stack.push_async_callback(end_tasks, labels)
            # Together: joining the group takes as long as loading the models.
            await asyncio.gather(self._app.start(), self._open_routes())
            log.info("worker started", http=f"http://{settings.http.host}:{self.http.port}")
            return await self._work()

    async def _open_routes(self) -> None:
        await self._labels.catch_up()  # before anything is judged
        await self._detectors.look()

    def stop(self) -> None:
        """Asks the worker to finish what is in hand and to end with 0."""
        self._end(0)

    def fail(self, error: BaseException) -> None:
        """Ends the worker because of something that can't be blamed on a record."""
        log.error("the worker ends", reason=f"{type(error).__name__}: {error}")
        if not isinstance(error, GanomalyError):
            log.error("this was not foreseen", exc_info=error)
        self._end(error.exit_code if isinstance(error, WorkerFault) else 1)

    def health(self) -> Health:
        """How the worker is; refreshes the gauges that follow from it."""
        ledger = self._pipeline.ledger
        health = Health(
            assigned=ledger.generation >= 0,
            scoring=tuple(sorted(self._pipeline.open_topics)),
            waiting=tuple(self._detectors.waiting),
            stalled_for=self._clock.monotonic() - self._pipeline.last_progress if ledger.in_hand_records else 0.0,
            stalled_after=self._settings.http.stalled_after,
            lag=self._measure_lag(),
            ending=self._ending.done(),
            models=self._detectors.versions,
            refused=self._detectors.refused,
            from_cache=self._detectors.from_cache,
            registry_error=self._detectors.registry_error,
        )
        metrics.READY.set(health.ready)
        return health

    def _measure_lag(self) -> int:
        total = 0
        for tp, frontier in self._pipeline.ledger.frontiers().items():
            lag = max(0, log_end(self._app, tp) - frontier)
            metrics.CONSUMER_LAG.labels(tp.topic, tp.partition).set(lag)
            total += lag
        return total

    async def _work(self) -> int:
        settings = self._settings
        watches = (
            watch_scorer(self.scoring, settings.worker.score_timeout),
            watch_publisher(self._publisher, settings.worker.publish_timeout),
            watch_faust(self._app),
            watch_broker(settings.kafka, self._clock),
            self._detectors.watch(),
            watch_drift(settings, self._pipeline.drift, self._clock),
            self._follow_updates(),
        )
        tasks = [asyncio.create_task(self._watched(watch)) for watch in watches]
        try:
            code = await self._ending
        finally:
            await end_tasks(*tasks)
        log.info("worker ends", exit_code=code)
        if code == 0:
            self._pipeline.drain()
        else:
            self._pipeline.abort()
        return code

    async def _follow_updates(self) -> None:
        async for update in follow_updates(self._settings):
            self._detectors.take(update)
            self.challengers.take(update)

    async def _watched(self, watch: Coroutine[Any, Any, None]) -> None:
        try:
            await watch
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.fail(error)

    def _end(self, code: int) -> None:
        if self._ending.done():
            return
        self._ending.set_result(code)
        if self._on_ending is not None:
            self._on_ending(code)


def run(settings: Settings) -> NoReturn:
    """Runs a worker as this process: until SIGTERM or Ctrl-C, or a fault. Ends the process with the exit code.

    When ending takes longer than `worker.shutdown_timeout`, the process is ended where it stands. Raises
    DependencyError when the worker can't start.
    """
    if settings.worker.torch_threads:
        import torch

        torch.set_num_threads(settings.worker.torch_threads)
    code = asyncio.run(_run(settings))
    logging.shutdown()
    # Everything is committed and closed. The interpreter's own way out tears down threads that may still be inside of
    # torch or of the Kafka client, which aborts the process now and then.
    os._exit(code)


async def _run(settings: Settings) -> int:
    worker = Worker(settings, on_ending=lambda code: _end_in_time(code, settings.worker.shutdown_timeout))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    return await worker.run()


def _end_in_time(code: int, timeout: float) -> None:
    timer = threading.Timer(timeout, os._exit, (code or 1,))  # what hangs is not in order
    timer.daemon = True
    timer.start()
