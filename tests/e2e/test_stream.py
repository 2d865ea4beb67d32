"""Records in, events out: the whole worker between a real broker and a real Redis, with a client that isn't ours."""

from __future__ import annotations

import asyncio
import io
import json
from collections import Counter, defaultdict

import aiohttp
import jsonschema
import numpy as np
import pytest
from PIL import Image

from model.registry import Registry
from stream_app.events import SCHEMA_FOLDER, event_id, rfc3339
from stream_app.offline import score_rows
from stream_app.topics import ensure_topics

RAW = ("content-type", b"application/octet-stream")
SCORE_SCHEMA = json.loads((SCHEMA_FOLDER / "score.schema.json").read_text())
ALERT_SCHEMA = json.loads((SCHEMA_FOLDER / "alert.schema.json").read_text())


def topics(settings):
    """The topics of pictures and of sequences."""
    return list(settings.routes)


def raw_picture(picture, **fields):
    return {"value": picture.tobytes(), "headers": [RAW], **fields}


def raw_window(window, **fields):
    shape = ",".join(map(str, window.shape)).encode()
    return {"value": window.tobytes(), "headers": [RAW, ("shape", shape), ("dtype", b"float32")], **fields}


def count(n):
    return lambda messages: len(messages) >= n


def bodies(messages):
    return [json.loads(message.value()) for message in messages]


async def read(client, *arguments):
    return await asyncio.to_thread(client.read, *arguments)


async def test_each_of_20000_offsets_is_scored_exactly_once_and_in_order(
    client, stream_settings, running_worker, digits, flow
):
    settings = stream_settings(scores={"publish": True})
    await ensure_topics(settings)
    images, sequences = topics(settings)
    windows = np.lib.stride_tricks.sliding_window_view(flow, 16, axis=0).swapaxes(1, 2)
    windows = np.ascontiguousarray(windows)
    pictures = digits.normal
    for topic, record in (
        (images, lambda i: raw_picture(pictures[i % len(pictures)])),
        (sequences, lambda i: raw_window(windows[i % len(windows)])),
    ):
        records = [record(i) | {"partition": i % 4, "key": f"stream-{i % 40}"} for i in range(10_000)]
        await asyncio.to_thread(client.publish, topic, records)
    async with running_worker(settings):
        messages = await read(client, settings.topics.scores, count(20_000))
        await asyncio.sleep(1.0)  # whatever came twice would be there by now
    messages = await read(client, settings.topics.scores, count(20_000))
    offsets = defaultdict(list)
    for event in bodies(messages):
        offsets[event["record"]["topic"], event["record"]["partition"]].append(event["record"]["offset"])
    assert offsets == {
        (topic, partition): list(range(2_500)) for topic in (images, sequences) for partition in range(4)
    }


def jpeg(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "jpeg", quality=95)
    return buffer.getvalue()


async def test_what_cant_be_scored_is_dead_lettered_with_its_bytes_and_its_reason(
    client, stream_settings, running_worker, digits
):
    settings = stream_settings(scores={"publish": True})
    await ensure_topics(settings)
    images, _ = topics(settings)
    good = digits.normal[0]
    floats = np.full((8, 8), np.nan, np.float32)
    shape = [("shape", b"8,8"), ("dtype", b"float32")]
    bad = [
        ({"value": jpeg(good)[:200], "headers": [("content-type", b"image/jpeg")]}, "DecodeError", "image/jpeg"),
        ({"value": b'{"data": [[1,', "headers": []}, "DecodeError", "not JSON"),
        (
            raw_picture(good) | {"headers": [RAW, ("shape", b"8,7")]},
            "ShapeError",
            "[8,7], but the detector takes [8,8,1]",
        ),
        ({"value": floats.tobytes(), "headers": [RAW, *shape]}, "ValueRangeError", "value nan at position 0"),
        (raw_picture(good) | {"headers": [RAW, ("x", b"y" * 20_000)]}, "LimitError", "limits.max_header_bytes=16384"),
        (raw_picture(good) | {"headers": [("content-type", b"text/html")]}, "ContentTypeError", "'text/html'"),
        ({"value": b"", "headers": [RAW]}, "DecodeError", "value: is empty"),
        ({"value": None, "headers": [RAW]}, "DecodeError", "value: is empty"),
    ]
    records = []
    for record, _, _ in bad:
        records += [raw_picture(good), record]
    records.append(raw_picture(good))
    await asyncio.to_thread(client.publish, images, [record | {"key": "cam", "partition": 2} for record in records])
    async with running_worker(settings):
        scored = await read(client, settings.topics.scores, count(len(bad) + 1))
        dead = await read(client, settings.topics.dead_letter, count(len(bad)))
    assert [event["record"]["offset"] for event in bodies(scored)] == list(range(0, len(records), 2))
    assert len(dead) == len(bad)
    for letter, (record, error, says), offset in zip(dead, bad, range(1, len(records), 2), strict=True):
        headers = dict(letter.headers())
        reason = {
            name.removeprefix("__connect.errors."): value.decode()
            for name, value in headers.items()
            if "connect" in name
        }
        assert (letter.value() or b"", letter.key()) == (record["value"] or b"", b"cam")
        assert headers.items() >= dict(record["headers"]).items()
        assert says in reason["exception.message"]
        assert reason == {
            "topic": images,
            "partition": "2",
            "offset": str(offset),
            "stage": "decode",
            "exception.class.name": error,
            "exception.message": reason["exception.message"],
        }


