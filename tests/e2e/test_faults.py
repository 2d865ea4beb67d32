"""What can't be blamed on a record ends the worker; whatever ended it, no record is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict

import numpy as np
import pytest

from stream_app.local import EmbeddedServers
from stream_app.settings import Settings
from stream_app.topics import ensure_topics
from stream_app.worker import Worker
from tests.e2e.test_stream import bodies, count, raw_picture, read, topics

RECORDS = 20_000


class RaisingScorer:
    """A device that fails."""

    name, version, sha256 = "images", "faulty", "0" * 64

    def score(self, inputs):
        raise RuntimeError("device lost")

    def localize(self, inputs):
        raise RuntimeError("device lost")


class HangingScorer(RaisingScorer):
    """A device that doesn't come back."""

    def score(self, inputs):
        time.sleep(6)
        return super().score(inputs)


def offsets_of(events):
    found = defaultdict(list)
    for event in events:
        found[event["record"]["partition"]].append(event["record"]["offset"])
    return found


async def run_with(settings, scorer, publish):
    """Runs a worker whose detector of pictures is `scorer` until it ends, and publishes to it; the exit code."""
    worker = Worker(settings)
    running = asyncio.create_task(worker.run())
    while not worker.health().scoring:
        await asyncio.sleep(0.01)
    worker.scoring.use("images", scorer)
    await asyncio.to_thread(publish)  # not before, or the sound scorer may have been through with them
    return await asyncio.wait_for(running, 30)


@pytest.mark.parametrize("scorer", [RaisingScorer(), HangingScorer()], ids=["raises", "hangs"])
async def test_a_scorer_that_fails_ends_the_worker_and_its_records_come_again(
    scorer, client, stream_settings, running_worker, digits
):
    settings = stream_settings(scores={"publish": True}, worker={"score_timeout": 1.0})
    await ensure_topics(settings)
    images, _ = topics(settings)
    pictures = [digits.normal[i % len(digits.normal)] for i in range(1_000)]
    records = [raw_picture(picture, partition=0) for picture in pictures]
    started = time.monotonic()
    assert await run_with(settings, scorer, lambda: client.publish(images, records)) == 1
    assert time.monotonic() - started < 15
    async with running_worker(settings):
        events = bodies(await read(client, settings.topics.scores, count(1_000)))
    assert offsets_of(events) == {0: list(range(1_000))}


@pytest.fixture
def worker_process(environment_of, tmp_path):
    """Starts workers as processes of their own, with their log in a file."""
    processes = []

    def start(settings):
        with (tmp_path / f"worker-{len(processes)}.log").open("wb") as log:
            command = [sys.executable, "-c", "from stream_app.cli.main import main; main()", "worker"]
            process = subprocess.Popen(command, env=environment_of(settings), stderr=log)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


async def publish_pictures(client, settings, digits):
    await ensure_topics(settings)
    images, _ = topics(settings)
    pictures = digits.normal
    records = [raw_picture(pictures[i % len(pictures)], key=f"cam-{i % 20}", partition=i % 4) for i in range(RECORDS)]
    await asyncio.to_thread(client.publish, images, records)


async def until_scored(client, settings, more):
    """Returns when so many more records are scored."""
    wanted = client.count(settings.topics.scores) + more
    async with asyncio.timeout(60):
        while client.count(settings.topics.scores) < wanted:
            await asyncio.sleep(0.02)
    assert client.count(settings.topics.scores) < RECORDS  # still in full flow


async def test_sigterm_in_full_flow_ends_with_0_and_nothing_is_scored_twice(
    client, stream_settings, worker_process, digits
):
    settings = stream_settings(scores={"publish": True}, batch={"max_batch": 16})  # slow, so that the flow lasts
    await publish_pictures(client, settings, digits)
    for _ in range(2):
        process = worker_process(settings)
        await until_scored(client, settings, 500)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 10) == 0
    worker_process(settings)
    events = bodies(await read(client, settings.topics.scores, count(RECORDS)))
    assert offsets_of(events) == {partition: list(range(RECORDS // 4)) for partition in range(4)}


async def test_after_sigkill_nothing_is_lost_and_what_comes_twice_is_the_same(
    client, stream_settings, worker_process, digits
):
    settings = stream_settings(scores={"publish": True}, batch={"max_batch": 16})
    await publish_pictures(client, settings, digits)
    for _ in range(3):
        process = worker_process(settings)
        await until_scored(client, settings, 500)
        process.kill()
        process.wait()
    worker_process(settings)

    def complete(messages):
        return len(messages) >= RECORDS and len({json.loads(m.value())["id"] for m in messages}) == RECORDS

    events = bodies(await read(client, settings.topics.scores, complete))
    places, scores = defaultdict(set), defaultdict(list)
    for event in events:
        places[event["id"]].add((event["record"]["partition"], event["record"]["offset"]))
        scores[event["id"]].append(event["score"])
    assert max(map(len, places.values())) == 1
    assert max(max(same) - min(same) for same in scores.values()) < 1e-3
    everything = {(partition, offset) for partition in range(4) for offset in range(RECORDS // 4)}
    assert set().union(*places.values()) == everything


def test_a_broker_that_is_gone_for_good_ends_the_worker(registry_url, worker_process):
    with EmbeddedServers() as servers:
        settings = Settings.model_validate(
            servers.settings.model_dump()
            | {
                "kafka": servers.settings.kafka.model_dump() | {"session_timeout": 2.0, "unreachable_limit": 3.0},
                "registry": {"url": registry_url},
                "http": {"port": free_port()},
            }
        )
        process = worker_process(settings)
        until_ready(settings)
    started = time.monotonic()
    assert process.wait(30) == 1
    assert time.monotonic() - started < 20


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until_ready(settings, timeout=30.0):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{settings.http.port}/readyz", timeout=1)
            return
        time.sleep(0.05)
    pytest.fail("the worker is not ready")


async def test_without_redis_records_are_scored_and_events_say_degraded(
    client, stream_settings, running_worker, digits
):
    settings = stream_settings(scores={"publish": True}, redis={"url": "redis://127.0.0.1:9/0", "timeout": 0.2})
    await ensure_topics(settings)
    images, _ = topics(settings)
    await asyncio.to_thread(client.publish, images, [raw_picture(p, partition=1) for p in digits.normal[:100]])
    async with running_worker(settings):
        events = bodies(await read(client, settings.topics.scores, count(100)))
    assert offsets_of(events) == {1: list(range(100))}
    assert {event["degraded"] for event in events} == {True}
    assert np.isfinite([event["threshold"] for event in events]).all()
