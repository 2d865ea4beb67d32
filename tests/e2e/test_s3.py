"""The registry in a bucket: a worker takes from it what is promoted there, and goes back to what it had."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import defaultdict
from itertools import groupby
from uuid import uuid4

import pytest

from model.registry import Registry
from stream_app.topics import ensure_topics
from tests.e2e.test_faults import free_port
from tests.e2e.test_faults import worker_process as worker_process
from tests.e2e.test_stream import bodies, count, read, topics
from tests.e2e.test_swaps import PARTITIONS, another, flow_of, version_of

PATIENCE = 90.0  # seconds; processes begin, each with torch
SOON = 5.0  # seconds from the end of a command to when the version is in service
COMMAND = [sys.executable, "-c", "from stream_app.cli.main import main; main()", "models"]
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def bucket(s3, registry_url) -> str:
    """URL of a registry in a bucket, with a detector of pictures in service."""
    url = f"{s3}/{uuid4().hex}"
    source, registry = Registry(registry_url), Registry(url)
    version = source.champion("images")
    registry.store("images", version, source.fetch("images", version))
    registry.promote("images", version)
    return url


async def test_a_worker_follows_a_promotion_and_a_rollback_in_a_bucket_and_scores_every_record_once(
    client, stream_settings, environment_of, worker_process, digits, bucket
):
    registry = Registry(bucket)
    old, new = registry.champion("images"), another(registry)
    port = free_port()
    # The worker polls too rarely to notice by itself: the topic of updates tells it.
    settings = stream_settings(registry={"url": bucket, "poll_interval": 600.0}, scores={"publish": True})
    settings = settings.model_copy(update={"http": settings.http.model_copy(update={"port": port})})
    await ensure_topics(settings)
    images, _ = topics(settings)

    async def until_in_service(version, seconds):
        deadline = time.monotonic() + seconds
        while await asyncio.to_thread(version_of, port) != version:
            assert time.monotonic() < deadline, f"{version} is not in service after {seconds} s"
            await asyncio.sleep(0.05)

    async def change(*arguments):
        done = await asyncio.to_thread(
            subprocess.run, [*COMMAND, *arguments], env=environment_of(settings), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr

    worker_process(settings)
    await until_in_service(old, PATIENCE)
    async with flow_of(client, images, digits.normal) as published:
        await read(client, settings.topics.scores, count(200))
        for arguments, version in ((("promote", "images", new), new), (("rollback", "images"), old)):
            await change(*arguments)
            await until_in_service(version, SOON)
            there = len(published)
            await read(client, settings.topics.scores, count(there + 200), PATIENCE)
    events = bodies(await read(client, settings.topics.scores, count(len(published)), PATIENCE))

    scored = defaultdict(list)
    for event in events:
        scored[event["record"]["partition"]].append((event["record"]["offset"], event["model"]))
    assert set(scored) == set(range(PARTITIONS))
    digests = {version: registry.manifest("images", version).sha256 for version in (old, new)}
    for of_partition in scored.values():
        in_order = sorted(of_partition, key=lambda each: each[0])
        assert [offset for offset, _ in in_order] == list(range(len(published) // PARTITIONS))
        versions = [version for version, _ in groupby(model["version"] for _, model in in_order)]
        assert versions == [old, new, old]
        assert all(model["sha256"] == digests[model["version"]] for _, model in in_order)
