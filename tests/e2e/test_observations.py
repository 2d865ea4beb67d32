"""Single observations through a real worker: disorder, duplicates, holes, and a Redis that forgets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from redis import Redis

from model.registry import Registry
from stream_app.metrics import REGISTRY
from stream_app.offline import score_rows
from stream_app.topics import ensure_topics
from tests.e2e.conftest import WINDOW
from tests.e2e.test_stream import bodies, count, raw_window, read, topics

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)


def observation(row, minute, **fields):
    """A row of the series as JSON, of so many minutes after the beginning."""
    time = (BEGIN + timedelta(minutes=minute)).isoformat()
    values = [None if np.isnan(value) else float(value) for value in row]
    body = {"data": values, "timestamp": time}
    return {"value": json.dumps(body).encode(), "key": "main", "partition": 0, **fields}


def counted(name, topic):
    return REGISTRY.get_sample_value(f"ganomaly_{name}_total", {"topic": topic}) or 0.0


def windows_of(flow, ends):
    """The windows that end with these rows."""
    return np.stack([flow[end - WINDOW + 1 : end + 1] for end in ends])


def scores_of(registry_url, windows):
    return Registry(registry_url).load("sequences").score(np.ascontiguousarray(windows)).score


async def test_a_late_observation_gets_the_window_it_belongs_to_and_later_windows_hold_it(
    client, stream_settings, running_worker, flow, registry_url
):
    settings = stream_settings(scores={"publish": True}, sequence={"lateness": 600.0})
    await ensure_topics(settings)
    _, sequences = topics(settings)
    order = [*range(20), 21, 22, 20, 23, 24]  # row 20 comes two minutes late
    await asyncio.to_thread(client.publish, sequences, [observation(flow[row], row) for row in order])
    async with running_worker(settings):
        events = bodies(await read(client, settings.topics.scores, count(len(order) - WINDOW + 1)))
    by_offset = {event["record"]["offset"]: event["score"] for event in events}
    expected = scores_of(registry_url, windows_of(flow, [20, 23, 24]))
    np.testing.assert_allclose([by_offset[order.index(row)] for row in (20, 23, 24)], expected, atol=1e-5)
    assert len(by_offset) == len(order) - WINDOW + 1


async def test_what_is_too_late_or_from_the_future_is_dead_lettered_and_spoils_no_window(
    client, stream_settings, running_worker, flow, registry_url
):
    settings = stream_settings(scores={"publish": True}, sequence={"lateness": 60.0})
    await ensure_topics(settings)
    _, sequences = topics(settings)
    records = [observation(flow[row], row) for row in range(20)]
    records += [observation(flow[0], 5.5), observation(flow[0], 60 * 24 * 3650), observation(flow[0], -(60 * 24 * 365))]
    records += [observation(flow[row], row) for row in range(20, 24)]
    await asyncio.to_thread(client.publish, sequences, records)
    async with running_worker(settings):
        events = bodies(await read(client, settings.topics.scores, count(24 - WINDOW + 1)))
        dead = await read(client, settings.topics.dead_letter, count(3))
    np.testing.assert_allclose(
        [event["score"] for event in events], scores_of(registry_url, windows_of(flow, range(15, 24))), atol=1e-5
    )
    reasons = [dict(letter.headers())["__connect.errors.exception.message"].decode() for letter in dead]
    assert [reason.split(":")[0] for reason in reasons] == ["late", "ahead", "late"]
    assert "810 seconds older than the newest of stream 'main': more than sequence.lateness=60" in reasons[0]
    assert "more than sequence.max_ahead=86400" in reasons[1]


async def test_what_a_gateway_sends_again_and_a_clock_that_jumps_cost_a_stream_nothing(
    client, stream_settings, running_worker, flow, registry_url
):
    settings = stream_settings(scores={"publish": True})
    await ensure_topics(settings)
    _, sequences = topics(settings)
    sent = [observation(flow[row], row) for row in range(300)]
    jump = [observation(flow[300], 300 + 60 * 20)]  # its clock is 20 hours ahead
    after = [observation(flow[row], row) for row in range(301, 310)]
    await asyncio.to_thread(client.publish, sequences, [*sent, *sent, *jump, *after])
    async with running_worker(settings):
        events = bodies(await read(client, settings.topics.scores, count(310 - WINDOW + 1)))
        dead = await read(
            client, settings.topics.dead_letter, count(300 - WINDOW - settings.sequence.disorder)
        )  # more in a row than the fuse takes
    assert [event["record"]["offset"] for event in events] == [*range(WINDOW - 1, 300), *range(600, 610)]
    without = np.delete(flow[:310], 300, axis=0)
    expected = scores_of(registry_url, windows_of(without, range(300, 309)))
    np.testing.assert_allclose([event["score"] for event in events[-9:]], expected, atol=1e-5)
    assert {dict(letter.headers())["__connect.errors.exception.message"][:5] for letter in dead} == {b"late:"}
    assert counted("duplicates", sequences) == WINDOW + settings.sequence.disorder
    assert counted("clock_jumps", sequences) == 1


async def test_duplicates_are_dropped_and_counted(client, stream_settings, running_worker, flow, registry_url):
    settings = stream_settings(scores={"publish": True})
    await ensure_topics(settings)
    _, sequences = topics(settings)
    order = [row for row in range(24) for _ in range(1 + row % 2)]  # every second one comes twice
    await asyncio.to_thread(client.publish, sequences, [observation(flow[row], row) for row in order])
    async with running_worker(settings):
        events = bodies(await read(client, settings.topics.scores, count(24 - WINDOW + 1)))
        await asyncio.sleep(0.5)
    assert len(await read(client, settings.topics.scores, count(1))) == len(events)
    np.testing.assert_allclose(
        [event["score"] for event in events], scores_of(registry_url, windows_of(flow, range(15, 24))), atol=1e-5
    )
    assert counted("duplicates", sequences) == 12


async def test_after_a_gap_the_window_begins_anew(client, stream_settings, running_worker, flow):
    settings = stream_settings(scores={"publish": True}, sequence={"max_gap": 300.0})
    await ensure_topics(settings)
    _, sequences = topics(settings)
    minutes = [*range(20), *range(100, 120)]
    records = [observation(flow[row], minute) for row, minute in enumerate(minutes)]
    await asyncio.to_thread(client.publish, sequences, records)
    async with running_worker(settings):
        events = bodies(await read(client, settings.topics.scores, count(10)))
    assert [event["record"]["offset"] for event in events] == [*range(15, 20), *range(35, 40)]
    assert counted("windows_begun_anew", sequences) == 1


async def test_what_is_missing_is_masked_and_what_cant_be_an_observation_is_dead_lettered(
    client, stream_settings, running_worker, flow, registry_url
):
    settings = stream_settings(scores={"publish": True}, sequence={"max_missing": 1.0})
    await ensure_topics(settings)
    _, sequences = topics(settings)
    holed = flow[:24].copy()
    holed[18] = np.nan
    records = [observation(row, minute) for minute, row in enumerate(holed)]
    wrong_size = raw_window(np.zeros(3, np.float32), key="main", partition=0)
    not_finite = raw_window(np.full(1, np.nan, np.float32), key="main", partition=0)
    unknown = observation(flow[0], 24)
    unknown["value"] = json.dumps({"data": {"pressure": 1.0}}).encode()
    await asyncio.to_thread(client.publish, sequences, [*records, wrong_size, not_finite, unknown])
    async with running_worker(settings):
        events = bodies(await read(client, settings.topics.scores, count(24 - WINDOW + 1)))
        dead = await read(client, settings.topics.dead_letter, count(3))
    np.testing.assert_allclose(
        [event["score"] for event in events], scores_of(registry_url, windows_of(holed, range(15, 24))), atol=1e-5
    )
    says = [dict(letter.headers())["__connect.errors.exception.message"].decode() for letter in dead]
    assert "[3]" in says[0]
    assert "[1]" in says[0]
    assert "nan" in says[1]
    assert "pressure" in says[2]
    assert "flow" in says[2]


async def test_too_many_missing_values_are_dead_lettered(client, stream_settings, running_worker, flow):
    settings = stream_settings()
    await ensure_topics(settings)
    _, sequences = topics(settings)
    await asyncio.to_thread(client.publish, sequences, [observation(np.full(1, np.nan), 0)])
    async with running_worker(settings):
        (letter,) = await read(client, settings.topics.dead_letter, count(1))
    assert "sequence.max_missing=0.5" in dict(letter.headers())["__connect.errors.exception.message"].decode()


async def test_when_redis_has_forgotten_windows_are_read_again_and_thresholds_begin_cold(
    client, stream_settings, running_worker, flow, registry_url
):
    settings = stream_settings(scores={"publish": True}, threshold={"min_observations": 5})
    await ensure_topics(settings)
    _, sequences = topics(settings)
    records = [raw_window(row, key=f"main-{at % 2}", partition=0) for at, row in enumerate(np.repeat(flow[:60], 2, 0))]
    await asyncio.to_thread(client.publish, sequences, records[:100])
    async with running_worker(settings):
        before = bodies(await read(client, settings.topics.scores, count(2 * (50 - WINDOW + 1))))
    assert before[-1]["policy"]["warm"]
    with Redis.from_url(settings.redis.url.get_secret_value()) as redis:
        for key in redis.scan_iter(match=f"{settings.redis.prefix}:*"):
            redis.delete(key)
    await asyncio.to_thread(client.publish, sequences, records[100:])
    async with running_worker(settings):
        events = bodies(await read(client, settings.topics.scores, count(2 * (60 - WINDOW + 1))))[len(before) :]
    assert [event["record"]["offset"] for event in events] == list(range(100, 120))
    expected = np.repeat(scores_of(registry_url, windows_of(flow, range(50, 60))), 2)
    np.testing.assert_allclose([event["score"] for event in events], expected, atol=1e-5)
    assert [event["policy"]["warm"] for event in events[:2]] == [False, False]


async def test_redis_flushed_under_a_running_worker_costs_no_stream_its_threshold_and_none_its_window(
    client, stream_settings, running_worker, flow, registry_url, servers
):
    own = servers.redis.url.get_secret_value().rsplit("/", 1)[0] + "/9"  # a database that may be flushed
    settings = stream_settings(
        scores={"publish": True}, redis={"url": own}, sequence={"max_streams": 8}, kafka={"partitions": 1}
    )
    await ensure_topics(settings)
    _, sequences = topics(settings)

    def publish(names, rows):
        records = [raw_window(flow[row], key=name, partition=0) for row in rows for name in names]
        return asyncio.to_thread(client.publish, sequences, records)

    stays, leaves = [f"stays-{i}" for i in range(8)], ["leaves-0", "leaves-1"]
    async with running_worker(settings):
        await publish(leaves, range(20))
        await read(client, settings.topics.scores, count(10))
        await publish(stays, range(20))
        await read(client, settings.topics.scores, count(50))
        async with asyncio.timeout(10):
            while REGISTRY.get_sample_value("ganomaly_streams", {"topic": sequences}) != len(stays):
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)  # another commit
        with Redis.from_url(own) as redis:
            redis.flushdb()
        await publish(stays[:1], range(20, 22))  # one stream is touched, and a commit notices
        await read(client, settings.topics.scores, count(52))
        async with asyncio.timeout(10):
            while counted("states_lost", sequences) < 1:
                await asyncio.sleep(0.05)
        await publish(leaves, range(20, 22))
        await read(client, settings.topics.scores, count(56))
    await publish([*stays[1:], *leaves], range(22, 24))
    async with running_worker(settings):
        events = bodies(await read(client, settings.topics.scores, count(74)))
    by_stream = {name: [event for event in events if event["stream"] == name] for name in [*stays, *leaves]}
    last = scores_of(registry_url, windows_of(flow, [22, 23]))
    for name in leaves:  # rows 20 to 23 had their windows: what came before was read again
        np.testing.assert_allclose([event["score"] for event in by_stream[name][-2:]], last, atol=1e-5)
        assert len(by_stream[name]) == 9
        assert by_stream[name][-1]["policy"]["observations"] <= 3  # their thresholds were lost, and that was said
    for name in stays[1:]:
        assert len(by_stream[name]) == 7
        assert by_stream[name][-1]["policy"]["observations"] == 6
    assert counted("states_lost", sequences) == 1


class Relay:
    """A way to Redis that can be closed."""

    def __init__(self, url):
        self._host, _, port = url.rpartition("@")[2].removeprefix("redis://").partition("/")[0].partition(":")
        self._port = int(port or 6379)
        self._wires = []
        self.is_open = True

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *_):
        self.close()
        self._server.close()

    def close(self):
        self.is_open = False
        for wire in self._wires:
            wire.transport.abort()

    async def _forward(self, reader, writer):
        if not self.is_open:
            writer.close()
            return
        up_reader, up_writer = await asyncio.open_connection(self._host, self._port)
        self._wires += [writer, up_writer]
        await asyncio.gather(self._pump(reader, up_writer), self._pump(up_reader, writer))

    async def _pump(self, reader, writer):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()


@pytest.mark.skipif("GANOMALY_REDIS__URL" in os.environ, reason="the relay speaks to a Redis without password and TLS")
async def test_a_redis_that_was_away_until_the_worker_ended_leaves_no_hole_in_a_window(
    client, stream_settings, running_worker, flow, registry_url, servers
):
    async with Relay(servers.redis.url.get_secret_value()) as relay:
        settings = stream_settings(
            scores={"publish": True}, redis={"url": relay.url, "retry_after": 0.1}, kafka={"partitions": 1}
        )
        await ensure_topics(settings)
        _, sequences = topics(settings)

        def publish(name, rows):
            return asyncio.to_thread(
                client.publish, sequences, [raw_window(flow[row], key=name, partition=0) for row in rows]
            )

        async with running_worker(settings):
            await publish("old", range(20))
            await read(client, settings.topics.scores, count(5))
            await asyncio.sleep(0.5)  # a commit
            relay.close()
            await publish("old", range(20, 30))
            await publish("new", range(20))
            await read(client, settings.topics.scores, count(20))
            async with asyncio.timeout(10):
                while REGISTRY.get_sample_value("ganomaly_degraded") != 1:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)  # another commit
        relay.is_open = True
        await publish("old", range(30, 33))
        await publish("new", range(20, 23))
        async with running_worker(settings):
            events = bodies(await read(client, settings.topics.scores, count(26)))[20:]
    assert [event["record"]["offset"] for event in events] == list(range(50, 56))  # all others were committed
    scores = {name: [event["score"] for event in events if event["stream"] == name] for name in ("old", "new")}
    np.testing.assert_allclose(scores["old"], scores_of(registry_url, windows_of(flow, range(30, 33))), atol=1e-5)
    np.testing.assert_allclose(scores["new"], scores_of(registry_url, windows_of(flow, range(20, 23))), atol=1e-5)
    assert counted("states_behind", sequences) == 1


async def test_a_stream_that_left_the_memory_comes_back_with_its_window(
    client, stream_settings, running_worker, flow, registry_url
):
    settings = stream_settings(scores={"publish": True}, sequence={"max_streams": 4})
    await ensure_topics(settings)
    _, sequences = topics(settings)

    def of(stream, rows):
        return [raw_window(row, key=stream, partition=0) for row in rows]

    async with running_worker(settings):
        await asyncio.to_thread(client.publish, sequences, of("first", flow[:20]))
        await read(client, settings.topics.scores, count(5))
        for other in range(3):  # more than the partition's share of four, one after the other
            await asyncio.to_thread(client.publish, sequences, of(f"other-{other}", flow[:16]))
            await read(client, settings.topics.scores, count(6 + other))
            await asyncio.sleep(0.5)  # a commit
        topic_streams = REGISTRY.get_sample_value("ganomaly_streams", {"topic": sequences})
        await asyncio.to_thread(client.publish, sequences, of("first", flow[20:30]))
        events = bodies(await read(client, settings.topics.scores, count(18)))
    assert topic_streams == 1
    back = [event for event in events if event["stream"] == "first"]
    offline = score_rows(Registry(registry_url).load("sequences"), flow[:30], settings)
    expected = [row.verdict.score for row in offline if row.verdict]
    np.testing.assert_allclose([event["score"] for event in back], expected, atol=1e-5)


@pytest.mark.parametrize("content", ["application/json"])
async def test_cloud_events_in_binary_mode_bring_their_time_and_id(
    content, client, stream_settings, running_worker, flow
):
    settings = stream_settings(scores={"publish": True})
    await ensure_topics(settings)
    _, sequences = topics(settings)
    records = [
        {
            "value": json.dumps(row.tolist()).encode(),
            "key": "main",
            "headers": [
                ("ce_specversion", b"1.0"),
                ("ce_type", b"flow"),
                ("ce_source", b"/main"),
                ("ce_id", f"id-{minute}".encode()),
                ("ce_time", (BEGIN + timedelta(minutes=minute)).isoformat().encode()),
                ("content-type", content.encode()),
            ],
        }
        for minute, row in enumerate(flow[:WINDOW])
    ]
    await asyncio.to_thread(client.publish, sequences, records)
    async with running_worker(settings):
        (event,) = bodies(await read(client, settings.topics.scores, count(1)))
    assert event["record"]["id"] == f"id-{WINDOW - 1}"
    assert event["record"]["timestamp"] == "2026-03-01T00:15:00.000Z"
