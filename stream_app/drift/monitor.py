"""Counts what the streams of a partition look like, and how far that is from the manifest of whoever scores them.

The way of a record only puts its chunk in line; the counting is done for many chunks at a time, and PSI and KS are
worked out for all streams at once, every few seconds.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.config import Kind
from model.reference import Reference
from model.summary import summarize
from stream_app import metrics
from stream_app.clock import Clock
from stream_app.drift.rolling import RollingCounts
from stream_app.scoring import Scorer
from stream_app.settings import DriftSettings

FloatArray = NDArray[np.float32]

MOST_WAITING = 2048  # records, and …
MOST_WAITING_BYTES = 1 << 20  # … bytes of them, before they are counted
_MOST_CREDIT = 0.05  # seconds


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted of the streams of a partition since the version came into service there.

    `counters` `[S, width]` are of the streams `names`, of whose last records `records` `[S]` they are; those of each
    statistic of `reference.bins` follow each other.
    """

    detector: str
    version: str
    reference: Reference
    names: list[str]
    counters: NDArray[np.int32]
    records: NDArray[np.int64]


class Allowance:
    """What counting may take of a core's time: `share` of it, shared by all partitions of a worker."""

    def __init__(self, share: float, clock: Clock) -> None:
        self._share = share
        self._clock = clock
        self._credit = _MOST_CREDIT
        self._at = clock.monotonic()

    def is_left(self) -> bool:
        """Whether more may be counted now."""
        now = self._clock.monotonic()
        self._credit = min(self._credit + self._share * (now - self._at), _MOST_CREDIT)
        self._at = now
        return self._credit > 0.0

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Counts what the block takes; it may take more than is left."""
        started = self._clock.monotonic()
        try:
            yield
        finally:
            took = self._clock.monotonic() - started
            self._credit -= took
            metrics.DRIFT_SECONDS.inc(took)


class DriftMonitor:
    """The streams of one partition. Each version begins anew, against its own manifest."""

    def __init__(self, settings: DriftSettings, kind: Kind, most: int, allowance: Allowance) -> None:
        """`most` streams are counted; of more than that the ones that came first are."""
        self._settings = settings
        self._kind = kind
        self._most = most
        self._allowance = allowance
        self._version: str | None = None  # not the scorer itself, which is let go of when it is replaced
        self._slots: dict[str, int] = {}
        self._clear_waiting()

    def observe(self, scorer: Scorer, streams: Sequence[str], scores: FloatArray, rows: NDArray[Any]) -> None:
        """Takes a chunk that was scored by `scorer`: the stream of each row, `scores` `[n]` and `rows` `[n, …]`.

        Under load some are passed over: more than `drift.cpu` of a core is never taken.
        """
        if not self._settings.enabled or not len(scores):
            return
        if scorer.version != self._version:
            self._begin(scorer)
        if not self._allowance.is_left():
            return
        self._names.extend(streams)
        self._scores.append(scores)
        self._rows.append(rows)
        self._bytes += rows.nbytes
        if len(self._names) >= MOST_WAITING or self._bytes >= MOST_WAITING_BYTES:
            self._count()

    def counted(self, known: Container[str]) -> Counted | None:
        """What was counted so far; None before the first record. Streams that are not in `known` are forgotten."""
        if self._version is None:
            return None
        self._count()
        self._forget(known)
        names = list(self._slots)
        slots = np.fromiter(self._slots.values(), np.int64, len(names))
        counters, records = self._rolling.totals(slots)
        return Counted(self._name, self._version, self._reference, names, counters, records)

    def _begin(self, scorer: Scorer) -> None:
        self._name, self._version = scorer.name, scorer.version
        self._reference = scorer.reference
        self._bins = list(self._reference.bins.values())
        sizes = [len(each.counts) for each in self._bins]
        self._first = np.cumsum([0, *sizes[:-1]])
        self._rolling = RollingCounts(sum(sizes), self._settings.window // 2)
        self._slots = {}
        self._clear_waiting()

    def _clear_waiting(self) -> None:
        self._names: list[str] = []
        self._scores: list[FloatArray] = []
        self._rows: list[NDArray[Any]] = []
        self._bytes = 0

    def _count(self) -> None:
        if self._names:
            with self._allowance.spending():
                self._add(self._names, self._scores, self._rows)
            metrics.DRIFT_RECORDS.inc(len(self._names))
            self._clear_waiting()

    def _add(self, names: list[str], scores: list[FloatArray], waiting: list[NDArray[Any]]) -> None:
        slots = self._find_slots(names)
        values = [np.concatenate(scores)]
        if self._reference.inputs:
            rows = np.concatenate(waiting) if len(waiting) > 1 else waiting[0]
            values.extend(summarize(self._kind, rows, self._reference.scale).T)
        counters = np.stack([each.find(value) for each, value in zip(self._bins, values, strict=True)], 1) + self._first
        seen = slots >= 0
        if not seen.all():
            slots, counters = slots[seen], counters[seen]
        self._rolling.add(slots, counters)

    def _find_slots(self, names: list[str]) -> NDArray[np.int64]:
        """Of each stream; -1 where there is no room for it."""
        slots = self._slots
        try:
            return np.array([slots[name] for name in names], np.int64)
        except KeyError:
            for name in dict.fromkeys(names):
                if name not in slots and len(slots) < self._most:
                    slots[name] = self._rolling.open()
        return np.array([slots.get(name, -1) for name in names], np.int64)

    def _forget(self, known: Container[str]) -> None:
        for name in [name for name in self._slots if name not in known]:
            self._rolling.close(self._slots.pop(name))
