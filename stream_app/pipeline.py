"""The worker's records in hand: a lane for each assigned partition, how much they may hold, what may be committed.

It is the `RecordStream` that the transport drives; nothing here knows Faust.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from stream_app import metrics
from stream_app.commit import CommitCycle
from stream_app.drift import Allowance, Counted, DriftMonitor
from stream_app.lane import Lane, Route, Services
from stream_app.log import get_logger
from stream_app.offsets import Fetch, OffsetLedger
from stream_app.records import Chunk, TopicPartition
from stream_app.store import StateStore
from stream_app.streams import Streams

log = get_logger(__name__)


class Pipeline:
    """Everything between the transport and the broker's acknowledgement.

    `on_fault` is called with what can't be blamed on a record; the worker must then end.
    """

    def __init__(self, services: Services, store: StateStore, on_fault: Callable[[BaseException], None]) -> None:
        self.ledger = OffsetLedger()
        self._services = services
        self._store = store
        self._on_fault = on_fault
        self._routes: dict[str, Route] = {}
        self._lanes: dict[TopicPartition, Lane] = {}
        self._turn = 0
        self._record_bytes = 1024.0  # of the records that were done last, with what was made of them, about
        self._paused = False
        self._draining = False
        self._may_fetch = asyncio.Event()
        self._finished = asyncio.Event()
        self._commit = CommitCycle(
            self.ledger,
            services.publisher,
            store,
            services.clock,
            services.settings.worker.publish_timeout,
        )
        self._allowance = Allowance(services.settings.drift.cpu, services.clock)
        self.last_progress = services.clock.monotonic()

    @property
    def open_topics(self) -> frozenset[str]:
        """Topics whose detector is in service."""
        return frozenset(self._routes)

    def open(self, route: Route) -> None:
        """Begins to take the records of a topic: its detector is in service."""
        self._routes[route.topic] = route
        self._may_fetch.set()

    def put(self, chunk: Chunk) -> None:
        """Takes a chunk from the agent. One of an older assignment is left to whoever has its partition now."""
        if self._draining or not self.ledger.is_current(chunk):
            return
        if all(lane.idle for lane in self._lanes.values()):
            self.last_progress = self._services.clock.monotonic()  # there was nothing to do until now
        lane = self._lanes.get(chunk.tp)
        if lane is None:
            lane = self._lanes[chunk.tp] = self._new_lane(chunk.tp, chunk.first)
        lane.put(chunk)

    def next_fetch(self, partitions: Collection[TopicPartition]) -> Fetch:
        """Partitions of open topics, as many as there is room for in hand, in turns when there is little."""
        candidates = sorted(tp for tp in partitions if tp.topic in self._routes)
        room = self._room()
        if self._draining or not candidates or room <= 0:
            self._may_fetch.clear()
            return Fetch((), 0)
        count = min(len(candidates), max(1, room // self._services.settings.kafka.fetch_max_bytes))
        first = self._turn % len(candidates)
        self._turn += count
        chosen = [candidates[(first + i) % len(candidates)] for i in range(count)]
        return Fetch(chosen, max(self._services.settings.batch.max_batch, int(room / self._record_bytes)))

    async def wait_until_fetchable(self, timeout: float) -> None:
        """Returns when room was made or a topic opened, or after `timeout` seconds."""
        try:
            await asyncio.wait_for(self._may_fetch.wait(), timeout)
        except TimeoutError:
            return

    def drift(self) -> Iterator[tuple[TopicPartition, Counted]]:
        """What was counted of the streams of each partition that has had records."""
        for tp, lane in self._lanes.items():
            if (counted := lane.drift.counted(lane.streams)) is not None:
                yield tp, counted

    async def prepare_commit(self) -> Mapping[TopicPartition, int]:
        """See CommitCycle. A fault there ends the worker, and nothing is committed."""
        for topic in self._routes:
            streams = sum(len(lane.streams) for tp, lane in self._lanes.items() if tp.topic == topic)
            metrics.STREAMS.labels(topic).set(streams)
        try:
            return await self._commit.prepare(self._lanes)
        except Exception as error:
            self._on_fault(error)
            return {}

    def fail(self, error: BaseException) -> None:
        """Ends the worker."""
        self._on_fault(error)

    def committed(self, offsets: Mapping[TopicPartition, int], generation: int) -> None:
        """The broker has taken the offsets."""
        self.ledger.commit(offsets, generation)

    async def finish_in_hand(self) -> None:
        """Finishes what is being scored, leaves what only waits. Gives up after half of `worker.shutdown_timeout`.

        A chunk that isn't finished by then has published nothing and comes again.
        """
        for lane in self._lanes.values():
            lane.abandon_waiting()
        try:
            await asyncio.wait_for(self._until_idle(), self._services.settings.worker.shutdown_timeout / 2)
        except TimeoutError:
            log.warning("records in hand were not scored in time; they come again", records=self.ledger.in_hand_records)
            await _close(list(self._lanes.values()))

    def drain(self) -> None:
        """Takes nothing new from now on: the worker is about to end."""
        self._draining = True

    def abort(self) -> None:
        """Leaves everything in hand, and commits nothing more."""
        self._draining = True
        for lane in self._lanes.values():
            lane.close()
        self._lanes.clear()

    async def assigned(self, partitions: Iterable[TopicPartition], generation: int) -> None:
        """Opens the books of a new assignment."""
        await self._close_lanes()
        self.ledger.assign(partitions, generation)
        self.last_progress = self._services.clock.monotonic()
        log.info(
            "partitions assigned", partitions=[f"{tp.topic}/{tp.partition}" for tp in sorted(self.ledger.partitions)]
        )
        self._may_fetch.set()

    async def revoked(self) -> None:
        """Closes the books of the assignment; when it returns, nothing more is published for its partitions."""
        await self._close_lanes()
        self.ledger.revoke()

    def _new_lane(self, tp: TopicPartition, start: int) -> Lane:
        route = self._routes[tp.topic]
        streams = Streams(
            route.detector,
            tp,
            route.decoder.spec,
            self._services.settings,
            self._store,
            start,
            shares=sum(each.topic == tp.topic for each in self.ledger.partitions),
            clock=self._services.clock,
            labels=self._services.labels,
        )
        drift = DriftMonitor(
            self._services.settings.drift,
            route.decoder.spec.kind,
            self._services.settings.sequence.max_streams,
            self._allowance,
        )
        return Lane(tp, route, streams, drift, self._services, self.ledger, self._done, self._on_fault)

    def _done(self, chunk: Chunk) -> None:
        self.ledger.finish(chunk)
        self._record_bytes += 0.2 * (chunk.size / len(chunk) - self._record_bytes)
        self.last_progress = self._services.clock.monotonic()
        self._finished.set()
        if self._room() > 0:
            self._may_fetch.set()

    def _room(self) -> int:
        """Bytes that may still be taken in hand. Once there were none, half must be free before any count again."""
        limit = self._services.settings.batch.max_in_hand_bytes
        metrics.IN_HAND_BYTES.set(self.ledger.in_hand_bytes)
        metrics.IN_HAND_RECORDS.set(self.ledger.in_hand_records)
        if self._paused and self.ledger.in_hand_bytes > limit // 2:
            return 0
        paused = self.ledger.in_hand_bytes >= limit
        if paused and not self._paused:
            metrics.PAUSES.inc()
        self._paused = paused
        metrics.PAUSED.set(paused)
        return limit - self.ledger.in_hand_bytes

    async def _until_idle(self) -> None:
        while not all(lane.idle for lane in self._lanes.values()):
            self._finished.clear()
            await self._finished.wait()

    async def _close_lanes(self) -> None:
        lanes = list(self._lanes.values())
        self._lanes.clear()
        await _close(lanes)


async def _close(lanes: Sequence[Lane]) -> None:
    for lane in lanes:
        lane.close()
    for lane in lanes:
        await lane.closed()
