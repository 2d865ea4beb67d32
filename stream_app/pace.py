"""How many records a second a stream brings, by the records' own times, which can't be trusted one by one."""

from __future__ import annotations

import struct
from statistics import median

_BLOCK = 64  # records that one reading of the pace takes at least
_READINGS = 15
_STATE = struct.Struct("<dIIB")


class Pace:
    """The median of recent readings, each over at least 64 records.

    A reading ends only when time has moved on since it began, so that records which share a timestamp (a producer that
    stamps batches) count in full. One wrong clock spoils one reading, which the median ignores. Times before a
    reading's start don't end it; when a whole block of records lies before it, it was the start that was wrong, or the
    clock was set back, and the reading begins anew.
    """

    __slots__ = ("_behind", "_count", "_readings", "_start")

    def __init__(self) -> None:
        self._start = 0.0
        self._count = 0
        self._behind = 0
        self._readings: list[float] = []

    @property
    def per_second(self) -> float | None:
        """Records a second, > 0; None until the first reading."""
        return median(self._readings) if self._readings else None

    def observe(self, time: float) -> None:
        """Takes in the event time of one record, in seconds; times that aren't finite are ignored."""
        if not -1e15 < time < 1e15:
            return
        if self._count == 0:
            self._restart(time)
            return
        if time < self._start:
            self._behind += 1
            if self._behind >= _BLOCK:
                self._restart(time)
                return
        if self._count >= _BLOCK and time > self._start:
            self._readings.append(self._count / (time - self._start))
            del self._readings[:-_READINGS]
            self._restart(time)
            return
        self._count += 1

    def _restart(self, time: float) -> None:
        self._start, self._count, self._behind = time, 1, 0

    def to_bytes(self) -> bytes:
        """The state, to be continued exactly by `from_bytes`."""
        readings = self._readings
        state = _STATE.pack(self._start, self._count, self._behind, len(readings))
        return state + struct.pack(f"<{len(readings)}d", *readings)

    @classmethod
    def from_bytes(cls, data: bytes) -> Pace:
        """Continues where `to_bytes` stopped. Raises ValueError for bytes of another length."""
        try:
            pace = cls()
            pace._start, pace._count, pace._behind, readings = _STATE.unpack_from(data)
            pace._readings = list(struct.unpack(f"<{readings}d", data[_STATE.size :]))
        except struct.error as error:
            msg = f"not a stream's pace: {error}"
            raise ValueError(msg) from error
        return pace