async def test_real_anomalies_become_alerts_that_fit_the_schema(client, stream_settings, running_worker, digits):
    settings = stream_settings(scores={"publish": True}, threshold={"target_rate": 0.02})
    await ensure_topics(settings)
    images, _ = topics(settings)
    pictures = [*digits.normal[:300], *digits.anomalous[:60]]
    await asyncio.to_thread(client.publish, images, [raw_picture(p, key="camera-1") for p in pictures])
    async with running_worker(settings):
        scores = bodies(await read(client, settings.topics.scores, count(len(pictures))))
        alerts = bodies(await read(client, settings.topics.alerts, count(1)))
    for event in scores:
        jsonschema.validate(event, SCORE_SCHEMA)
    for alert in alerts:
        jsonschema.validate(alert, ALERT_SCHEMA)
    found = Counter(event["record"]["offset"] >= 300 for event in scores if event["is_anomaly"])
    assert found[True] >= 20  # of 60 pictures of a digit that was never shown
    assert found[False] <= 24  # of 300 ordinary ones: four times the budget, with a model of a few seconds
    assert {alert["state"] for alert in alerts} <= {"open", "update", "close"}
    first, anomalous = alerts[0], [event["id"] for event in scores if event["is_anomaly"]]
    assert (first["state"], first["id"]) == ("open", anomalous[0])
    assert first["id"] == event_id("images", images, first["record"]["partition"], first["record"]["offset"])
    assert first["episode_id"] == first["id"]
    assert first["evidence"]["heat_map_png"]
    assert first["score"] > first["threshold"]


async def test_an_incident_is_a_handful_of_alerts_that_say_how_it_grew(client, stream_settings, running_worker, digits):
    settings = stream_settings(scores={"publish": True})
    await ensure_topics(settings)
    images, _ = topics(settings)
    incident = [255 - picture for picture in digits.normal[:100]] * 10
    pictures = [*digits.normal[:20], *incident, *digits.normal[20:80]]
    records = [
        {"value": p.tobytes(), "headers": [RAW, ("ce_time", rfc3339(1.7e9 + second).encode())], "key": "camera-1"}
        for second, p in enumerate(pictures)
    ]
    await asyncio.to_thread(client.publish, images, records)
    async with running_worker(settings):
        scores = bodies(await read(client, settings.topics.scores, count(len(pictures))))
        closed = lambda found: any(body["state"] == "close" for body in bodies(found))  # noqa: E731
        alerts = bodies(await read(client, settings.topics.alerts, closed))
    assert all(event["is_anomaly"] for event in scores[20:1020])
    of_incident = [alert for alert in alerts if 20 <= alert["record"]["offset"] < 1020]
    assert 2 <= len(of_incident) <= 12
    assert len({alert["episode_id"] for alert in of_incident}) == 1
    lengths = [alert["episode"]["anomalous"] for alert in of_incident]
    assert lengths == sorted(set(lengths))
    assert lengths[-1] > 250
    assert all(alert["state"] != "shift" for alert in alerts)


