"""How we reach the Kafka broker, and which topics there must be.

Topics that are missing are made, so that a first start needs no administrator; where the broker's owner makes them,
`GANOMALY_KAFKA__CREATE_TOPICS=false` leaves them alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from aiokafka.helpers import create_ssl_context

from stream_app.errors import BrokerUnavailable, SettingsError
from stream_app.settings import KafkaSettings, Settings

COMPACTED = {"cleanup.policy": "compact"}


def kafka_client_options(kafka: KafkaSettings) -> dict[str, Any]:
    """Address, security and patience, as keyword arguments of every aiokafka client.

    Raises SettingsError when a certificate or a key can't be read.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": kafka.bootstrap_servers,
        "security_protocol": kafka.security_protocol,
        "request_timeout_ms": round(kafka.request_timeout * 1000),
    }
    if kafka.security_protocol.endswith("SSL"):
        options["ssl_context"] = _ssl_context(kafka)
    if kafka.security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = kafka.sasl_mechanism
        options["sasl_plain_username"] = kafka.sasl_username
        options["sasl_plain_password"] = kafka.sasl_password.get_secret_value() if kafka.sasl_password else None
    return options


def _ssl_context(kafka: KafkaSettings) -> SSLContext:
    files = {"ssl_cafile": kafka.ssl_cafile, "ssl_certfile": kafka.ssl_certfile, "ssl_keyfile": kafka.ssl_keyfile}
    try:
        context: SSLContext = create_ssl_context(
            cafile=kafka.ssl_cafile, certfile=kafka.ssl_certfile, keyfile=kafka.ssl_keyfile
        )
    except OSError as error:  # ssl.SSLError is one too, and neither says which file it is
        named = ", ".join(f"GANOMALY_KAFKA__{name.upper()}={path}" for name, path in files.items() if path)
        raise SettingsError(f"can't be read as PEM: {named}: {error}") from error
    return context


def required_topics(settings: Settings) -> dict[str, dict[str, str]]:
    """Every topic that the product reads or writes, and the configuration it must be made with."""
    topics = settings.topics
    plain = (*settings.routes, topics.alerts, topics.scores, topics.dead_letter, topics.labels)
    return {**{name: {} for name in plain}, topics.model_updates: COMPACTED}


async def list_topics(kafka: KafkaSettings) -> list[str]:
    """The names of all topics, sorted. Raises BrokerUnavailable when no broker answers."""
    async with _admin(kafka) as admin:
        return sorted(await admin.list_topics())


async def ensure_topics(settings: Settings) -> list[str]:
    """Makes the topics that are missing and returns their names, sorted; none with `create_topics` off.

    A topic that exists is left as it is, its number of partitions too. Raises BrokerUnavailable when no broker answers,
    or when it refuses.
    """
    if not settings.kafka.create_topics:
        return []
    async with _admin(settings.kafka) as admin:
        existing = set(await admin.list_topics())
        missing = {name: config for name, config in required_topics(settings).items() if name not in existing}
        if missing:
            await _create(admin, settings.kafka, missing)
    return sorted(missing)


@asynccontextmanager
async def _admin(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**kafka_client_options(kafka))
    try:
        await admin.start()
        yield admin
    except (KafkaError, OSError) as error:
        raise BrokerUnavailable(
            f"Kafka at {kafka.bootstrap_servers} (GANOMALY_KAFKA__BOOTSTRAP_SERVERS): {error!r}"
        ) from error
    finally:
        await admin.close()


async def _create(admin: AIOKafkaAdminClient, kafka: KafkaSettings, topics: dict[str, dict[str, str]]) -> None:
    response = await admin.create_topics(
        [
            NewTopic(name, kafka.partitions, kafka.replication_factor, topic_configs=config)
            for name, config in topics.items()
        ]
    )
    for name, code, *message in response.topic_errors:
        # Another process may have made it since we looked.
        if code not in (0, TopicAlreadyExistsError.errno):
            raise BrokerUnavailable(f"Kafka refused to make the topic {name}: {for_code(code).__name__} {message}")
