"""How much may be in hand, and whose turn it is to be fetched from."""

from __future__ import annotations

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest

from stream_app import metrics
from stream_app.clock import ManualClock
from stream_app.dead_letter import Fuse
from stream_app.lane import Route, Services
from stream_app.pipeline import Pipeline
from stream_app.publish import Publisher
from stream_app.records import Chunk, TopicPartition
from stream_app.settings import Settings
from stream_app.store import StateStore
from tests.unit.stream_app.raw import Record

PARTITIONS = [TopicPartition("open", number) for number in range(4)]
CLOSED = TopicPartition("closed", 0)


@pytest.fixture
async def pipeline():
    settings = Settings(batch={"max_in_hand_bytes": 1000}, kafka={"fetch_max_bytes": 250})
    clock = ManualClock()
    with ThreadPoolExecutor(1) as threads:
        publisher = Publisher(None, None, clock)
        services = Services(settings, clock, None, publisher, Fuse(settings.dead_letter), threads, None)
        pipeline = Pipeline(services, StateStore(settings.redis, "group", clock), on_fault=pytest.fail)
        pipeline.open(Route("open", "images", None, None))
        await pipeline.assigned([*PARTITIONS, CLOSED], generation=1)
        yield pipeline


numbers = itertools.count()


def take_in_hand(pipeline, size):
    """Delivers a chunk of `size` bytes, as the transport does."""
    first = 10 * next(numbers)
    chunk = Chunk(PARTITIONS[0], first, [Record(b"x", offset=first + 9)], 1, size)
    pipeline.ledger.deliver(chunk)
    return chunk


def fetched_from(pipeline):
    return [tp.partition for tp in pipeline.next_fetch([*PARTITIONS, CLOSED]).partitions]


async def test_with_room_for_all_every_partition_of_an_open_topic_is_fetched_from(pipeline):
    assert fetched_from(pipeline) == [0, 1, 2, 3]


async def test_with_less_room_partitions_take_turns(pipeline):
    take_in_hand(pipeline, 400)
    assert [sorted(fetched_from(pipeline)) for _ in range(2)] == [[0, 1], [2, 3]]


async def test_at_the_bound_nothing_is_fetched_until_half_of_it_is_free(pipeline):
    pauses = metrics.REGISTRY.get_sample_value("ganomaly_pauses_total")
    chunks = [take_in_hand(pipeline, 300) for _ in range(4)]
    assert fetched_from(pipeline) == []
    pipeline.ledger.finish(chunks[0])
    pipeline.ledger.finish(chunks[1])
    assert fetched_from(pipeline) == []
    pipeline.ledger.finish(chunks[2])
    assert fetched_from(pipeline) != []
    assert metrics.REGISTRY.get_sample_value("ganomaly_pauses_total") == pauses + 1


async def test_the_more_is_made_of_records_the_fewer_are_fetched_at_once():
    settings = Settings(batch={"max_in_hand_bytes": 64 << 20})
    services = Services(settings, ManualClock(), None, None, None, None, None)
    pipeline = Pipeline(services, StateStore(settings.redis, "group", ManualClock()), on_fault=pytest.fail)
    pipeline.open(Route("open", "images", None, None))
    await pipeline.assigned(PARTITIONS, generation=1)
    for _ in range(50):
        chunk = take_in_hand(pipeline, 1024)
        pipeline.ledger.grow(chunk, 15 * 1024)
        pipeline._done(chunk)
    assert pipeline.next_fetch(PARTITIONS).max_records == pytest.approx((64 << 20) / (16 * 1024), rel=0.01)


async def test_waiting_for_room_ends_when_a_topic_opens(pipeline):
    take_in_hand(pipeline, 2000)
    assert fetched_from(pipeline) == []
    waiting = asyncio.create_task(pipeline.wait_until_fetchable(timeout=60.0))
    await asyncio.sleep(0)
    pipeline.open(Route("closed", "images", None, None))
    await asyncio.wait_for(waiting, 1.0)


async def test_a_worker_that_ends_fetches_nothing(pipeline):
    pipeline.drain()
    assert fetched_from(pipeline) == []


async def test_what_is_in_hand_of_an_older_assignment_takes_no_room(pipeline):
    take_in_hand(pipeline, 5000)
    await pipeline.assigned(PARTITIONS, generation=2)
    assert fetched_from(pipeline) == [0, 1, 2, 3]


async def test_a_chunk_of_an_older_assignment_is_not_taken(pipeline):
    chunk = take_in_hand(pipeline, 10)
    await pipeline.assigned(PARTITIONS, generation=2)
    pipeline.put(chunk)
    assert await pipeline.prepare_commit() == {}
