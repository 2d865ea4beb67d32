"""Counts of the last records of each stream, by bin: two generations, so that no record need be remembered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_FIRST_SLOTS = 64


class RollingCounts:
    """For each slot `width` counters of its last records: those of the generation that fills and of the one before.

    A generation closes with `half` records or, as they come many at a time, a few more.
    """

    def __init__(self, width: int, half: int) -> None:
        self._half = half
        self._current = np.zeros((_FIRST_SLOTS, width), np.uint16)
        self._before = np.zeros((_FIRST_SLOTS, width), np.uint16)
        self._filled = np.zeros(_FIRST_SLOTS, np.int64)
        self._closed = np.zeros(_FIRST_SLOTS, np.int64)
        self._free = list(range(_FIRST_SLOTS))[::-1]

    @property
    def bytes_per_slot(self) -> int:
        """What one more slot takes."""
        return 2 * self._current.itemsize * self._current.shape[1] + 16

    def open(self) -> int:
        """A slot that has counted nothing."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._current[slot] = self._before[slot] = 0
        self._filled[slot] = self._closed[slot] = 0
        return slot

    def close(self, slot: int) -> None:
        """Gives a slot back."""
        self._free.append(slot)

    def add(self, slots: NDArray[np.int64], counters: NDArray[np.int64]) -> None:
        """Counts records of `slots` `[n]`, n at most 2¹⁵, in their `counters` `[n, K]`."""
        width = self._current.shape[1]
        np.add.at(self._current.reshape(-1), (slots[:, np.newaxis] * width + counters).ravel(), np.uint16(1))
        np.add.at(self._filled, slots, 1)
        full = np.flatnonzero(self._filled >= self._half)
        if len(full):
            self._before[full], self._closed[full] = self._current[full], self._filled[full]
            self._current[full], self._filled[full] = 0, 0

    def totals(self, slots: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The counters of slots, both generations together, `[S, width]`, and their records `[S]`."""
        counters = self._current[slots].astype(np.int32) + self._before[slots]
        return counters, self._filled[slots] + self._closed[slots]

    def _grow(self) -> None:
        slots = len(self._filled)
        self._current = np.concatenate([self._current, np.zeros_like(self._current)])
        self._before = np.concatenate([self._before, np.zeros_like(self._before)])
        self._filled = np.concatenate([self._filled, np.zeros_like(self._filled)])
        self._closed = np.concatenate([self._closed, np.zeros_like(self._closed)])
        self._free = list(range(slots, 2 * slots))[::-1]
