"""Workers join and leave while records flow: every record is scored, in order, and those who stay live on."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict

from stream_app import transport
from stream_app.topics import ensure_topics
from tests.e2e.test_stream import bodies, count, raw_picture, read, topics

PARTITIONS = 4


async def publish_steadily(client, topic, picture, published):
    """A few records on every partition, again and again; counts them in `published`."""
    while True:
        records = [raw_picture(picture, partition=partition) for partition in range(PARTITIONS)] * 3
        published.append(len(records))  # first: a thread that was begun publishes them, though this is cancelled
        await asyncio.to_thread(client.publish, topic, records)
        await asyncio.sleep(0.05)


async def test_nothing_is_lost_when_workers_come_and_go_though_a_fetch_outlasts_the_rebalance(
    client, stream_settings, running_worker, digits, monkeypatch
):
    monkeypatch.setattr(transport, "_FETCH_SECONDS", 4.0)
    settings = stream_settings(scores={"publish": True})
    await ensure_topics(settings)
    images, _ = topics(settings)
    published: list[int] = []
    flow = asyncio.create_task(publish_steadily(client, images, digits.normal[0], published))
    async with running_worker(settings) as first:
        for _ in range(3):
            async with running_worker(settings) as second:
                await asyncio.sleep(2.0)
            assert second.exit_code == 0
            await asyncio.sleep(2.0)
        flow.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await flow
        events = bodies(await read(client, settings.topics.scores, count(sum(published))))
    assert first.exit_code == 0
    offsets = defaultdict(list)
    for event in events:
        offsets[event["record"]["partition"]].append(event["record"]["offset"])
    ends = {partition: sum(published) // PARTITIONS for partition in range(PARTITIONS)}
    assert {partition: sorted(set(seen)) for partition, seen in offsets.items()} == {
        partition: list(range(end)) for partition, end in ends.items()
    }
