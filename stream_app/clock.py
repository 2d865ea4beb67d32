"""Time is passed in, so that tests move it by hand and none of them sleeps."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What the product asks of time."""

    def time(self) -> float:
        """Seconds since the Unix epoch, for what people read."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, for deadlines and durations."""
        ...


class SystemClock:
    """The machine's own clock."""

    def time(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds from an arbitrary start that never go back."""
        return time.monotonic()


class ManualClock:
    """A clock for tests: it stands still until `advance` moves it."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._elapsed = 0.0

    def time(self) -> float:
        """Seconds since the Unix epoch, as set."""
        return self._now + self._elapsed

    def monotonic(self) -> float:
        """Seconds that were advanced so far."""
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Moves both readings forward by `seconds`."""
        self._elapsed += seconds
