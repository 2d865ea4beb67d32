"""What topics hold, read without the worker's consumer or its group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition

from stream_app.errors import BrokerUnavailable
from stream_app.kafka import broker_errors, client_options, start
from stream_app.log import get_logger
from stream_app.records import Chunk, RawRecord, TopicPartition
from stream_app.settings import Settings
from stream_app.topics import describe_topics

log = get_logger(__name__)

NO_GENERATION = -1
_PATIENCE = 5.0  # seconds without a record after which no more are waited for
_FOLLOW_WAIT_MS = 500  # how long the broker may keep a follower's fetch; the follower of a quiet topic costs little
_FOLLOW_RETRY = 1.0  # seconds after which a broker that did not answer is asked again
_METADATA_AGE_MS = 30_000  # after which a topic that has more partitions now is noticed


async def bounds(settings: Settings, topic: str) -> dict[TopicPartition, tuple[int, int]]:
    """Of each partition of a topic, the first offset that the broker still has and the one that comes next.

    Empty for a topic that does not exist. Raises BrokerUnavailable.
    """
    count = (await describe_topics(settings.kafka)).get(topic, 0)
    partitions = [KafkaPartition(topic, number) for number in range(count)]
    if not partitions:
        return {}
    async with _reader(settings) as consumer:
        with broker_errors(settings.kafka):
            begins = await consumer.beginning_offsets(partitions)
            ends = await consumer.end_offsets(partitions)
            # The embedded broker answers with where its last batch begins; what comes with a fetch is right everywhere.
            consumer.assign(partitions)
            for each in partitions:
                consumer.seek(each, ends[each])
            waiting = {each for each in partitions if ends[each] > begins[each]}
            while waiting:
                await consumer.getmany(*waiting, timeout_ms=round(settings.kafka.fetch_max_wait * 2000))
                waiting = {each for each in waiting if consumer.highwater(each) is None}
    return {
        TopicPartition(*each): (begins[each], max(ends[each], consumer.highwater(each) or 0)) for each in partitions
    }


async def first_since(settings: Settings, topic: str, time: float) -> dict[TopicPartition, int]:
    """Of each partition of a topic, the first offset whose record was published at `time` or later.

    `time` is in seconds since the Unix epoch. Partitions without such a record are left out. (The embedded broker
    remembers times by batches, and answers with an earlier offset.) Empty for a topic that does not exist. Raises
    BrokerUnavailable.
    """
    count = (await describe_topics(settings.kafka)).get(topic, 0)
    wanted = {KafkaPartition(topic, number): round(time * 1000) for number in range(count)}
    if not wanted:
        return {}
    async with _reader(settings) as consumer:
        with broker_errors(settings.kafka):
            found = await consumer.offsets_for_times(wanted)
    return {TopicPartition(*each): place.offset for each, place in found.items() if place is not None}


async def read_before(settings: Settings, tp: TopicPartition, end: int, count: int) -> AsyncIterator[Chunk]:
    """The records of the last `count` offsets below `end` that the broker still has, in chunks of `batch.max_batch`.

    Raises BrokerUnavailable.
    """
    async for chunk in read_range(settings, tp, max(0, end - count), end):
        yield chunk


async def read_range(settings: Settings, tp: TopicPartition, first: int, end: int) -> AsyncIterator[Chunk]:
    """The records from offset `first` to below `end` that the broker still has, in chunks of `batch.max_batch`.

    Raises BrokerUnavailable.
    """
    async for chunk in read_ranges(settings, tp, [(first, end)]):
        yield chunk


async def read_ranges(
    settings: Settings, tp: TopicPartition, ranges: Iterable[tuple[int, int]], **options: Any
) -> AsyncIterator[Chunk]:
    """As `read_range`, of one range after the other; a chunk is of one range. `options` are of the consumer."""
    partition = KafkaPartition(*tp)
    async with _reader(settings, **options) as consumer:
        with broker_errors(settings.kafka):
            consumer.assign([partition])
            begins = (await consumer.beginning_offsets([partition]))[partition]
        for first, end in ranges:
            position = max(begins, first)
            if position < end:
                consumer.seek(partition, position)
            while position < end:
                with broker_errors(settings.kafka):
                    found = await consumer.getmany(
                        partition, timeout_ms=round(_PATIENCE * 1000), max_records=settings.batch.max_batch
                    )
                records = [record for record in found.get(partition, ()) if record.offset < end]
                if not records:
                    break
                size = sum(len(record.value or b"") for record in records)
                yield Chunk(tp, position, records, NO_GENERATION, size)
                position = records[-1].offset + 1


async def follow(settings: Settings, topic: str) -> AsyncIterator[list[RawRecord]]:
    """Every record of a topic from its beginning, and then what comes, some at a time, in the order of each partition.

    An empty list says that nothing more is there for now; it comes about twice a second. A broker that is away, or a
    topic that isn't there yet, is waited for, and said once. After an outage it goes on where it was.
    """
    positions: dict[KafkaPartition, int] = {}
    is_away = False
    while True:
        try:
            async for records in _follow_while_connected(settings, topic, positions):
                is_away = False
                yield records
        except BrokerUnavailable as error:
            if not is_away:
                log.warning("a topic can't be followed; it is tried again and again", topic=topic, error=str(error))
            is_away = True
            await asyncio.sleep(_FOLLOW_RETRY)


async def _follow_while_connected(
    settings: Settings, topic: str, positions: dict[KafkaPartition, int]
) -> AsyncIterator[list[RawRecord]]:
    """Until the topic has more partitions than it had. `positions`, where to go on, are kept up to date."""
    ends = {KafkaPartition(*tp): end for tp, (_, end) in (await bounds(settings, topic)).items()}
    if not ends:
        yield []
        await asyncio.sleep(_FOLLOW_RETRY)
        return
    async with _reader(
        settings,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=_FOLLOW_WAIT_MS,
        metadata_max_age_ms=_METADATA_AGE_MS,
    ) as consumer:
        consumer.assign(list(ends))
        for partition in ends:
            consumer.seek(partition, positions.get(partition, 0))
        found: dict[KafkaPartition, list[RawRecord]] = {}
        while len(consumer.partitions_for_topic(topic) or ends) == len(ends):
            if not found and all(positions.get(partition, 0) >= end for partition, end in ends.items()):
                yield []
            with broker_errors(settings.kafka):
                found = await consumer.getmany(timeout_ms=_FOLLOW_WAIT_MS)
                for partition in ends:
                    positions[partition] = await consumer.position(partition)
            for records in found.values():
                yield records


@asynccontextmanager
async def _reader(settings: Settings, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    kafka = settings.kafka
    defaults = {
        "max_partition_fetch_bytes": kafka.fetch_max_bytes,
        "fetch_max_wait_ms": round(kafka.fetch_max_wait * 1000),
    }
    consumer = AIOKafkaConsumer(**client_options(kafka), group_id=None, enable_auto_commit=False, **defaults | options)
    try:
        with broker_errors(kafka):
            await start(consumer)
        yield consumer
    finally:
        await consumer.stop()
