"""PSI and KS of all streams of a partition at once, and what is told of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from model.divergence import ks, ks_by_chance, psi, psi_by_chance, sampling_noise
from model.reference import Bins
from stream_app.drift.monitor import Counted
from stream_app.records import TopicPartition
from stream_app.settings import DriftSettings

WORST = 20  # streams that are named

Floats = NDArray[np.float64]


class StreamDrift(BaseModel):
    """One stream in that statistic in which it has drifted most. `excess` is how many times its limit it is at."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    topic: str
    partition: int
    stream: str
    statistic: str
    psi: float
    ks: float
    records: int
    excess: float


class StatisticCounts(BaseModel):
    """One statistic over the streams of a partition: all their last records by bin, against the shares expected.

    `drifting` are the streams beyond the limit; `psi_max` and `ks_max` those of the streams with enough records.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    counts: list[int]
    shares: list[float]
    reference: int
    design_effect: float
    drifting: int
    psi_max: float
    ks_max: float


class PartitionDrift(BaseModel):
    """What a worker tells of a partition: of `streams` that are in memory, `judged` have enough records."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    detector: str
    version: str
    topic: str
    partition: int
    at: float  # seconds since the Unix epoch
    streams: int
    judged: int
    drifting: int  # in any statistic
    statistics: dict[str, StatisticCounts]
    worst: list[StreamDrift]


@dataclass(frozen=True, slots=True)
class Divergence:
    """PSI and KS of one statistic, `[S]`, and where each stands to its limit: beyond 1 it has drifted."""

    psi: Floats
    ks: Floats
    excess: Floats


def diverge(
    counts: NDArray[np.integer], shares: Floats, reference: int, design_effect: float, settings: DriftSettings
) -> Divergence:
    """Of counts `[S, B]` against shares `[B]` that come of `reference` records.

    A limit is what the settings say, or what chance alone reaches with so few records, whichever is higher.
    """
    noise = sampling_noise(counts.sum(-1), reference, design_effect)
    found_psi, found_ks = psi(counts, shares), ks(counts, shares)
    psi_limit = np.maximum(settings.psi, psi_by_chance(len(shares), noise, settings.significance))
    ks_limit = np.maximum(settings.ks, ks_by_chance(noise, settings.significance))
    return Divergence(found_psi, found_ks, np.maximum(found_psi / psi_limit, found_ks / ks_limit))


def assess(counted: Counted, tp: TopicPartition, settings: DriftSettings, now: float) -> PartitionDrift:
    """Works out what was counted of a partition, at `now` seconds since the Unix epoch."""
    enough = counted.records >= settings.min_records
    names = [name for name, judged in zip(counted.names, enough.tolist(), strict=True) if judged]
    found, statistics = {}, {}
    for statistic, bins, counts in _by_statistic(counted):
        each = found[statistic] = diverge(counts[enough], bins.shares, bins.records, bins.design_effect, settings)
        statistics[statistic] = StatisticCounts(
            counts=counts.sum(0).tolist(),
            shares=bins.shares.tolist(),
            reference=bins.records,
            design_effect=bins.design_effect,
            drifting=int((each.excess > 1.0).sum()),
            psi_max=round(float(each.psi.max(initial=0.0)), 4),
            ks_max=round(float(each.ks.max(initial=0.0)), 4),
        )
    excess = np.stack([each.excess for each in found.values()])  # (K, S)
    return PartitionDrift(
        detector=counted.detector,
        version=counted.version,
        topic=tp.topic,
        partition=tp.partition,
        at=now,
        streams=len(counted.names),
        judged=len(names),
        drifting=int((excess > 1.0).any(0).sum()),
        statistics=statistics,
        worst=_worst(tp, names, counted.records[enough], found, excess),
    )


def _by_statistic(counted: Counted) -> Iterator[tuple[str, Bins, NDArray[np.int32]]]:
    first = 0
    for name, bins in counted.reference.bins.items():
        yield name, bins, counted.counters[:, first : first + len(bins.counts)]
        first += len(bins.counts)


def _worst(
    tp: TopicPartition, names: list[str], records: NDArray[np.int64], found: dict[str, Divergence], excess: Floats
) -> list[StreamDrift]:
    """Those that drift, the farthest first."""
    if not names:
        return []
    largest, which, statistics = excess.max(0), excess.argmax(0), list(found)
    order = np.argsort(-largest, kind="stable")[:WORST]
    return [
        StreamDrift(
            topic=tp.topic,
            partition=tp.partition,
            stream=names[at],
            statistic=statistics[which[at]],
            psi=round(float(found[statistics[which[at]]].psi[at]), 4),
            ks=round(float(found[statistics[which[at]]].ks[at]), 4),
            records=int(records[at]),
            excess=round(float(largest[at]), 3),
        )
        for at in order.tolist()
        if largest[at] > 1.0
    ]
