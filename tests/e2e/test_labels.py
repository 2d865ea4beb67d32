"""What people say of records, on a real broker: who reads it, and what it does to a stream's threshold."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from confluent_kafka import Producer

from stream_app.clock import SystemClock
from stream_app.events import Label, encode, event_id, rfc3339
from stream_app.labels import LabelFollower, read_labels
from stream_app.local import EmbeddedServers
from stream_app.metrics import REGISTRY
from stream_app.topics import ensure_topics
from tests.e2e.test_stream import bodies, count, raw_picture, read, topics

SOON = 5.0  # seconds within which a label counts
COLD = {"min_observations": 1_000_000, "target_rate": 0.02}  # thresholds that stay where the model puts them


def label(topic, offset, kind, score=2.5, *, stream="cam", at=None):
    return Label(
        id=event_id("images", topic, 0, offset),
        detector="images",
        topic=topic,
        partition=0,
        offset=offset,
        stream=stream,
        label=kind,
        score=score,
        threshold=2.0,
        at=rfc3339(time.time() if at is None else at),
        by="tester",
    )


def message(said):
    """Keyed by stream, as the command does it; bytes are published as they are."""
    return {"value": said, "key": "cam"} if isinstance(said, bytes) else {"value": encode(said), "key": said.stream}


def publish(client, settings, *labels):
    return asyncio.to_thread(client.publish, settings.topics.labels, [message(each) for each in labels])


async def test_of_each_record_the_newest_label_holds_and_what_is_none_is_skipped(settings_factory, client):
    settings = settings_factory()
    await ensure_topics(settings)
    assert await read_labels(settings) == []
    kept = label("images", 1, "anomaly", at=0.0)  # its time says nothing against what came before it in the topic
    other = label("images", 3, "normal", stream="another")
    early = [label("images", 1, "normal"), label("images", 2, "normal"), b"{", b'{"label": "normal"}']
    await publish(client, settings, *early, kept, label("images", 2, "none"), other)
    found = await read_labels(settings)
    assert sorted(found, key=lambda each: each.offset) == [kept, other]


async def test_labels_of_a_topic_that_does_not_exist_are_none(settings_factory):
    assert await read_labels(settings_factory()) == []


@contextlib.asynccontextmanager
async def following(settings):
    follower = LabelFollower(settings, SystemClock())
    task = asyncio.create_task(follower.run())
    try:
        yield follower
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition, timeout):
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_follower_has_what_there_is_at_once_and_then_what_comes(settings_factory, client):
    settings = settings_factory(labels={"start_timeout": 30.0})
    await ensure_topics(settings)
    there = [label("images", offset, "normal", stream=f"cam-{offset}") for offset in range(50)]
    await publish(client, settings, *there)
    unreadable = REGISTRY.get_sample_value("ganomaly_labels_unreadable_total")
    async with following(settings) as follower:
        await follower.catch_up()
        assert len(follower.book) == 50
        await publish(client, settings, b"no label", label("images", 7, "none", stream="cam-7"))
        await until(lambda: len(follower.book.labels()) == 49, SOON)
    assert REGISTRY.get_sample_value("ganomaly_labels_unreadable_total") == unreadable + 1


async def test_a_start_waits_for_labels_only_so_long(settings_factory):
    settings = settings_factory(
        kafka={"bootstrap_servers": "127.0.0.1:9", "request_timeout": 1.0}, labels={"start_timeout": 0.3}
    )
    started = time.monotonic()
    async with following(settings) as follower:
        await follower.catch_up()
        assert 0.3 <= time.monotonic() - started < 2.0
        assert len(follower.book) == 0


def publish_there(settings, *labels):
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    for each in labels:
        producer.produce(settings.topics.labels, partition=0, **message(each))
    assert producer.flush(30) == 0


def test_labels_outlive_an_outage_of_the_broker_and_new_ones_come_after_it():
    with EmbeddedServers() as servers:
        settings = servers.settings

        async def run():
            async with following(settings) as follower:
                await asyncio.to_thread(publish_there, settings, label("images", 1, "normal"))
                await until(lambda: len(follower.book) == 1, 30)
                await asyncio.to_thread(servers.stop)
                await asyncio.sleep(1.5)
                assert len(follower.book) == 1
                await asyncio.to_thread(servers.start)  # with nothing in it, at the same address
                again = [label("images", offset, "normal") for offset in (2, 3)]
                await asyncio.to_thread(publish_there, settings, *again)
                await until(lambda: {1, 3} <= {each.offset for each in follower.book.labels()}, 60)

        asyncio.run(run())


@pytest.fixture
def labelled_stream(client, stream_settings, digits):
    """Settings, and what scores pictures as records of one stream: their events."""
    settings = stream_settings(scores={"publish": True}, threshold=COLD)
    images = topics(settings)[0]
    published = 0

    async def score(*pictures):
        nonlocal published
        records = [raw_picture(picture, key="cam", partition=0) for picture in pictures]
        await asyncio.to_thread(client.publish, images, records)
        published += len(pictures)
        events = bodies(await read(client, settings.topics.scores, count(published)))
        return events[-len(pictures) :]

    return settings, score


async def scored_until(score, picture, condition):
    """Scores a picture again and again; its event once `condition` holds, and after how many seconds that was."""
    started = time.monotonic()
    while True:
        (event,) = await score(picture)
        if condition(event) or time.monotonic() - started > 2 * SOON:
            assert condition(event), event
            return event, time.monotonic() - started


def said(event, kind):
    record = event["record"]
    return label(record["topic"], record["offset"], kind, event["score"])


async def test_a_label_counts_within_five_seconds_for_records_like_it_and_after_a_restart(
    labelled_stream, client, running_worker, digits
):
    settings, score = labelled_stream
    await ensure_topics(settings)
    pictures = [*digits.normal[:300], *digits.anomalous[:100]]
    async with running_worker(settings):
        events = await score(*pictures)
        near = [at for at, each in enumerate(events) if 0.05 < abs(each["score"] - each["threshold"]) < 0.45]
        alarm = next(at for at in near if events[at]["is_anomaly"])
        missed = next(at for at in near if not events[at]["is_anomaly"])
        far = next(at for at, each in enumerate(events) if each["score"] > each["threshold"] + 1.0)
        assert events[alarm]["policy"]["labels"] == 0

        await publish(client, settings, b"\xff\x00", said(events[alarm], "normal"))
        event, seconds = await scored_until(score, pictures[alarm], lambda each: not each["is_anomaly"])
        assert seconds < SOON
        assert event["policy"]["labels"] == 1
        assert event["policy"]["shift"] == pytest.approx(event["threshold"] - events[alarm]["threshold"], abs=0.02)

        await publish(client, settings, said(events[far], "normal"))  # as far as a label may go, and no farther
        event, _ = await scored_until(score, pictures[far], lambda each: each["policy"]["labels"] == 2)
        assert event["is_anomaly"]
        assert event["policy"]["shift"] == pytest.approx(settings.labels.max_shift)

        taken_back = [said(events[at], "none") for at in (alarm, far)]
        await publish(client, settings, *taken_back, said(events[missed], "anomaly"))
        event, seconds = await scored_until(score, pictures[missed], lambda each: each["is_anomaly"])
        assert seconds < SOON
        assert event["policy"]["shift"] < 0.0
    async with running_worker(settings):
        (event,) = await score(pictures[missed])
        assert (event["is_anomaly"], event["policy"]["labels"]) == (True, 1)
