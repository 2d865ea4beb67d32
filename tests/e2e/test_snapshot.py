"""What a stream carries becomes a version: read from a real broker, and read again."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest

from model.errors import TrainingError
from model.registry import Registry
from stream_app.events import EpisodeState, Label, encode, event_id
from stream_app.topics import ensure_topics
from tests.e2e.conftest import WINDOW
from tests.e2e.test_commands import topic_of
from training.loop import train
from training.refresh.snapshot import take_snapshot


def raw(row, key, **fields):
    shape = ",".join(map(str, row.shape)).encode()
    headers = [("content-type", b"application/octet-stream"), ("shape", shape), ("dtype", str(row.dtype).encode())]
    return {"value": np.ascontiguousarray(row).tobytes(), "key": key, "headers": headers, **fields}


def label(topic, offset, said, *, detector="images", stream="camera", partition=0):
    body = {"topic": topic, "partition": partition, "offset": offset, "stream": stream, "label": said}
    identity = event_id(detector, topic, partition, offset)
    return Label(id=identity, detector=detector, at="2026-03-01T00:00:00.000Z", **body)


def published(labels):
    return [{"value": encode(each), "key": each.stream, "partition": 0} for each in labels]


async def taken(settings, detector, topic, **options):
    champion = Registry(settings.registry.url).load(detector, device="cpu")
    return await take_snapshot(settings, topic, detector, champion, **options)


async def test_pictures_of_all_streams_are_kept_without_what_is_anomalous(client, stream_settings, digits):
    settings = stream_settings(snapshot={"min_records": 100, "records": 300})
    await ensure_topics(settings)
    topic = topic_of(settings, "images")
    loud, quiet, strange = digits.normal[:300], digits.train[:60], digits.anomalous[:60]
    mixed = np.random.default_rng(0).permutation(np.concatenate([loud, strange]))
    records = [raw(row, "loud", partition=0) for row in mixed] + [raw(row, "quiet", partition=1) for row in quiet]
    records.append({"value": b"", "key": "quiet", "partition": 1})
    await asyncio.to_thread(client.publish, topic, records)
    looks = []
    found = await taken(settings, "images", topic, on_progress=looks.append)
    again = await taken(settings, "images", topic)

    assert found.ranges == {0: (0, 360), 1: (0, 61), 2: (0, 0), 3: (0, 0)}
    assert found.sha256 == again.sha256
    assert np.array_equal(found.dataset.x, again.dataset.x)
    assert found.counts["read"] == 421
    assert found.counts["unreadable"] == 1
    assert sum(found.counts.values()) == 2 * 421
    kept = {row.tobytes() for row in found.dataset.x}
    assert kept <= {row.tobytes() for row in records_of(records, (8, 8, 1))}
    assert len(kept & {row.tobytes() for row in quiet}) > 40
    assert len(kept & {row.tobytes() for row in strange}) < 0.05 * len(kept)
    assert not kept & {row.tobytes() for row in found.fresh.x}
    assert found.dataset.origin.offsets["0"] == (0, 360)
    assert (looks[-1].what, looks[-1].done, looks[-1].total) == ("fetch", 421, 421)


def records_of(records, shape):
    return [np.frombuffer(each["value"], np.uint8).reshape(shape) for each in records if each["value"]]


async def test_windows_of_observations_are_those_that_were_scored_and_share_nothing_with_the_newest(
    client, stream_settings, flow, tmp_path
):
    settings = stream_settings(snapshot={"min_records": 100})
    await ensure_topics(settings)
    topic = topic_of(settings, "sequences")
    streams = {"main": flow[:600], "branch": flow[600:1100]}
    records = [raw(row, name, partition=2) for name, rows in streams.items() for row in rows]
    order = np.random.default_rng(0).permutation(np.repeat([0, 1], [600, 500]))
    turns = [iter(records[:600]), iter(records[600:])]
    await asyncio.to_thread(client.publish, topic, [next(turns[at]) for at in order])
    found = await taken(settings, "sequences", topic)

    there = {flow[end - WINDOW + 1 : end + 1].tobytes() for end in range(WINDOW - 1, 600)}
    there |= {flow[end - WINDOW + 1 : end + 1].tobytes() for end in range(600 + WINDOW - 1, 1100)}
    assert {row.tobytes() for row in found.dataset.x} <= there
    assert found.counts["incomplete"] == 2 * (WINDOW - 1)
    spans, fresh = found.dataset.spans, found.fresh.spans
    assert not ((spans[:, None, 0] <= fresh[None, :, 1]) & (fresh[None, :, 0] <= spans[:, None, 1])).any()
    assert len(found.fresh) > 150
    registries = [Registry(str(tmp_path / name)) for name in ("first", "second")]
    for registry, some in zip(registries, (found, await taken(settings, "sequences", topic)), strict=True):
        train(some.dataset, "sequence", registry, "sequences", seconds=1.0, steps=20, device="cpu")
    first, second = (registry.versions("sequences")[0] for registry in registries)
    assert first.sha256 == second.sha256
    assert first.training_data == second.training_data == found.dataset.origin


async def test_alerted_and_labelled_records_are_left_out_and_labelled_anomalies_are_taught(
    client, stream_settings, digits, running_worker
):
    settings = stream_settings(snapshot={"min_records": 100, "leave_out": 0.0})
    await ensure_topics(settings)
    topic = topic_of(settings, "images")
    rows = np.concatenate([digits.normal[:150], 255 - digits.normal[:10], digits.normal[150:400]])
    await asyncio.to_thread(client.publish, topic, [raw(row, "camera", partition=0) for row in rows])
    async with running_worker(settings):
        alerts = await asyncio.to_thread(
            client.read,
            settings.topics.alerts,
            lambda found: any(json.loads(each.value())["state"] == EpisodeState.CLOSE for each in found),
        )
    told = [json.loads(alert.value()) for alert in alerts]
    first = min(alert["record"]["offset"] for alert in told)
    labels = [label(topic, offset, "anomaly") for offset in range(150, 160)]
    labels += [label(topic, offset, "normal") for offset in (161, 162, 163)]
    await asyncio.to_thread(client.publish, settings.topics.labels, published(labels))
    found = await taken(settings, "images", topic)
    inverted = {row.tobytes() for row in rows[150:160]}
    normal = {row.tobytes() for row in found.dataset.x[found.dataset.clean]}
    assert first <= 150
    assert not normal & inverted
    assert found.counts["alerted"] >= 20 - 3  # what is quiet belongs to the episode until it closes
    assert {row.tobytes() for row in found.dataset.x[found.dataset.y == 1]} < inverted
    x, y = found.labelled
    assert sorted(y.tolist()) == [0, 1, 1, 1]
    assert {row.tobytes() for row in x[y == 1]} < inverted
    assert len(normal & {row.tobytes() for row in rows[161:164]}) <= 2


async def test_what_was_labelled_before_the_range_is_fetched_by_its_offset_and_nothing_else_is(
    client, stream_settings, digits
):
    back = 400
    settings = stream_settings(snapshot={"min_records": 100, "leave_out": 0.0, "records_back": back})
    await ensure_topics(settings)
    topic = topic_of(settings, "images")
    inverted, odd = 255 - digits.normal[:12], digits.anomalous[:6]
    old = np.concatenate([digits.train[:30], inverted, digits.train[30:60], odd, digits.train[60:90]])
    rows = np.concatenate([old, digits.train[100 : 100 + back]])
    await asyncio.to_thread(client.publish, topic, [raw(row, "camera", partition=0) for row in rows])
    labels = [label(topic, offset, "anomaly") for offset in range(30, 42)]
    labels += [label(topic, offset, "normal") for offset in range(72, 78)]
    await asyncio.to_thread(client.publish, settings.topics.labels, published(labels))
    found = await taken(settings, "images", topic)

    assert found.ranges[0] == (len(old), len(rows))
    x, y = found.labelled
    learned = {row.tobytes() for row in found.dataset.x[found.dataset.clean]}
    taught = {row.tobytes() for row in found.dataset.x[found.dataset.y == 1]}
    held = [{row.tobytes() for row in x[y == said]} for said in (0, 1)]
    assert taught | held[1] == {row.tobytes() for row in inverted}
    assert (len(taught), len(held[1])) == (8, 4)
    assert {row.tobytes() for row in odd} == held[0] | (learned & {row.tobytes() for row in odd})
    assert len(held[0]) == 2
    assert not learned & {row.tobytes() for row in digits.train[:90]}
    assert found.counts["read"] == back + len(labels)
    assert sum(found.counts.values()) == 2 * found.counts["read"]

    known, ranges = found.dataset.origin.known, found.ranges
    again = await taken(settings, "images", topic, ranges=ranges, known=known)
    assert again.sha256 == found.sha256
    few = settings.model_copy(update={"snapshot": settings.snapshot.model_copy(update={"older_labels": 7})})
    fewer = await taken(few, "images", topic)
    assert fewer.counts["labels_beyond"] == len(labels) - 7
    assert sorted(each.first for each in fewer.dataset.origin.known) == [41, *range(72, 78)]


async def test_of_single_observations_that_were_labelled_before_the_range_their_windows_are_made_again(
    client, stream_settings, flow
):
    back = 600
    settings = stream_settings(snapshot={"min_records": 100, "records_back": back}, sequence={"stride": 3})
    await ensure_topics(settings)
    topic = topic_of(settings, "sequences")
    streams = {"main": flow[:600], "branch": flow[600:1200]}
    # In turn, so that an even offset is of the one and an odd one of the other.
    records = [raw(streams[name][at], name, partition=2) for at in range(600) for name in streams]
    await asyncio.to_thread(client.publish, topic, records)
    strange = [*range(200, 212, 2), 301, 403]  # an incident, and two single ones; of the first record no window is made
    labels = [
        label(topic, offset, "anomaly", detector="sequences", stream=("main", "branch")[offset % 2], partition=2)
        for offset in (0, *strange)
    ]
    await asyncio.to_thread(client.publish, settings.topics.labels, published(labels))
    found = await taken(settings, "sequences", topic)

    def window(offset):
        rows, at = streams[("main", "branch")[offset % 2]], offset // 2
        return rows[at - WINDOW + 1 : at + 1].tobytes()

    assert found.ranges[2] == (len(records) - back, len(records))
    x, y = found.labelled
    taught = {row.tobytes() for row in found.dataset.x[found.dataset.y == 1]}
    held = {row.tobytes() for row in x[y == 1]}
    assert taught | held == {window(offset) for offset in strange}
    assert taught
    assert held
    incident = {window(offset) for offset in strange[:6]}
    assert incident <= taught or incident <= held
    assert not {row.tobytes() for row in found.dataset.x[found.dataset.clean]} & (taught | held)
    short = settings.model_copy(update={"snapshot": settings.snapshot.model_copy(update={"older_lead": 10})})
    none = await taken(short, "sequences", topic)
    assert none.dataset.y is None
    assert none.counts["incomplete"] == found.counts["incomplete"] + len(strange)


async def test_whole_windows_that_were_labelled_before_the_range_are_fetched_as_they_came(
    client, stream_settings, flow
):
    settings = stream_settings(snapshot={"min_records": 100, "records_back": 300})
    await ensure_topics(settings)
    topic = topic_of(settings, "sequences")
    windows = np.lib.stride_tricks.sliding_window_view(flow[:, 0], WINDOW)[:500, :, np.newaxis]
    await asyncio.to_thread(client.publish, topic, [raw(row, "main", partition=1) for row in windows])
    strange = (10, 11, 50, 90, 199)
    labels = [
        label(topic, at, "anomaly", detector="sequences", stream="main", partition=1) for at in (*strange, 250, 450)
    ]
    await asyncio.to_thread(client.publish, settings.topics.labels, published(labels))
    found = await taken(settings, "sequences", topic)
    x, y = found.labelled
    said = [*found.dataset.x[found.dataset.y == 1], *x[y == 1]]
    assert {row.tobytes() for row in said} == {windows[at].tobytes() for at in (*strange, 250, 450)}


async def test_too_little_is_refused_and_says_what_became_of_the_records(client, stream_settings, digits):
    settings = stream_settings(snapshot={"min_records": 200})
    await ensure_topics(settings)
    topic = topic_of(settings, "images")
    await asyncio.to_thread(client.publish, topic, [raw(row, "c", partition=0) for row in digits.normal[:100]])
    with pytest.raises(TrainingError, match=r"snapshot.min_records=200 are needed. Of 100 that were read .* 20 newest"):
        await taken(settings, "images", topic)
    with pytest.raises(TrainingError, match="0 normal records are left"):
        await taken(settings, "sequences", topic_of(settings, "sequences"))
