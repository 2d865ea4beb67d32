"""Topics that are missing are made, on a real broker; what is there stays as it is."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import NewTopic

from stream_app.cli.checks import State, check_kafka
from stream_app.errors import BrokerUnavailable, TopicUnavailable
from stream_app.kafka import admin, client_options
from stream_app.settings import KafkaSettings
from stream_app.topics import ensure_topics, list_topics, required_topics, topic_config


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


async def test_model_updates_are_compacted_and_labels_are_kept_for_ever(settings_factory):
    settings = settings_factory()
    await ensure_topics(settings)
    topics = settings.topics
    assert (await topic_config(settings.kafka, topics.model_updates))["cleanup.policy"] == "compact"
    assert (await topic_config(settings.kafka, topics.alerts)).get("cleanup.policy") != "compact"
    assert (await topic_config(settings.kafka, topics.labels))["retention.ms"] == "-1"


@pytest.mark.parametrize(("kept", "is_noted"), [(7 * 86400, True), (30 * 86400, False)])
def test_doctor_notes_a_topic_of_labels_that_keeps_them_for_less_than_they_count(settings_factory, kept, is_noted):
    settings = settings_factory()
    topic = settings.topics.labels

    async def make():
        async with admin(settings.kafka) as client:
            await client.create_topics([NewTopic(topic, 1, 1, topic_configs={"retention.ms": str(kept * 1000)})])

    asyncio.run(make())
    notes = [found for found in check_kafka(settings) if found.check == f"topic {topic}"]
    assert [found.state for found in notes] == [State.NOTE] * is_noted
    for found in notes:
        assert "retention.ms=604800000" in found.message
        assert f"--entity-name {topic} --add-config retention.ms=-1" in found.mend


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
