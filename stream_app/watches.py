"""What ends a worker that can't go on.

Faust by itself lives on when an agent raises, when the broker is gone for good, and when its consumer has stopped.
Each of these runs as long as the worker and raises a WorkerFault when its limit is passed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import faust
from aiokafka.admin import AIOKafkaAdminClient

from stream_app.clock import Clock
from stream_app.errors import PublishFault, ScorerFault, WorkerFault
from stream_app.kafka import client_options, start
from stream_app.log import get_logger
from stream_app.publish import Publisher
from stream_app.scoring import ScoringThread
from stream_app.settings import KafkaSettings

log = get_logger(__name__)

_INTERVAL = 0.5
_BROKER_INTERVAL = 1.0


async def watch_scorer(scoring: ScoringThread, limit: float) -> None:
    """Raises ScorerFault when a batch has been with the detector for more than `limit` seconds."""
    busy = await _exceeds(scoring.busy_for, limit)
    raise ScorerFault(f"a batch has been with the detector for {busy:.1f} s, worker.score_timeout={limit:g}")


async def watch_publisher(publisher: Publisher, limit: float) -> None:
    """Raises PublishFault when the producer has taken no event for `limit` seconds though one waits."""
    blocked = await _exceeds(publisher.blocked_for, limit)
    raise PublishFault(f"the producer took no event for {blocked:.1f} s, worker.publish_timeout={limit:g}")


async def _exceeds(duration: Callable[[], float], limit: float) -> float:
    """Returns a duration, in seconds, once it is above the limit."""
    while True:
        await asyncio.sleep(min(_INTERVAL, limit / 4))
        seconds = duration()
        if seconds > limit:
            return seconds


async def watch_faust(app: faust.App) -> None:
    """Raises WorkerFault when Faust has crashed, which its process survives."""
    while True:
        await asyncio.sleep(_INTERVAL)
        if app.crashed:
            raise WorkerFault(f"Faust crashed: {app.crash_reason!r}") from app.crash_reason


async def watch_broker(kafka: KafkaSettings, clock: Clock) -> None:
    """Raises WorkerFault when no broker has answered for `kafka.unreachable_limit` seconds.

    Asks over a connection of its own, since Faust's tries again for ever without a word.
    """
    limit = kafka.unreachable_limit
    last_answer = clock.monotonic()
    admin: AIOKafkaAdminClient | None = None
    try:
        while True:
            try:
                async with asyncio.timeout(min(kafka.request_timeout, limit / 2)):
                    admin = admin or await _connect(kafka)
                    await admin.describe_cluster()
                last_answer = clock.monotonic()
            except Exception as error:
                log.warning("the broker does not answer", error=repr(error))
                await _close(admin)
                admin = None
            silent = clock.monotonic() - last_answer
            if silent > limit:
                raise WorkerFault(
                    f"no broker has answered for {silent:.0f} s, kafka.unreachable_limit={limit:g}; "
                    f"tried {kafka.bootstrap_servers}"
                )
            await asyncio.sleep(min(_BROKER_INTERVAL, limit / 5))
    finally:
        await _close(admin)


async def _connect(kafka: KafkaSettings) -> AIOKafkaAdminClient:
    admin = AIOKafkaAdminClient(**client_options(kafka))
    try:
        await start(admin)
    except BaseException:
        await admin.close()
        raise
    return admin


async def _close(admin: AIOKafkaAdminClient | None) -> None:
    if admin is not None:
        await admin.close()
