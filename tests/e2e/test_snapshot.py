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


def label(topic, offset, said):
    body = {"topic": topic, "partition": 0, "offset": offset, "stream": "camera", "label": said}
    identity = event_id("images", topic, 0, offset)
    return Label(id=identity, detector="images", at="2026-03-01T00:00:00.000Z", **body)


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
    messages = [{"value": encode(each), "key": "camera", "partition": 0} for each in labels]
    await asyncio.to_thread(client.publish, settings.topics.labels, messages)
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


async def test_too_little_is_refused_and_says_what_became_of_the_records(client, stream_settings, digits):
    settings = stream_settings(snapshot={"min_records": 200})
    await ensure_topics(settings)
    topic = topic_of(settings, "images")
    await asyncio.to_thread(client.publish, topic, [raw(row, "c", partition=0) for row in digits.normal[:100]])
    with pytest.raises(TrainingError, match=r"snapshot.min_records=200 are needed. Of 100 that were read .* 20 newest"):
        await taken(settings, "images", topic)
    with pytest.raises(TrainingError, match="0 normal records are left"):
        await taken(settings, "sequences", topic_of(settings, "sequences"))
