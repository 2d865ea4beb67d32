"""The Faust app: one agent a topic, handing chunks to the pipeline; and its producer. The only file that builds it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol

import faust
from faust.types import TP
from faust.types.auth import SASLMechanism
from yarl import URL

from stream_app.errors import TopicUnavailable
from stream_app.kafka import ssl_context
from stream_app.records import Chunk, TopicPartition
from stream_app.settings import KafkaSettings, Settings
from stream_app.transport import ChunkSchema, RecordStream, bind, check_faust

_STREAM_BUFFER_CHUNKS = 8  # the default of 4,096 is meant for records, not for chunks of them
_MAX_REQUEST = 1 << 30  # how large a dead letter may be is the broker's to say
_MAX_POLL_INTERVAL = 1000.0  # scoring has a watchdog of its own; a worker evicted by this one stalls for good


class ChunkSink(RecordStream, Protocol):
    """The pipeline, as the app sees it."""

    def put(self, chunk: Chunk) -> None:
        """Takes a chunk."""
        ...


class App(faust.App):
    """Faust's app, without the folders that it makes for tables: there are none."""

    def _create_directories(self) -> None:
        """Makes nothing."""


def build_app(settings: Settings, sink: ChunkSink, topics: list[str]) -> faust.App:
    """An app that feeds the records of `topics` to `sink`.

    Raises TransportMismatch for a Faust it isn't written for.
    """
    check_faust()
    kafka = settings.kafka
    urls = [URL(f"kafka://{server.strip()}") for server in kafka.bootstrap_servers.split(",")]
    app = App(
        kafka.group_id,
        broker=urls,
        broker_credentials=_credentials(kafka),
        broker_session_timeout=kafka.session_timeout,
        broker_heartbeat_interval=kafka.session_timeout / 4,
        broker_request_timeout=max(kafka.request_timeout, kafka.session_timeout),
        broker_commit_interval=kafka.commit_interval,
        broker_max_poll_interval=_MAX_POLL_INTERVAL,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=kafka.fetch_max_bytes,
        producer_max_request_size=_MAX_REQUEST,
        producer_request_timeout=settings.worker.publish_timeout,
        stream_buffer_maxsize=_STREAM_BUFFER_CHUNKS,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        store="memory://",
    )
    app.transport = bind(sink, settings.batch.max_batch, kafka.fetch_max_wait, 2 * settings.worker.publish_timeout)(
        urls, app
    )
    for topic in topics:
        _add_agent(app, topic, sink)
    app.finalize()
    return app


def _add_agent(app: faust.App, topic: str, sink: ChunkSink) -> None:
    channel = app.topic(topic, schema=ChunkSchema())

    async def take(stream: Any) -> None:
        # Not acknowledged to Faust: which chunks are done is the pipeline's to say.
        async for event in stream.noack().events():
            sink.put(event.value)

    take.__name__ = f"take_{topic}"
    app.agent(channel, name=f"{__name__}.{topic}")(take)


class FaustProducer:
    """The producer of an app, which exists once the app runs."""

    def __init__(self) -> None:
        self.app: faust.App | None = None

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: list[tuple[str, bytes]] | None,
    ) -> Awaitable[object]:
        """Puts a message in line and returns what resolves when the broker has acknowledged it."""
        sent: Awaitable[object] = await self._running().producer.send(topic, key, value, partition, timestamp, headers)
        return sent

    async def count_partitions(self, topic: str) -> int:
        """How many partitions a topic has. Raises TopicUnavailable when there is no such topic."""
        found = await self._running().producer._ensure_producer().partitions_for(topic)  # noqa: SLF001
        if not found:
            raise TopicUnavailable(f"topic {topic} doesn't exist, and the broker doesn't make it")
        return len(found)

    def _running(self) -> faust.App:
        if self.app is None:
            raise RuntimeError("the app doesn't run yet")
        return self.app


def log_end(app: faust.App, tp: TopicPartition) -> int:
    """The end of a partition's log as far as the consumer knows; 0 before its first fetch."""
    return app.consumer.highwater(TP(*tp)) or 0


def _credentials(kafka: KafkaSettings) -> Any:
    if kafka.security_protocol == "PLAINTEXT":
        return None
    context = ssl_context(kafka)
    if kafka.security_protocol == "SSL":
        return faust.SSLCredentials(context)
    return faust.SASLCredentials(
        username=kafka.sasl_username,
        password=kafka.sasl_password.get_secret_value() if kafka.sasl_password else None,
        ssl_context=context,
        mechanism=SASLMechanism(kafka.sasl_mechanism),
    )
