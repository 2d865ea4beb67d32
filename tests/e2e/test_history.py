"""What topics hold is read again, on a real broker, without a group."""

from __future__ import annotations

import asyncio

from stream_app.history import bounds, read_range
from stream_app.records import TopicPartition
from stream_app.topics import ensure_topics


async def test_a_range_of_offsets_is_read_as_it_was_published(settings_factory, client):
    settings = settings_factory(batch={"max_batch": 7})
    await ensure_topics(settings)
    topic = settings.topics.labels
    assert set((await bounds(settings, topic)).values()) == {(0, 0)}
    await asyncio.to_thread(
        client.publish, topic, [{"value": str(number).encode(), "partition": 1} for number in range(30)]
    )
    place = TopicPartition(topic, 1)
    assert (await bounds(settings, topic))[place] == (0, 30)
    chunks = [chunk async for chunk in read_range(settings, place, 4, 25)]
    assert [int(record.value) for chunk in chunks for record in chunk.records] == list(range(4, 25))
    assert max(map(len, chunks)) <= 7
    assert [chunk async for chunk in read_range(settings, TopicPartition(topic, 0), 0, 0)] == []


async def test_a_topic_that_does_not_exist_has_no_bounds(settings_factory):
    assert await bounds(settings_factory(), "no-such-topic") == {}
