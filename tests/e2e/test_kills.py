"""Streams of single observations that go on, and a worker that is killed again and again.

GANOMALY_TEST_STREAMS sets how many streams: 5000 takes some minutes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import defaultdict

import numpy as np
import pytest
from redis import Redis

from stream_app.state import Place, StreamState
from stream_app.store import StateStore
from stream_app.tail import Tail
from stream_app.threshold import StreamThreshold
from stream_app.topics import ensure_topics
from tests.e2e.conftest import WINDOW
from tests.e2e.test_faults import worker_process as worker_process
from tests.e2e.test_stream import bodies, raw_window, read, topics

STREAMS = int(os.environ.get("GANOMALY_TEST_STREAMS", "200"))
OBSERVATIONS, PARTITIONS, KILLS = 116, 4, 10
SHARE = (OBSERVATIONS - WINDOW) // (KILLS + 1)  # observations a stream that come during the life of a worker
SCORED = STREAMS * (OBSERVATIONS - WINDOW + 1)
PATIENCE = 120.0 + STREAMS / 10  # seconds in which a worker is to learn all of it


def places(settings) -> list[Place]:
    return [("sequences", topics(settings)[1], partition) for partition in range(PARTITIONS)]


def names(partition):
    return [f"pump-{stream}" for stream in range(partition, STREAMS, PARTITIONS)]


async def states_of(settings) -> dict[str, StreamState]:
    """What the group has learned of every stream, as it is in Redis."""
    from stream_app.clock import SystemClock

    store = StateStore(settings.redis, settings.kafka.group_id, SystemClock())
    await store.start()
    found: dict[str, StreamState] = {}
    for partition, place in enumerate(places(settings)):
        found |= await store.load(place, names(partition))
    await store.close()
    return found


async def until_learned(settings):
    """Returns the states when every stream has learned its last observation."""
    last = STREAMS // PARTITIONS * (OBSERVATIONS - 1)
    deadline = time.monotonic() + PATIENCE
    while True:
        states = await states_of(settings)
        if len(states) == STREAMS and min(state.offset for state in states.values()) >= last:
            return states
        assert time.monotonic() < deadline, f"{len(states)} streams were saved"
        await asyncio.sleep(STREAMS / 1000)  # reading so many states takes both sides some time


async def publish(client, topic, flow, allowed):
    """An observation of every stream, again and again, as far as is allowed."""
    for at in range(OBSERVATIONS):
        records = [
            raw_window(flow[(17 * stream + at) % len(flow)], key=f"pump-{stream}", partition=stream % PARTITIONS)
            for stream in range(STREAMS)
        ]
        while at >= allowed[0]:
            await asyncio.sleep(0.05)
        await asyncio.to_thread(client.publish, topic, records)


@pytest.mark.timeout(240 + 4 * PATIENCE)  # a dozen processes begin, one after the other
async def test_every_observation_is_scored_and_none_is_learned_twice(client, stream_settings, worker_process, flow):
    settings = stream_settings(scores={"publish": True}, batch={"max_batch": 64})
    await ensure_topics(settings)
    _, sequences = topics(settings)
    allowed = [WINDOW]
    publishing = asyncio.create_task(publish(client, sequences, flow, allowed))
    random = np.random.default_rng(7)
    for _ in range(KILLS):
        scored, process = client.count(settings.topics.scores), worker_process(settings)
        allowed[0] += SHARE
        wanted = scored + int(random.integers(1, SHARE * STREAMS))
        deadline = time.monotonic() + 60
        while await asyncio.to_thread(client.count, settings.topics.scores) < wanted:
            assert time.monotonic() < deadline
            await asyncio.sleep(float(random.uniform(0.0, 0.05)))
        process.kill()
        process.wait()
    last = worker_process(settings)
    allowed[0] = OBSERVATIONS
    await publishing

    ids: list[str] = []

    def complete(messages):
        ids.extend(json.loads(message.value())["id"] for message in messages[len(ids) :])
        return len(set(ids)) >= SCORED

    events = bodies(await read(client, settings.topics.scores, complete, 60.0 + PATIENCE))
    struck = await until_learned(settings)
    last.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(last.wait, 10) == 0

    offsets, scores = defaultdict(set), defaultdict(list)
    for event in events:
        offsets[event["record"]["partition"]].add(event["record"]["offset"])
        scores[event["id"]].append(event["score"])
    first_window = STREAMS // PARTITIONS * (WINDOW - 1)
    assert offsets == {p: set(range(first_window, STREAMS // PARTITIONS * OBSERVATIONS)) for p in range(PARTITIONS)}
    assert len(scores) == SCORED
    assert all(len(set(same)) == 1 for same in scores.values())

    undisturbed = settings.model_copy(
        update={
            "kafka": settings.kafka.model_copy(update={"group_id": f"{settings.kafka.group_id}-undisturbed"}),
            "scores": settings.scores.model_copy(update={"publish": False}),
        }
    )
    process = worker_process(undisturbed)
    calm = await until_learned(undisturbed)
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 10) == 0
    for name, state in calm.items():
        mine = struck[name]
        assert (mine.offset, mine.threshold, mine.tail, mine.episode) == (
            state.offset,
            state.threshold,
            state.tail,
            state.episode,
        )
        assert Tail.from_bytes(state.tail).count == OBSERVATIONS
        learned = StreamThreshold.from_bytes(state.threshold, settings.threshold).observations
        assert (OBSERVATIONS - WINDOW + 1) / 2 < learned <= OBSERVATIONS - WINDOW + 1
    with Redis.from_url(settings.redis.url.get_secret_value()) as redis:
        for key in redis.scan_iter(match=f"{settings.redis.prefix}:*", count=1000):
            redis.delete(key)
