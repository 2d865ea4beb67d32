"""One partition's way through the worker: decode → windows → score → threshold → publish, chunk after chunk.

Reading runs ahead of judging: while the scores of one chunk are awaited, the next are decoded and put in line, so
that the device never waits. Judging and publishing are strictly in the order of the offsets.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol

from stream_app import metrics
from stream_app.announce import Announcer
from stream_app.clock import Clock
from stream_app.dead_letter import Fuse, dead_letter_headers, without_value
from stream_app.decode import Decoder
from stream_app.drift import DriftMonitor
from stream_app.errors import BrokerUnavailable, EventTimeError
from stream_app.judge import Verdicts, judge
from stream_app.label_book import LabelBook
from stream_app.log import get_logger
from stream_app.offsets import OffsetLedger
from stream_app.publish import Publisher
from stream_app.records import Chunk, Decoded, TopicPartition
from stream_app.scoring import ScoredRows, ScoringThread
from stream_app.settings import Settings
from stream_app.streams import Streams, Taken

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Route:
    """A topic, the detector that scores it, and how its records are read and told of."""

    topic: str
    detector: str
    decoder: Decoder
    announcer: Announcer


class History(Protocol):
    """The records of a partition before an offset."""

    def __call__(self, tp: TopicPartition, end: int, count: int) -> AsyncIterator[Chunk]:
        """Those of the last `count` offsets below `end` that the broker still has."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """What all lanes share."""

    settings: Settings
    clock: Clock
    scoring: ScoringThread
    publisher: Publisher
    fuse: Fuse
    decode_threads: Executor
    history: History
    labels: LabelBook | None = None


@dataclass(frozen=True, slots=True)
class _InHand:
    chunk: Chunk
    decoded: Decoded
    taken: Taken
    scores: asyncio.Future[ScoredRows] | None
    arrived: float


class Lane:
    """The chunks of one partition, in order, during one assignment.

    `on_done` is called with each chunk whose records are all scored or dead-lettered and handed to the producer,
    `on_fault` with whatever can't be blamed on a record. `ledger` is told what is made of a chunk; with too much in
    hand in all, no chunk is read before the one that is ahead of it in the lane is done.
    """

    def __init__(
        self,
        tp: TopicPartition,
        route: Route,
        streams: Streams,
        drift: DriftMonitor,
        services: Services,
        ledger: OffsetLedger,
        on_done: Callable[[Chunk], None],
        on_fault: Callable[[BaseException], None],
    ) -> None:
        self.detector = route.detector
        self.streams = streams
        self.drift = drift
        self.between_chunks = asyncio.Lock()  # whoever holds it sees streams that agree with the chunks done …
        self.sound = True  # … unless this is false: a fault came after a chunk taught its streams, before it was told
        self._tp = tp
        self._route = route
        self._services = services
        self._ledger = ledger
        self._on_done = on_done
        self._on_fault = on_fault
        self._waiting: asyncio.Queue[Chunk] = asyncio.Queue()
        self._in_hand: asyncio.Queue[_InHand] = asyncio.Queue()
        self._unfinished = 0
        self._read = 0  # of the unfinished
        self._one_finished = asyncio.Event()
        self._closing = False
        self._settling: asyncio.Future[None] | None = None
        self._tasks = [asyncio.create_task(self._guard(step)) for step in (self._read_next, self._finish_next)]

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
        """Takes up nothing more. A chunk that is being published goes out whole; `closed` waits for it."""
        self._closing = True
        for task in self._tasks:
            task.cancel()

    async def closed(self) -> None:
        """Returns when nothing of a closed lane moves any more.

        A chunk is published and done by now, or comes again.
        """
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._settling is not None:
            await asyncio.gather(self._settling, return_exceptions=True)
        self._unfinished = 0

    async def _guard(self, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            while True:
                await step()  # one at a time: while it waits, a lane holds on to no version that has scored before
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._on_fault(error)

    async def _read_next(self) -> None:
        loop, services = asyncio.get_running_loop(), self._services
        await self._until_there_is_room()
        chunk = await self._waiting.get()
        arrived = services.clock.monotonic()
        metrics.RECORDS_CONSUMED.labels(self._tp.topic).inc(len(chunk))
        decoded = await loop.run_in_executor(services.decode_threads, self._route.decoder.decode, chunk)
        decode_done = self._observe("decode", arrived)
        await self.streams.ensure(decoded)
        await self._recall(chunk)
        taken = self.streams.take(chunk, decoded)
        decoded.rejected.extend(taken.rejected)
        self._observe("windows", decode_done)
        rows = taken.rows
        scores = services.scoring.submit(self._route.detector, rows.data) if len(rows.index) else None
        self._ledger.grow(chunk, taken.size + decoded.observations.data.nbytes)
        self._read += 1
        self._in_hand.put_nowait(_InHand(chunk, decoded, taken, scores, arrived))

    async def _until_there_is_room(self) -> None:
        while self._read and self._ledger.in_hand_bytes >= self._services.settings.batch.max_in_hand_bytes:
            self._one_finished.clear()
            await self._one_finished.wait()

    async def _recall(self, first: Chunk) -> None:
        """Where windows are lost: reads again what came before a chunk whose streams are made sure of."""
        offsets = await self.streams.to_read_again(first.records[0].offset)
        if offsets is None:
            return
        loop, services, read, whole = asyncio.get_running_loop(), self._services, 0, True
        try:
            async for chunk in services.history(self._tp, offsets.stop, len(offsets)):
                decoded = await loop.run_in_executor(services.decode_threads, self._route.decoder.decode, chunk)
                await self.streams.recall(chunk, decoded)
                read += len(chunk)
        except BrokerUnavailable as error:
            whole = False
            log.warning("the rest of the windows can't be read again and begins anew", error=str(error))
        log.info(
            "windows were read again",
            topic=self._tp.topic,
            partition=self._tp.partition,
            records=read,
            streams=self.streams.end_recall(whole),
        )

    async def _finish_next(self) -> None:
        item = await self._in_hand.get()
        scored = await item.scores if item.scores is not None else None
        self._observe("score", item.arrived)
        self._check_fuse(item)
        # Shielded: what a chunk taught its streams, its events, and the note that it is done go together or not at all.
        self._settling = asyncio.ensure_future(self._settle(item, scored))
        await asyncio.shield(self._settling)

    def _check_fuse(self, item: _InHand) -> None:
        rejected = {each.index: each.error for each in item.decoded.rejected}
        # A wrong clock, or what is sent again, says nothing of the worker or the topic, however long it goes on.
        mistimed = {index for index, error in rejected.items() if isinstance(error, EventTimeError)}
        reason = str(next((error for index, error in rejected.items() if index not in mistimed), ""))
        outcome = [index in rejected for index in range(len(item.chunk)) if index not in mistimed]
        self._services.fuse.check(self._tp, outcome, reason)

    async def _settle(self, item: _InHand, scored: ScoredRows | None) -> None:
        async with self.between_chunks:
            self.sound = False
            started = self._services.clock.monotonic()
            verdicts = judge(self.detector, item.chunk, item.decoded, item.taken, scored, self.streams)
            judged = self._observe("threshold", started)
            await self._add_evidence(verdicts, item)
            explained = self._observe("evidence", judged)
            await self._publish_dead_letters(item)
            await self._publish_verdicts(verdicts)
            self._observe("publish", explained)
            if scored is not None:
                names = [verdict.stream for verdict in verdicts.each]
                self.drift.observe(scored.scorer, names, scored.score, item.taken.rows.data)
            self._count(item, verdicts)
            self._unfinished -= 1
            self._read -= 1
            self._on_done(item.chunk)
            self._one_finished.set()
            self.sound = True

    async def _add_evidence(self, verdicts: Verdicts, item: _InHand) -> None:
        wanted = [verdict for verdict in verdicts.each if self._route.announcer.wants_evidence(verdict)]
        if wanted and verdicts.scorer is not None:
            rows = item.taken.rows.data[[verdict.row for verdict in wanted]]
            maps = await self._services.scoring.localize(verdicts.scorer, rows)
            for verdict, heat_map in zip(wanted, maps, strict=True):
                verdict.heat_map = heat_map

    async def _publish_dead_letters(self, item: _InHand) -> None:
        for rejected in item.decoded.rejected:
            record = item.chunk.records[rejected.index]
            headers = dead_letter_headers(record, rejected.stage, rejected.error)
            metrics.DEAD_LETTERS.labels(self._tp.topic, type(rejected.error).__name__).inc()
            await self._services.publisher.send(
                self._services.settings.topics.dead_letter,
                self._tp.partition,
                record.key,
                record.value,
                headers,
                smaller=without_value(record, headers),
            )

    async def _publish_verdicts(self, verdicts: Verdicts) -> None:
        if verdicts.scorer is None:
            return
        for verdict in verdicts.each:
            for topic, value in self._route.announcer.events(self._tp, verdict, verdicts.scorer):
                await self._services.publisher.send(topic, self._tp.partition, verdict.stream.encode(), value)

    def _count(self, item: _InHand, verdicts: Verdicts) -> None:
        topic, records = self._tp.topic, item.chunk.records
        scored = len(verdicts.each)
        metrics.RECORDS_SCORED.labels(topic).inc(scored)
        metrics.ANOMALIES.labels(topic).inc(sum(verdict.is_anomaly for verdict in verdicts.each))
        rest = len(records) - scored - len(item.decoded.rejected)
        metrics.RECORDS_BUFFERED.labels(topic).inc(rest - item.taken.repeated)
        now = self._services.clock.time()
        delay = metrics.DELAY_SECONDS.labels(topic)
        for verdict in verdicts.each:
            delay.observe(max(0.0, now - records[verdict.index].timestamp / 1000.0))

    def _observe(self, stage: str, started: float) -> float:
        now = self._services.clock.monotonic()
        metrics.STAGE_SECONDS.labels(stage).observe(now - started)
        return now
