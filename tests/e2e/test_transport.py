"""Chunks through Faust from a real broker: what is done is committed, what isn't comes again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from confluent_kafka import Producer

from stream_app.app import build_app
from stream_app.offsets import Fetch, OffsetLedger
from stream_app.records import Chunk, TopicPartition
from stream_app.topics import ensure_topics

RECORDS = 4_000


class Sink:
    """A record stream that finishes what it is told to, and remembers every chunk."""

    def __init__(self, refuse=lambda chunk: False):
        self.ledger = OffsetLedger()
        self.chunks: list[Chunk] = []
        self.room = True
        self.commits: list[dict[TopicPartition, int]] = []
        self._refuse = refuse

    def put(self, chunk):
        self.chunks.append(chunk)
        if not self._refuse(chunk):
            self.ledger.finish(chunk)

    def next_fetch(self, partitions):
        return Fetch(list(partitions) if self.room else [], 10_000)

    def fail(self, error):
        raise error

    async def wait_until_fetchable(self, timeout):
        await asyncio.sleep(min(timeout, 0.05))

    async def prepare_commit(self):
        ends = {tp: self.ledger.committable(tp) for tp in self.ledger.partitions}
        return {tp: end for tp, end in ends.items() if end is not None}

    def committed(self, offsets, generation):
        self.commits.append(dict(offsets))
        self.ledger.commit(offsets, generation)

    async def finish_in_hand(self):
        pass

    async def assigned(self, partitions, generation):
        self.ledger.assign(partitions, generation)

    async def revoked(self):
        self.ledger.revoke()

    @property
    def offsets(self) -> dict[int, list[int]]:
        seen: dict[int, list[int]] = {}
        for chunk in self.chunks:
            seen.setdefault(chunk.tp.partition, []).extend(record.offset for record in chunk.records)
        return seen

    async def until(self, condition) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.02)


@pytest.fixture
async def published(settings_factory):
    settings = settings_factory(kafka={"session_timeout": 2.0, "commit_interval": 0.2}, batch={"max_batch": 100})
    await ensure_topics(settings)
    topic = next(iter(settings.routes))
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    for number in range(RECORDS):
        producer.produce(topic, str(number).encode(), partition=number % 4, headers=[("n", b"%d" % number)])
    assert producer.flush(30) == 0
    return settings, topic


@contextlib.asynccontextmanager
async def running(settings, topic, sink) -> AsyncIterator[None]:
    app = build_app(settings, sink, [topic])
    await app.start()
    try:
        yield
    finally:
        await app.stop()


async def test_every_offset_is_delivered_once_in_order_in_chunks(published):
    settings, topic = published
    sink = Sink()
    async with running(settings, topic, sink):
        await sink.until(lambda: sum(map(len, sink.chunks)) == RECORDS)
        await sink.until(lambda: all(sink.ledger.committable(tp) is None for tp in sink.ledger.partitions))
    assert sink.offsets == {partition: list(range(RECORDS // 4)) for partition in range(4)}
    assert max(map(len, sink.chunks)) == 100
    record = sink.chunks[0].records[7]
    assert (record.value, record.headers) == (
        str(record.offset * 4 + record.partition).encode(),
        (("n", record.value),),
    )


async def test_what_was_committed_does_not_come_again(published):
    settings, topic = published
    first, second = Sink(), Sink()
    async with running(settings, topic, first):
        await first.until(lambda: sum(map(len, first.chunks)) == RECORDS)
    async with running(settings, topic, second):
        await second.until(lambda: second.ledger.generation >= 0)
        await asyncio.sleep(1.0)
    assert second.chunks == []


async def test_a_first_chunk_that_never_gets_done_comes_again_with_all_behind_it(published):
    settings, topic = published
    first = Sink(refuse=lambda chunk: chunk.tp.partition == 1 and chunk.first == 0)
    async with running(settings, topic, first):
        await first.until(lambda: sum(map(len, first.chunks)) == RECORDS)
    assert all(1 not in {tp.partition for tp in commit} for commit in first.commits)
    second = Sink()
    async with running(settings, topic, second):
        await second.until(lambda: sum(map(len, second.chunks)) == RECORDS // 4)
    assert second.offsets == {1: list(range(RECORDS // 4))}


async def test_nothing_is_fetched_while_there_is_no_room_and_nothing_is_skipped_after(published):
    settings, topic = published
    sink = Sink()
    sink.room = False
    async with running(settings, topic, sink):
        await sink.until(lambda: sink.ledger.generation >= 0)
        await asyncio.sleep(0.5)
        assert sink.chunks == []
        sink.room = True
        await sink.until(lambda: sum(map(len, sink.chunks)) == RECORDS)
    assert sink.offsets == {partition: list(range(RECORDS // 4)) for partition in range(4)}
