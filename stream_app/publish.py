"""Events to the broker, in the order of the records they are about, and their acknowledgements."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

from aiokafka.errors import MessageSizeTooLargeError

from stream_app.clock import Clock
from stream_app.errors import PublishFault
from stream_app.metrics import EVENTS_PUBLISHED

Headers = Sequence[tuple[str, bytes]]


class Producer(Protocol):
    """What is asked of the Kafka producer."""

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
        ...


class Publisher:
    """Sends events to the partition of the same number as the record's, so that they keep the order of the partition.

    What was sent for a partition and is not acknowledged yet is kept until `take_unacknowledged`.
    """

    def __init__(self, producer: Producer, count_partitions: Callable[[str], Awaitable[int]], clock: Clock) -> None:
        self._producer = producer
        self._count_partitions = count_partitions
        self._clock = clock
        self._partitions: dict[str, int] = {}
        self._unacknowledged: list[Awaitable[object]] = []
        self._sending_since: float | None = None

    async def send(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        smaller: Headers | None = None,
    ) -> None:
        """Hands one event over. Raises PublishFault when the producer refuses it.

        With `smaller`, an event that the broker finds too large is sent once more with these headers and no value.
        """
        if topic not in self._partitions:
            self._partitions[topic] = await self._count_partitions(topic)
        target = partition % self._partitions[topic]
        self._sending_since = self._sending_since or self._clock.monotonic()
        try:
            sent = await self._hand_over(topic, target, key, value, headers)
        except Exception as error:
            raise PublishFault(f"an event for topic {topic} could not be handed to the producer: {error!r}") from error
        self._sending_since = None
        if smaller is not None:
            sent = asyncio.ensure_future(_or_smaller(sent, partial(self._hand_over, topic, target, key, None, smaller)))
        self._unacknowledged.append(sent)
        EVENTS_PUBLISHED.labels(topic).inc()

    async def _hand_over(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Headers
    ) -> Awaitable[object]:
        if key is None and value is None:
            value = b""  # a message with neither is refused by the client
        return await self._producer.send(topic, key, value, partition, self._clock.time(), list(headers))

    def blocked_for(self) -> float:
        """Seconds since the producer last took an event, while one is waiting to be taken; 0 otherwise."""
        return 0.0 if self._sending_since is None else self._clock.monotonic() - self._sending_since

    def take_unacknowledged(self) -> list[Awaitable[object]]:
        """What was sent since the last call."""
        taken, self._unacknowledged = self._unacknowledged, []
        return taken


async def _or_smaller(sent: Awaitable[object], hand_over_smaller: Callable[[], Awaitable[Awaitable[object]]]) -> object:
    try:
        return await sent
    except MessageSizeTooLargeError:
        return await (await hand_over_smaller())


async def wait_for_acknowledgements(sent: Sequence[Awaitable[object]], timeout: float) -> None:
    """Returns when the broker has acknowledged everything. Raises PublishFault when it refuses, or takes longer."""
    if not sent:
        return
    try:
        await asyncio.wait_for(asyncio.gather(*sent), timeout)
    except TimeoutError as error:
        raise PublishFault(
            f"{len(sent)} events were not acknowledged within worker.publish_timeout={timeout:g} s"
        ) from error
    except asyncio.CancelledError:
        raise
    except Exception as error:
        raise PublishFault(f"the broker did not take an event: {error!r}") from error
