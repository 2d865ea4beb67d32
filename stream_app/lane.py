"""One partition's way through the worker: decode → windows → score → threshold → publish, chunk after chunk.

Reading runs ahead of judging: while the scores of one chunk are awaited, the next are decoded and put in line, so
that the device never waits. Judging and publishing are strictly in the order of the offsets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from stream_app import metrics
from stream_app.clock import Clock
from stream_app.dead_letter import Fuse, dead_letter_headers, without_value
from stream_app.decode import Decoder
from stream_app.judge import Judge, Verdict
from stream_app.publish import Publisher
from stream_app.records import Chunk, Decoded, Kind, Rows, TopicPartition
from stream_app.scoring import ScoredRows, ScoringThread
from stream_app.settings import Settings
from stream_app.streams import FloatArray, Streams
from stream_app.windows import Windows


@dataclass(slots=True)
class Route:
    """A topic, the detector that scores it, and what it takes."""

    topic: str
    detector: str
    decoder: Decoder
    judge: Judge


@dataclass(slots=True)
class _InHand:
    chunk: Chunk
    decoded: Decoded
    rows: Rows
    tails: dict[str, FloatArray]
    scores: asyncio.Future[ScoredRows] | None
    arrived: float


@dataclass(frozen=True, slots=True)
class Services:
    """What all lanes share."""

    settings: Settings
    clock: Clock
    scoring: ScoringThread
    publisher: Publisher
    fuse: Fuse
    decode_threads: Executor


class Lane:
    """The chunks of one partition, in order, during one assignment.

    `on_done` is called with each chunk whose records are all scored or dead-lettered and handed to the producer,
    `on_fault` with whatever can't be blamed on a record.
    """

    def __init__(
        self,
        tp: TopicPartition,
        route: Route,
        streams: Streams,
        services: Services,
        on_done: Callable[[Chunk], None],
        on_fault: Callable[[BaseException], None],
    ) -> None:
        self.detector = route.detector
        self.streams = streams
        self.between_chunks = asyncio.Lock()  # whoever holds it sees streams that agree with the chunks done
        self._tp = tp
        self._route = route
        self._services = services
        self._on_done = on_done
        self._on_fault = on_fault
        spec = route.decoder.spec
        sequence = services.settings.sequence
        self._windows = (
            Windows(spec.shape, sequence.stride, sequence.max_streams) if spec.kind is Kind.SEQUENCE else None
        )
        self._waiting: asyncio.Queue[Chunk] = asyncio.Queue()
        self._in_hand: asyncio.Queue[_InHand] = asyncio.Queue()
        self._unfinished = 0
        self._closing = False
        self._settling: asyncio.Future[None] | None = None
        self._tasks = [asyncio.create_task(self._guard(self._read)), asyncio.create_task(self._guard(self._finish))]

    @property
    def idle(self) -> bool:
        """Whether nothing is in hand."""
        return self._unfinished == 0

    def put(self, chunk: Chunk) -> None:
        """Takes a chunk. How much may be in hand is the pipeline's to bound."""
        if not self._closing:
            self._unfinished += 1
            self._waiting.put_nowait(chunk)

    def abandon_waiting(self) -> None:
        """Begins nothing new: chunks that are not decoded yet are left for whoever has the partition next."""
        self._closing = True
        while not self._waiting.empty():
            self._waiting.get_nowait()
            self._unfinished -= 1

    def close(self) -> None:
        """Ends at once. A chunk is either published and done by now, or comes again."""
        self._closing = True
        for task in self._tasks:
            task.cancel()

    async def settled(self) -> None:
        """Returns when no chunk is half published."""
        if self._settling is not None:
            await self._settling

    async def _guard(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await run()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._on_fault(error)

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            chunk = await self._waiting.get()
            started = self._services.clock.monotonic()
            metrics.RECORDS_CONSUMED.labels(self._tp.topic).inc(len(chunk))
            decoded = await loop.run_in_executor(self._services.decode_threads, self._route.decoder.decode, chunk)
            self._observe("decode", started)
            await self._load_streams(decoded)
            rows, tails = self._make_windows(chunk, decoded)
            scores = self._services.scoring.submit(self._route.detector, rows.data) if len(rows.index) else None
            self._in_hand.put_nowait(_InHand(chunk, decoded, rows, tails, scores, started))

    async def _load_streams(self, decoded: Decoded) -> None:
        restored = await self.streams.ensure(decoded.streams)
        if self._windows is None:
            return
        for name in restored:
            stream = self.streams[name]
            if stream.tail is not None and name not in self._windows:
                self._windows.restore(name, stream.tail, stream.offset)

    def _make_windows(self, chunk: Chunk, decoded: Decoded) -> tuple[Rows, dict[str, FloatArray]]:
        if self._windows is None or not len(decoded.observations.index):
            return decoded.ready, {}
        offsets = [record.offset for record in chunk.records]
        due, tails = self._windows.add(decoded.observations, decoded.streams, offsets)
        if not len(decoded.ready.index):
            return due, tails
        index = np.concatenate([decoded.ready.index, due.index])
        order = np.argsort(index, kind="stable")
        return Rows(index[order], np.concatenate([decoded.ready.data, due.data])[order]), tails

    async def _finish(self) -> None:
        while True:
            item = await self._in_hand.get()
            scored = await item.scores if item.scores is not None else None
            self._observe("score", item.arrived)
            self._check_fuse(item)
            # Shielded: what a chunk taught its streams, its events, and the note that it is done go together or not at
            # all.
            self._settling = asyncio.ensure_future(self._settle(item, scored))
            await asyncio.shield(self._settling)

    async def _settle(self, item: _InHand, scored: ScoredRows | None) -> None:
        async with self.between_chunks:
            started = self._services.clock.monotonic()
            verdicts = self._judge(item, scored)
            self._observe("threshold", started)
            await self._add_evidence(verdicts, item)
            started = self._services.clock.monotonic()
            await self._publish(item, verdicts)
            self._observe("publish", started)

    def _check_fuse(self, item: _InHand) -> None:
        rejected = {each.index: each.error for each in item.decoded.rejected}
        reason = str(next(iter(rejected.values()), ""))
        self._services.fuse.check(self._tp, [index in rejected for index in range(len(item.chunk))], reason)

    def _judge(self, item: _InHand, scored: ScoredRows | None) -> list[Verdict]:
        for name, tail in item.tails.items():
            self.streams[name].tail = tail
        verdicts = self._route.judge.judge(item.chunk, item.decoded, item.rows, scored, self.streams)
        for index in item.decoded.observations.index.tolist():
            name, offset = item.decoded.streams[index], item.chunk.records[index].offset
            if offset > self.streams[name].offset:
                self.streams.touch(name, offset)
        return verdicts

    async def _add_evidence(self, verdicts: list[Verdict], item: _InHand) -> None:
        wanted = [verdict for verdict in verdicts if self._route.judge.wants_evidence(verdict)]
        if wanted:
            rows = item.rows.data[[verdict.row for verdict in wanted]]
            maps = await self._services.scoring.localize(self._route.detector, rows)
            for verdict, heat_map in zip(wanted, maps, strict=True):
                verdict.heat_map = heat_map

    async def _publish(self, item: _InHand, verdicts: list[Verdict]) -> None:
        chunk, settings, publisher = item.chunk, self._services.settings, self._services.publisher
        for rejected in item.decoded.rejected:
            record = chunk.records[rejected.index]
            headers = dead_letter_headers(record, rejected.stage, rejected.error)
            metrics.DEAD_LETTERS.labels(self._tp.topic, type(rejected.error).__name__).inc()
            await publisher.send(
                settings.topics.dead_letter,
                self._tp.partition,
                record.key,
                record.value,
                headers,
                smaller=without_value(record, headers),
            )
        for verdict in verdicts:
            key = verdict.stream.encode()
            for topic, value in self._route.judge.events(verdict):
                await publisher.send(topic, self._tp.partition, key, value)
        self._count(item, verdicts)
        self._unfinished -= 1
        self._on_done(chunk)

    def _count(self, item: _InHand, verdicts: list[Verdict]) -> None:
        topic = self._tp.topic
        metrics.RECORDS_SCORED.labels(topic).inc(len(verdicts))
        metrics.ANOMALIES.labels(topic).inc(sum(verdict.is_anomaly for verdict in verdicts))
        metrics.RECORDS_BUFFERED.labels(topic).inc(len(item.chunk) - len(verdicts) - len(item.decoded.rejected))
        now = self._services.clock.time()
        delay = metrics.DELAY_SECONDS.labels(topic)
        for verdict in verdicts:
            delay.observe(max(0.0, now - item.chunk.records[verdict.index].timestamp / 1000.0))

    def _observe(self, stage: str, started: float) -> None:
        metrics.STAGE_SECONDS.labels(stage).observe(self._services.clock.monotonic() - started)
