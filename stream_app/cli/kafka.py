"""What the commands do with the broker: a consumer without a group, and topics that must be there."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer

from stream_app.errors import UsageError
from stream_app.kafka import broker_errors, client_options, start
from stream_app.settings import KafkaSettings, Settings
from stream_app.topics import ensure_topics, list_topics, required_topics

MOST_NAMED = 20  # topics in an error
FETCH_WAIT_MS = 100  # the embedded broker keeps an idle fetch for a share of this even when a record comes in meanwhile


def silence_client() -> None:
    """Keeps aiokafka's own lines off the terminal: what matters of them reaches the user as an error of ours."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL + 1)


@asynccontextmanager
async def following(
    kafka: KafkaSettings, topics: Collection[str], *, from_beginning: bool = False
) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of all partitions of `topics`, in no group, standing at their ends (or beginnings).

    Raises UsageError for a topic that does not exist, BrokerUnavailable when no broker answers.
    """
    await require_topics(kafka, topics)
    consumer = AIOKafkaConsumer(
        *topics,
        **client_options(kafka),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest" if from_beginning else "latest",
        fetch_max_wait_ms=FETCH_WAIT_MS,
    )
    try:
        with broker_errors(kafka):
            await start(consumer)
            for partition in consumer.assignment():
                await consumer.position(partition)  # asks where it stands; what is written from now on is not missed
        yield consumer
    finally:
        await consumer.stop()


async def require_topics(kafka: KafkaSettings, topics: Collection[str]) -> None:
    """Raises UsageError for the first topic that does not exist."""
    existing = await list_topics(kafka)
    for topic in topics:
        if topic not in existing:
            known = [name for name in existing if not name.startswith("_")]
            some = ", ".join(known[:MOST_NAMED]) + (", …" if len(known) > MOST_NAMED else "")
            raise UsageError(f"topic {topic} does not exist on {kafka.bootstrap_servers}; there are: {some or 'none'}")


async def ensure_topic(settings: Settings, topic: str) -> list[str]:
    """Makes `topic`, and with one of our own the others too, where it is missing. Returns what was made.

    Raises UsageError for a missing topic where `kafka.create_topics` is off, and what `ensure_topics` raises.
    """
    if not settings.kafka.create_topics:
        await require_topics(settings.kafka, [topic])
        return []
    if topic in required_topics(settings):
        return await ensure_topics(settings)
    if topic in await list_topics(settings.kafka):
        return []
    # A topic of records for a worker with other routes: made as those of our own routes are.
    return await ensure_topics(settings.model_copy(update={"routes": {**settings.routes, topic: "none"}}))
