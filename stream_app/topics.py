"""Which topics there must be.

Topics that are missing are made, so that a first start needs no administrator; where the broker's owner makes them,
`GANOMALY_KAFKA__CREATE_TOPICS=false` leaves them alone.
"""

from __future__ import annotations

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code

from stream_app.errors import TopicUnavailable
from stream_app.kafka import admin
from stream_app.settings import KafkaSettings, Settings

COMPACTED = {"cleanup.policy": "compact"}  # of each key the newest, for ever: retention.ms does not count
KEPT = {"retention.ms": "-1"}  # Kafka deletes after 7 days otherwise, and what people said is not said again


def required_topics(settings: Settings) -> dict[str, dict[str, str]]:
    """Every topic that the product reads or writes, and the configuration it must be made with."""
    topics = settings.topics
    plain = (*settings.routes, topics.alerts, topics.scores, topics.dead_letter)
    return {**{name: {} for name in plain}, topics.labels: KEPT, topics.model_updates: COMPACTED}


async def list_topics(kafka: KafkaSettings) -> list[str]:
    """The names of all topics, sorted. Raises BrokerUnavailable when no broker answers."""
    async with admin(kafka) as client:
        return sorted(await client.list_topics())


async def describe_topics(kafka: KafkaSettings) -> dict[str, int]:
    """All topics and their numbers of partitions. Raises BrokerUnavailable when no broker answers."""
    async with admin(kafka) as client:
        return {topic["topic"]: len(topic["partitions"]) for topic in await client.describe_topics()}


async def topic_config(kafka: KafkaSettings, topic: str) -> dict[str, str]:
    """The configuration of a topic, as far as the broker tells it; empty where it may not be asked.

    Raises BrokerUnavailable when no broker answers.
    """
    async with admin(kafka) as client:
        [response] = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {})])
    [resource] = response.to_object()["resources"]
    entries = ((entry["config_names"], entry["config_value"]) for entry in resource["config_entries"])
    return {name: value for name, value in entries if value is not None}


def why_labels_are_lost(config: dict[str, str], horizon: float) -> str | None:
    """Why the topic of labels, of this configuration, does not keep them for `horizon` seconds; None where it does."""
    if "compact" in config.get("cleanup.policy", ""):
        return f"cleanup.policy={config['cleanup.policy']} keeps the newest label of a stream alone"
    kept = float(config.get("retention.ms", -1)) / 1000.0
    if 0.0 <= kept < horizon:
        return (
            f"retention.ms={config['retention.ms']} keeps labels for {kept:.0f} s, and they count for {horizon:.0f} s"
        )
    return None


async def ensure_topics(settings: Settings) -> list[str]:
    """Makes the topics that are missing and returns their names, sorted; none with `create_topics` off.

    A topic that exists is left as it is, its number of partitions too. Raises BrokerUnavailable when no broker answers,
    TopicUnavailable when it refuses to make one.
    """
    if not settings.kafka.create_topics:
        return []
    async with admin(settings.kafka) as client:
        existing = set(await client.list_topics())
        missing = {name: config for name, config in required_topics(settings).items() if name not in existing}
        if missing:
            await _create(client, settings.kafka, missing)
    return sorted(missing)


async def _create(client: AIOKafkaAdminClient, kafka: KafkaSettings, topics: dict[str, dict[str, str]]) -> None:
    response = await client.create_topics(
        [
            NewTopic(name, kafka.partitions, kafka.replication_factor, topic_configs=config)
            for name, config in topics.items()
        ]
    )
    for name, code, *message in response.topic_errors:
        # Another process may have made it since we looked.
        if code not in (0, TopicAlreadyExistsError.errno):
            why = ": ".join([for_code(code).__name__, *(text for text in message if text)])
            raise TopicUnavailable(f"Kafka at {kafka.bootstrap_servers} refused to make the topic {name}: {why}")
