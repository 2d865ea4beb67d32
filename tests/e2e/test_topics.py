"""Topics that are missing are made, on a real broker; what is there stays as it is."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from stream_app.errors import BrokerUnavailable, TopicUnavailable
from stream_app.kafka import admin, client_options
from stream_app.settings import KafkaSettings
from stream_app.topics import ensure_topics, list_topics, required_topics


async def test_missing_topics_are_made_once(settings_factory):
    settings = settings_factory()
    assert await ensure_topics(settings) == sorted(required_topics(settings))
    assert await ensure_topics(settings) == []
    assert set(required_topics(settings)) <= set(await list_topics(settings.kafka))


async def test_a_topic_that_exists_keeps_its_partitions(settings_factory):
    await ensure_topics(settings_factory(kafka={"partitions": 2}))
    settings = settings_factory(kafka={"partitions": 5})
    await ensure_topics(settings)
    async with AIOKafkaConsumer(settings.topics.alerts, **client_options(settings.kafka)) as consumer:
        assert consumer.partitions_for_topic(settings.topics.alerts) == {0, 1}


async def test_two_that_start_at_once_do_not_fail_each_other(settings_factory):
    settings = settings_factory()
    made = await asyncio.gather(*(ensure_topics(settings) for _ in range(4)))
    assert set().union(*made) == set(required_topics(settings))


async def test_model_updates_are_compacted_and_records_are_not(settings_factory):
    settings = settings_factory()
    await ensure_topics(settings)
    async with admin(settings.kafka) as client:
        assert await policy_of(client, settings.topics.model_updates) == "compact"
        assert await policy_of(client, settings.topics.alerts) != "compact"


async def policy_of(client: AIOKafkaAdminClient, topic: str) -> str | None:
    [response] = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {})])
    entries = response.to_object()["resources"][0]["config_entries"]
    return next((entry["config_value"] for entry in entries if entry["config_names"] == "cleanup.policy"), None)


async def test_nothing_is_made_where_the_settings_say_so(settings_factory):
    settings = settings_factory(kafka={"create_topics": False})
    assert await ensure_topics(settings) == []
    assert not set(required_topics(settings)) & set(await list_topics(settings.kafka))


@pytest.mark.apache_kafka
async def test_what_the_broker_refuses_is_reported(settings_factory):
    settings = settings_factory(topics={"alerts": "not a topic's name!"})
    with pytest.raises(TopicUnavailable, match="not a topic's name!"):
        await ensure_topics(settings)


async def test_a_broker_that_is_not_there_is_named_with_its_setting():
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1 \(GANOMALY_KAFKA__BOOTSTRAP_SERVERS\)"):
        await list_topics(KafkaSettings(bootstrap_servers="127.0.0.1:1", request_timeout=1.0))
