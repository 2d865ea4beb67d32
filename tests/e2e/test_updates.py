"""Model updates on a real broker: who publishes one, and who hears of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import UTC, datetime

import pytest
from jsonschema import Draft202012Validator

from model.lineage import Promotion
from stream_app import metrics
from stream_app.errors import BrokerUnavailable
from stream_app.events import SCHEMA_FOLDER
from stream_app.local import EmbeddedServers
from stream_app.settings import KafkaSettings, Settings
from stream_app.topics import ensure_topics
from stream_app.updates import ModelUpdate, follow_updates, publish_update, update_of

SCHEMA = json.loads((SCHEMA_FOLDER / "model-update.schema.json").read_text())
PATIENCE = 60.0  # seconds


def update(version: str, action: str = "promote", detector: str = "images") -> ModelUpdate:
    return ModelUpdate(
        detector=detector, version=version, sha256="ab" * 32, action=action, at="2026-05-01T00:00:00.000Z", by="ada"
    )


@contextlib.asynccontextmanager
async def following(settings: Settings):
    """What was heard so far, and a way to wait for so many."""
    heard: list[ModelUpdate] = []

    async def follow():
        async for each in follow_updates(settings):
            heard.append(each)  # noqa: PERF401  # there is no end of them

    async def wait_for(count: int) -> list[ModelUpdate]:
        async with asyncio.timeout(PATIENCE):
            while len(heard) < count:
                assert not task.done()
                await asyncio.sleep(0.02)
        return heard

    task = asyncio.create_task(follow())
    try:
        yield wait_for
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_updates_are_heard_from_the_beginning_and_then_as_they_come(settings_factory, client):
    settings = settings_factory()
    await ensure_topics(settings)
    for each in (update("v1"), update("v2", "shadow")):
        await publish_update(settings, each)
    async with following(settings) as wait_for:
        heard = await wait_for(2)
        assert sorted(each.version for each in heard) == ["v1", "v2"]
        await publish_update(settings, update("v0", "rollback"))
        assert (await wait_for(3))[2] == update("v0", "rollback")
    messages = client.read(settings.topics.model_updates, lambda found: len(found) == 3)
    keys = {(message.key(), json.loads(message.value())["version"]) for message in messages}
    assert keys == {(b"images", "v1"), (b"images/shadow", "v2"), (b"images", "v0")}
    for message in messages:
        Draft202012Validator(SCHEMA).validate(json.loads(message.value()))


async def test_updates_of_a_detector_are_heard_in_their_order_by_all(settings_factory):
    settings = settings_factory()
    updates = [update(f"v{number}", "promote" if number % 2 else "rollback") for number in range(6)]
    async with following(settings) as one, following(settings) as other:
        for each in updates:
            await publish_update(settings, each)
        assert await one(6) == updates
        assert await other(6) == updates


async def test_what_is_no_update_is_skipped(settings_factory, client):
    settings = settings_factory()
    await ensure_topics(settings)
    text = update("v1", "shadow").model_dump_json()
    no_time = text.replace("2026-05-01T00:00:00", "2026-13-45T99:99:99")
    wrong = [b"{", b"{}", text.replace("shadow", "explode").encode(), no_time.encode(), None]
    skipped = metrics.REGISTRY.get_sample_value("ganomaly_model_updates_unreadable_total")
    topic = settings.topics.model_updates
    await asyncio.to_thread(client.publish, topic, [{"key": b"images", "value": value} for value in wrong])
    await publish_update(settings, update("v2"))
    async with following(settings) as wait_for:
        assert await wait_for(1) == [update("v2")]
    counted = metrics.REGISTRY.get_sample_value("ganomaly_model_updates_unreadable_total")
    assert counted - skipped == 4  # a deleted key is none of them


def test_it_waits_for_a_broker_that_is_away():
    # A broker of its own, which is taken away while others run: hence no shared loop.
    servers = EmbeddedServers()
    servers.start()
    settings = servers.settings
    servers.stop()

    async def run():
        async with following(settings) as wait_for:
            await asyncio.sleep(0.5)
            await asyncio.to_thread(servers.start)
            await publish_update(settings, update("v1"))
            await wait_for(1)
            await asyncio.to_thread(servers.stop)
            await asyncio.to_thread(servers.start)  # with nothing in it, at the same address
            for version in ("v2", "v3"):
                await publish_update(settings, update(version))
            assert (await wait_for(2))[-1].version in ("v2", "v3")

    try:
        asyncio.run(run())
    finally:
        servers.stop()


async def test_a_broker_that_is_not_there_is_an_error_of_the_publisher():
    settings = Settings(kafka=KafkaSettings(bootstrap_servers="127.0.0.1:1", request_timeout=1.0))
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1"):
        await publish_update(settings, update("v1"))


def test_an_update_says_what_the_lineage_says():
    promotion = Promotion(
        at=datetime(2026, 5, 1, 12, tzinfo=UTC),
        version="v1",
        replaced="v2",
        action="rollback",
        by="bob",
        reason="noise",
    )
    assert update_of("images", promotion, "ab" * 32) == ModelUpdate(
        detector="images",
        version="v1",
        sha256="ab" * 32,
        action="rollback",
        at="2026-05-01T12:00:00.000Z",
        by="bob",
        reason="noise",
    )
