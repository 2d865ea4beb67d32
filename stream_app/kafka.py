"""How a Kafka broker is reached, and what is said when it can't be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ssl import SSLContext
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.helpers import create_ssl_context

from stream_app.errors import BrokerUnavailable, SettingsError
from stream_app.settings import KafkaSettings

_CANCELLED_AGAIN_AFTER = 0.5  # seconds
_CONNECTING_SECONDS = 1.0  # for a connection attempt to come to its end once nobody wants it any more


def client_options(kafka: KafkaSettings) -> dict[str, Any]:
    """Address, security and patience, as keyword arguments of every aiokafka client.

    Raises SettingsError when a certificate or a key can't be read.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": kafka.bootstrap_servers,
        "security_protocol": kafka.security_protocol,
        "request_timeout_ms": round(kafka.request_timeout * 1000),
    }
    if context := ssl_context(kafka):
        options["ssl_context"] = context
    if kafka.security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = kafka.sasl_mechanism
        options["sasl_plain_username"] = kafka.sasl_username
        options["sasl_plain_password"] = kafka.sasl_password.get_secret_value() if kafka.sasl_password else None
    return options


def ssl_context(kafka: KafkaSettings) -> SSLContext | None:
    """How the broker is trusted, and who we are to it; None without TLS.

    Raises SettingsError, naming the settings, when a certificate or a key can't be read.
    """
    if not kafka.security_protocol.endswith("SSL"):
        return None
    files = {"ssl_cafile": kafka.ssl_cafile, "ssl_certfile": kafka.ssl_certfile, "ssl_keyfile": kafka.ssl_keyfile}
    try:
        context: SSLContext = create_ssl_context(
            cafile=kafka.ssl_cafile, certfile=kafka.ssl_certfile, keyfile=kafka.ssl_keyfile
        )
    except OSError as error:  # ssl.SSLError is one too, and neither says which file it is
        named = ", ".join(f"GANOMALY_KAFKA__{name.upper()}={path}" for name, path in files.items() if path)
        raise SettingsError(f"can't be read as PEM: {named}: {error}") from error
    return context


class Startable(Protocol):
    """A client of aiokafka."""

    async def start(self) -> None:
        """Connects."""


async def start(client: Startable) -> None:
    """Starts a client. Cancelled in the middle of its bootstrap, it would leave a connection that nobody can close."""
    starting = asyncio.ensure_future(client.start())
    try:
        await asyncio.shield(starting)
    except BaseException:
        await asyncio.wait({starting}, timeout=_CONNECTING_SECONDS)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        raise


async def end_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancels tasks, and returns when all of them have ended, whatever they raise.

    Once is not enough for a task that reads a topic: while aiokafka closes a consumer it takes a cancellation for the
    one that it has sent to its own fetching, and the task goes on as if nothing had been.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCELLED_AGAIN_AFTER)
    await asyncio.gather(*tasks, return_exceptions=True)  # what they raised has been seen


@asynccontextmanager
async def admin(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started client for topics and their settings.

    What the client raises, in the block too, becomes BrokerUnavailable.
    """
    client = AIOKafkaAdminClient(**client_options(kafka))
    try:
        with broker_errors(kafka):
            await start(client)
            yield client
    finally:
        await client.close()


@asynccontextmanager
async def producing(
    kafka: KafkaSettings, *, max_bytes: int | None = None, linger: float = 0.0
) -> AsyncIterator[AIOKafkaProducer]:
    """A started producer that waits for the broker's acknowledgement.

    `max_bytes`: of the largest record, `kafka.max_message_bytes` unless told; `linger`: seconds it waits for a fuller
    batch. Raises BrokerUnavailable when no broker answers.
    """
    producer = AIOKafkaProducer(
        **client_options(kafka),
        acks="all",
        linger_ms=round(linger * 1000),
        max_request_size=max_bytes or kafka.max_message_bytes,
    )
    try:
        with broker_errors(kafka):
            await start(producer)
        yield producer
    finally:
        await producer.stop()


@contextmanager
def broker_errors(kafka: KafkaSettings) -> Iterator[None]:
    """Turns errors of a client into BrokerUnavailable, with the address and the setting that names it."""
    try:
        yield
    except (KafkaError, OSError) as error:  # TimeoutError is an OSError
        raise BrokerUnavailable(
            f"Kafka at {kafka.bootstrap_servers} (GANOMALY_KAFKA__BOOTSTRAP_SERVERS): {reason(error)}. "
            "`ganomaly-stream doctor` checks it; `ganomaly-stream local` starts an embedded broker"
        ) from error


def reason(error: BaseException) -> str:
    """Why a client's call failed, for people."""
    if isinstance(error, KafkaConnectionError):
        return "no broker answers there"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
