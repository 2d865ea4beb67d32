"""What the workers tell of drift, in Redis, and all of it added up.

A hash `{prefix}:{group}:drift:{detector}` with a field for each partition, `{topic}/{partition}`: whoever has the
partition writes it, so that nothing counts twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from redis.asyncio import Redis

from stream_app.drift.assess import WORST, PartitionDrift, StatisticCounts, StreamDrift, diverge
from stream_app.log import get_logger
from stream_app.redis_client import connect, redis_errors, redis_key
from stream_app.settings import DriftSettings, RedisSettings

log = get_logger(__name__)


class StatisticDrift(BaseModel):
    """One statistic: how many streams drift in it, and PSI and KS of all streams' last records together.

    `excess` is how many times their limit the latter are at. `psi_max` and `ks_max` are of single streams.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    drifting: int
    share: float
    psi: float
    ks: float
    excess: float
    records: int
    psi_max: float
    ks_max: float


class DriftReport(BaseModel):
    """How far the streams of a detector are from what they were at the training of `version`.

    `judged` of the `streams` that workers know have enough records; `share` of these drift in any statistic. `at` is
    when the newest part was told, in seconds since the Unix epoch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    detector: str
    version: str | None = None
    at: float | None = None
    streams: int = 0
    judged: int = 0
    drifting: int = 0
    share: float = 0.0
    statistics: dict[str, StatisticDrift] = {}
    worst: list[StreamDrift] = []

    def fires(self, settings: DriftSettings) -> str | None:
        """Why the drift asks for a new version, if it does: too many streams, or all of them together."""
        if self.judged and self.share > settings.trigger_share:
            most = max(self.statistics, key=lambda name: self.statistics[name].drifting)
            return (
                f"{self.drifting} of {self.judged} streams drift from what {self.version} was trained on, "
                f"{self.statistics[most].drifting} of them in {most} (drift.trigger_share={settings.trigger_share:g})"
            )
        for name, each in sorted(self.statistics.items(), key=lambda item: -item[1].excess):
            if each.excess > 1.0 and each.records >= settings.min_records:
                return (
                    f"{name} of all streams together drifts from what {self.version} was trained on: "
                    f"PSI {each.psi:.2f}, KS {each.ks:.2f} (drift.psi={settings.psi:g}, drift.ks={settings.ks:g})"
                )
        return None

    @classmethod
    def add_up(cls, detector: str, parts: Sequence[PartitionDrift], settings: DriftSettings) -> DriftReport:
        """Of the partitions of one version; of several versions those of the newest part's count."""
        if not parts:
            return cls(detector=detector)
        newest = max(parts, key=lambda part: part.at)
        parts = [part for part in parts if part.version == newest.version]
        judged, drifting = sum(part.judged for part in parts), sum(part.drifting for part in parts)
        names = dict.fromkeys(name for part in parts for name in part.statistics)
        worst = sorted((each for part in parts for each in part.worst), key=lambda each: -each.excess)
        return cls(
            detector=detector,
            version=newest.version,
            at=newest.at,
            streams=sum(part.streams for part in parts),
            judged=judged,
            drifting=drifting,
            share=round(drifting / judged, 4) if judged else 0.0,
            statistics={
                name: _pool([part.statistics[name] for part in parts if name in part.statistics], judged, settings)
                for name in names
            },
            worst=worst[:WORST],
        )


def _pool(parts: Sequence[StatisticCounts], judged: int, settings: DriftSettings) -> StatisticDrift:
    counts = np.sum([part.counts for part in parts], axis=0)
    found = diverge(counts[np.newaxis], np.array(parts[0].shares), parts[0].reference, parts[0].design_effect, settings)
    drifting = sum(part.drifting for part in parts)
    return StatisticDrift(
        drifting=drifting,
        share=round(drifting / judged, 4) if judged else 0.0,
        psi=round(float(found.psi[0]), 4),
        ks=round(float(found.ks[0]), 4),
        excess=round(float(found.excess[0]), 3),
        records=int(counts.sum()),
        psi_max=max(part.psi_max for part in parts),
        ks_max=max(part.ks_max for part in parts),
    )


async def write_drift(
    client: Redis, settings: RedisSettings, group: str, parts: Iterable[PartitionDrift], keep: float
) -> None:
    """Tells what was found of some partitions; it is forgotten after `keep` seconds. Raises RedisUnavailable."""
    fields: dict[str, dict[str, str]] = {}
    for part in parts:
        fields.setdefault(part.detector, {})[f"{part.topic}/{part.partition}"] = part.model_dump_json()
    if not fields:
        return
    pipeline: Any = client.pipeline(transaction=False)
    for detector, values in fields.items():
        key = redis_key(settings, group, "drift", detector)
        pipeline.hset(key, mapping=values)
        pipeline.pexpire(key, round(keep * 1000))
    async with redis_errors(client, settings):
        await pipeline.execute()


async def read_drift(
    redis: RedisSettings,
    group: str,
    detector: str,
    settings: DriftSettings | None = None,
    *,
    version: str | None = None,
    now: float | None = None,
) -> DriftReport:
    """Adds up what workers have told of a detector's streams within the last `drift.keep` seconds.

    Of `version` alone, or of whichever was told of last. Raises RedisUnavailable.
    """
    settings = settings or DriftSettings()
    now = time.time() if now is None else now
    client: Any = connect(redis)
    try:
        async with redis_errors(client, redis):
            fields: dict[bytes, bytes] = await client.hgetall(redis_key(redis, group, "drift", detector))
    finally:
        await client.aclose()
    parts = [part for value in fields.values() if (part := _parse(value)) is not None]
    recent = [part for part in parts if now - part.at <= settings.keep and version in (None, part.version)]
    return DriftReport.add_up(detector, recent, settings)


def _parse(value: bytes) -> PartitionDrift | None:
    try:
        return PartitionDrift.model_validate_json(value)
    except ValidationError as error:
        log.warning("what a worker told of drift can't be read; it is passed over", error=str(error))
        return None
