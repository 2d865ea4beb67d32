"""Tells every few seconds how the streams of a worker drift: metrics of this process, and Redis for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from stream_app import metrics
from stream_app.clock import Clock
from stream_app.drift.assess import PartitionDrift, assess
from stream_app.drift.monitor import Counted
from stream_app.drift.report import write_drift
from stream_app.errors import RedisUnavailable
from stream_app.log import get_logger
from stream_app.records import TopicPartition
from stream_app.redis_client import connect
from stream_app.settings import DriftSettings, Settings

log = get_logger(__name__)

ANY = "any"


async def watch_drift(
    settings: Settings, counted: Callable[[], Iterable[tuple[TopicPartition, Counted]]], clock: Clock
) -> None:
    """As long as the worker runs: every `drift.interval` seconds works out what `counted` gives and tells it.

    While Redis can't be reached only the metrics tell; it is said once.
    """
    if not settings.drift.enabled:
        return
    client, reached = connect(settings.redis), True
    try:
        while True:
            await asyncio.sleep(settings.drift.interval)
            taken, now = list(counted()), clock.time()
            parts = await asyncio.to_thread(_assess, taken, settings.drift, now)
            show(parts)
            try:
                await write_drift(client, settings.redis, settings.kafka.group_id, parts, settings.drift.keep)
                reached = True
            except RedisUnavailable as error:
                if reached:
                    log.warning("drift can't be told to Redis; the metrics tell it", error=str(error))
                reached = False
    finally:
        await client.aclose()


def _assess(
    taken: Sequence[tuple[TopicPartition, Counted]], settings: DriftSettings, now: float
) -> list[PartitionDrift]:
    return [assess(counted, tp, settings, now) for tp, counted in taken]


def show(parts: Sequence[PartitionDrift]) -> None:
    """Sets the gauges to what was found of the partitions that this worker has now."""
    for gauge in (metrics.DRIFT_STREAMS, metrics.DRIFT_PSI_MAX, metrics.DRIFT_KS_MAX):
        gauge.clear()  # of partitions that went, and of versions whose statistics were others
    for topic in dict.fromkeys(part.topic for part in parts):
        of_topic = [part for part in parts if part.topic == topic]
        metrics.DRIFT_STREAMS.labels(topic, ANY).set(sum(part.drifting for part in of_topic))
        for what in dict.fromkeys(name for part in of_topic for name in part.statistics):
            each = [part.statistics[what] for part in of_topic if what in part.statistics]
            metrics.DRIFT_STREAMS.labels(topic, what).set(sum(one.drifting for one in each))
            metrics.DRIFT_PSI_MAX.labels(topic, what).set(max(one.psi_max for one in each))
            metrics.DRIFT_KS_MAX.labels(topic, what).set(max(one.ks_max for one in each))
