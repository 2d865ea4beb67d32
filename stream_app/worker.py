"""The worker process: it brings the parts together, watches over them, and ends them in order.

Faust by itself lives on when an agent raises, when the broker is gone for good, and when its consumer has stopped. So
the watches here end the process with a non-zero exit code within `worker.score_timeout`, `worker.publish_timeout` or
`kafka.unreachable_limit`; a supervisor starts it again, and what was not committed comes again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faust
from aiokafka.admin import AIOKafkaAdminClient

from model.detector import Detector
from model.errors import ModelError, ModelNotFound
from model.registry import Registry
from stream_app import metrics
from stream_app.app import build_app
from stream_app.clock import Clock, SystemClock
from stream_app.dead_letter import Fuse
from stream_app.decode import Decoder, InputSpec
from stream_app.errors import BrokerUnavailable, GanomalyError, ScorerFault, WorkerFault
from stream_app.health import Health
from stream_app.http import HttpServer
from stream_app.judge import Judge
from stream_app.lane import Route, Services
from stream_app.log import get_logger
from stream_app.pipeline import Pipeline
from stream_app.publish import Publisher
from stream_app.records import Kind
from stream_app.scoring import ScoringThread
from stream_app.settings import Settings
from stream_app.store import StateStore
from stream_app.topics import ensure_topics, kafka_client_options

log = get_logger(__name__)

_WATCH_SECONDS = 0.5


class Worker:
    """One worker. `run` lives until `stop` is called or a fault ends it, and returns the exit code."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.http = HttpServer(settings.http, self.health)
        self.models: dict[str, Detector] = {}
        self._clock = clock or SystemClock()
        self._registry = Registry(settings.registry.url)
        self._store = StateStore(settings.redis, self._clock)
        self._ending: asyncio.Future[int] | None = None
        self._stopping = False
        self._app: faust.App | None = None
        self._pipeline: Pipeline | None = None
        self._scoring: ScoringThread | None = None
        self._complaints: set[str] = set()  # said once each
        self.on_ending: Callable[[int], None] = lambda code: None

    async def run(self) -> int:
        """Starts, works until told to end, and ends. Raises DependencyError when it can't start."""
        loop = asyncio.get_running_loop()
        self._ending = loop.create_future()
        await ensure_topics(self.settings)
        await self._store.start()
        self._scoring = ScoringThread(self.settings.batch, self._clock, loop)
        with ThreadPoolExecutor(self.settings.worker.decode_threads, "decode") as decode_threads:
            self._pipeline = self._build_pipeline(self._scoring, decode_threads)
            self._app = build_app(self.settings, self._pipeline, list(self.settings.routes))
            self._scoring.start()
            await self.http.start()
            try:
                await self._open_routes()
                await self._app.start()
                log.info("worker started", http=f"http://{self.settings.http.host}:{self.http.port}")
                return await self._work()
            finally:
                self._scoring.close()
                await self.http.stop()
                await self._store.close()

    def stop(self) -> None:
        """Asks the worker to finish what is in hand and to end with 0."""
        self._end(0)

    def fail(self, error: BaseException) -> None:
        """Ends the worker because of something that can't be blamed on a record."""
        if self._stopping:
            return
        log.error("the worker ends", reason=f"{type(error).__name__}: {error}")
        if not isinstance(error, GanomalyError):
            log.error("this was not foreseen", exc_info=error)
        self._end(error.exit_code if isinstance(error, WorkerFault) else 1)

    def health(self) -> Health:
        """How the worker is; sets the gauges that follow from it."""
        pipeline = self._pipeline
        ledger = pipeline.ledger if pipeline is not None else None
        in_hand = ledger is not None and ledger.in_hand_records > 0
        scoring = tuple(sorted(pipeline.open_topics)) if pipeline is not None else ()
        health = Health(
            assigned=ledger is not None and ledger.generation >= 0,
            scoring=scoring,
            waiting=tuple(sorted(set(self.settings.routes) - set(scoring))),
            stalled_for=self._clock.monotonic() - pipeline.last_progress if pipeline is not None and in_hand else 0.0,
            stalled_after=self.settings.http.stalled_after,
            lag=self._measure_lag(),
            ending=self._stopping,
            models={name: detector.version for name, detector in self.models.items()},
        )
        metrics.READY.set(health.ready)
        return health

    def _measure_lag(self) -> int:
        if self._pipeline is None or self._app is None:
            return 0
        total = 0
        for tp, frontier in self._pipeline.ledger.frontiers().items():
            lag = max(0, (self._app.consumer.highwater(faust.types.TP(*tp)) or 0) - frontier)
            metrics.CONSUMER_LAG.labels(tp.topic, tp.partition).set(lag)
            total += lag
        return total

    def _build_pipeline(self, scoring: ScoringThread, decode_threads: ThreadPoolExecutor) -> Pipeline:
        publisher = Publisher(_FaustProducer(self), self._count_partitions, self._clock)
        services = Services(
            self.settings, self._clock, scoring, publisher, Fuse(self.settings.dead_letter), decode_threads
        )
        return Pipeline(services, self._store, self.fail)

    async def _count_partitions(self, topic: str) -> int:
        found = await self._running_app().producer._ensure_producer().partitions_for(topic)  # noqa: SLF001
        if not found:
            raise BrokerUnavailable(f"topic {topic} doesn't exist and the broker doesn't make it")
        return len(found)

    def _running_app(self) -> faust.App:
        if self._app is None:
            raise RuntimeError("the worker isn't running")
        return self._app

    async def _open_routes(self) -> list[str]:
        """Puts the champions in service of the routes that have one and wait; returns the topics that still wait."""
        assert self._pipeline is not None
        waiting = []
        for topic, name in self.settings.routes.items():
            if topic in self._pipeline.open_topics:
                continue
            try:
                detector = self.models.get(name) or await self._load(name)
            except ModelError as error:
                if not isinstance(error, ModelNotFound) and str(error) not in self._complaints:
                    self._complaints.add(str(error))
                    log.error("a detector can't be put in service; its topic waits", topic=topic, error=str(error))
                waiting.append(topic)
                continue
            self._pipeline.open(self._route(topic, detector))
        return waiting

    async def _load(self, name: str) -> Detector:
        assert self._scoring is not None
        settings = self.settings
        loop = asyncio.get_running_loop()
        detector = await loop.run_in_executor(None, self._load_blocking, name)
        self._scoring.use(name, detector)
        self.models[name] = detector
        metrics.MODEL_INFO.labels(name, detector.version).set(1)
        log.info("detector in service", detector=name, version=detector.version, device=settings.worker.device)
        return detector

    def _load_blocking(self, name: str) -> Detector:
        detector = self._registry.load(name, device=self.settings.worker.device)
        detector.warm_up(self.settings.batch.max_batch)
        return detector

    def _route(self, topic: str, detector: Detector) -> Route:
        spec = InputSpec(Kind(detector.kind), tuple(detector.input_shape))
        decoder = Decoder(spec, self.settings.limits)
        judge = Judge(topic, detector, spec.kind, self.settings, self._store, self._clock)
        return Route(topic, detector.name, decoder, judge)

    async def _work(self) -> int:
        assert self._ending is not None
        watches = [
            asyncio.create_task(self._watched(watch))
            for watch in (self._watch_scorer(), self._watch_faust(), self._watch_broker(), self._watch_registry())
        ]
        try:
            code = await self._ending
        finally:
            for watch in watches:
                watch.cancel()
        await self._shut_down(code)
        return code

    async def _shut_down(self, code: int) -> None:
        assert self._pipeline is not None
        log.info("worker ends", exit_code=code)
        self._pipeline.drain(abort=code != 0)
        await self._running_app().stop()

    def _end(self, code: int) -> None:
        if self._stopping:
            return
        self._stopping = True
        self.on_ending(code)
        if self._ending is not None and not self._ending.done():
            self._ending.set_result(code)

    async def _watched(self, watch: Coroutine[Any, Any, None]) -> None:
        try:
            await watch
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.fail(error)

    async def _watch_scorer(self) -> None:
        assert self._scoring is not None
        limit = self.settings.worker.score_timeout
        while True:
            await asyncio.sleep(min(_WATCH_SECONDS, limit / 4))
            busy = self._scoring.busy_for()
            if busy > limit:
                raise ScorerFault(f"a batch has been with the scorer for {busy:.1f} s, worker.score_timeout={limit:g}")

    async def _watch_faust(self) -> None:
        app = self._running_app()
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if app.crashed:
                raise WorkerFault(f"Faust crashed: {app.crash_reason!r}") from app.crash_reason

    async def _watch_broker(self) -> None:
        limit = self.settings.kafka.unreachable_limit
        last_answer = self._clock.monotonic()
        while True:
            if await self._broker_answers():
                last_answer = self._clock.monotonic()
            silent = self._clock.monotonic() - last_answer
            if silent > limit:
                raise WorkerFault(
                    f"no broker has answered for {silent:.0f} s, kafka.unreachable_limit={limit:g}; "
                    f"tried {self.settings.kafka.bootstrap_servers}"
                )
            await asyncio.sleep(min(1.0, limit / 5))

    async def _broker_answers(self) -> bool:
        admin = AIOKafkaAdminClient(**kafka_client_options(self.settings.kafka))
        limit = min(self.settings.kafka.request_timeout, self.settings.kafka.unreachable_limit / 2)
        try:
            await asyncio.wait_for(_ask(admin), limit)
        except Exception as error:
            log.warning("the broker does not answer", error=repr(error))
            return False
        finally:
            await admin.close()
        return True

    async def _watch_registry(self) -> None:
        while True:
            waiting = await self._open_routes()
            if not waiting:
                return
            await asyncio.sleep(self.settings.registry.poll_interval)


class _FaustProducer:
    """The app's producer, which exists once the app runs."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: list[tuple[str, bytes]] | None,
    ) -> Awaitable[object]:
        """Puts a message in line."""
        producer = self._worker._running_app().producer  # noqa: SLF001
        sent: Awaitable[object] = await producer.send(topic, key, value, partition, timestamp, headers)
        return sent


async def _ask(admin: AIOKafkaAdminClient) -> None:
    await admin.start()
    await admin.describe_cluster()


def run(settings: Settings) -> int:
    """Runs a worker as this process: until SIGTERM or Ctrl-C, or a fault. Returns the exit code.

    When ending takes longer than `worker.shutdown_timeout`, the process is ended where it stands.
    """
    if settings.worker.torch_threads:
        import torch

        torch.set_num_threads(settings.worker.torch_threads)
    return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    worker = Worker(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    worker.on_ending = lambda code: _end_for_good(code, settings.worker.shutdown_timeout)
    return await worker.run()


def _end_for_good(code: int, timeout: float) -> None:
    timer = threading.Timer(timeout, os._exit, (code,))
    timer.daemon = True
    timer.start()