async def test_a_restarted_worker_goes_on_where_the_last_one_stopped(client, stream_settings, running_worker, digits):
    settings = stream_settings(scores={"publish": True})
    await ensure_topics(settings)
    images, _ = topics(settings)
    records = [raw_picture(p, key="camera-1") for p in digits.normal[:200]]
    await asyncio.to_thread(client.publish, images, records[:120])
    async with running_worker(settings) as first:
        await read(client, settings.topics.scores, count(120))
    assert first.exit_code == 0
    await asyncio.to_thread(client.publish, images, records[120:])
    async with running_worker(settings):
        events = bodies(await read(client, settings.topics.scores, count(200)))
    assert [event["record"]["offset"] for event in events] == list(range(200))
    learned = [event["policy"]["observations"] for event in events]
    assert learned == sorted(learned)
    assert learned[120] >= learned[119] > 0


async def test_single_observations_across_a_restart_score_like_the_whole_file(
    client, stream_settings, running_worker, flow, registry_url
):
    settings = stream_settings(scores={"publish": True})
    await ensure_topics(settings)
    _, sequences = topics(settings)
    whole = [raw_window(row, key="main", partition=0) for row in flow[:60]]
    await asyncio.to_thread(client.publish, sequences, whole[:40])
    async with running_worker(settings):
        await read(client, settings.topics.scores, count(40 - 15))
    await asyncio.to_thread(client.publish, sequences, whole[40:])
    async with running_worker(settings):
        events = bodies(await read(client, settings.topics.scores, count(60 - 15)))
    detector = Registry(registry_url).load("sequences")
    offline = {row.index: row.verdict.score for row in score_rows(detector, flow[:60], settings) if row.verdict}
    assert [event["record"]["offset"] for event in events] == list(offline)
    np.testing.assert_allclose([event["score"] for event in events], list(offline.values()), atol=1e-5)


async def test_a_route_without_a_champion_waits_and_starts_when_one_is_published(
    client, stream_settings, running_worker, digits, registry_url, tmp_path
):
    import shutil

    own = tmp_path / "models"
    shutil.copytree(f"{registry_url}/images", own / "images")
    settings = stream_settings(scores={"publish": True}, registry={"url": str(own)})
    await ensure_topics(settings)
    images, sequences = topics(settings)
    await asyncio.to_thread(client.publish, images, [raw_picture(digits.normal[0])])
    window = np.zeros((16, 1), np.float32)
    await asyncio.to_thread(client.publish, sequences, [raw_window(window)])
    async with running_worker(settings) as worker:
        await read(client, settings.topics.scores, count(1))
        async with aiohttp.ClientSession() as http:
            async with http.get(f"http://127.0.0.1:{worker.http.port}/readyz") as answer:
                ready = await answer.json()
                assert (answer.status, ready["waiting_for_champion"]) == (200, [sequences])
            async with http.get(f"http://127.0.0.1:{worker.http.port}/livez") as answer:
                assert answer.status == 200
            async with http.get(f"http://127.0.0.1:{worker.http.port}/metrics") as answer:
                assert f'ganomaly_records_scored_total{{topic="{images}"}}' in await answer.text()
        shutil.copytree(f"{registry_url}/sequences", own / "sequences")
        events = bodies(await read(client, settings.topics.scores, count(2)))
    assert {event["record"]["topic"] for event in events} == {images, sequences}


async def test_too_many_dead_letters_end_the_worker_and_commit_nothing_of_the_chunk(
    client, stream_settings, running_worker
):
    settings = stream_settings(dead_letter={"max_run": 5})
    await ensure_topics(settings)
    images, _ = topics(settings)
    await asyncio.to_thread(client.publish, images, [{"value": b"poison", "partition": 0}] * 20)
    from stream_app.worker import Worker

    for _ in range(2):  # nothing was committed, so a second worker meets the same records
        assert await asyncio.wait_for(Worker(settings).run(), 30) == 1
    with pytest.raises(AssertionError, match="0 messages"):
        client.read(settings.topics.dead_letter, count(1), 1.0)
