"""Micro-batches: rows of several chunks, of several partitions, scored at once.

Continuous: while one batch is on the device the next gathers here, and whatever is there goes when the device is free.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(slots=True, eq=False)
class Job:
    """Rows of one chunk that wait for their scores: `rows` `[n, …]`, `n` at least 1."""

    rows: Array
    arrived: float  # monotonic seconds
    taken: int = 0

    @property
    def left(self) -> int:
        """Rows that no batch has taken yet."""
        return len(self.rows) - self.taken


@dataclass(slots=True)
class Batch:
    """Rows `[n, …]` to score at once, and whose they are: (job, first row of the job, number of rows)."""

    rows: Array
    parts: list[tuple[Job, int, int]]


class MicroBatcher:
    """Collects jobs and cuts batches of at most `max_batch` rows from them, in the order they arrived.

    A batch is due when it is full, or when its first row has waited for `linger` seconds. Not thread-safe.
    """

    def __init__(self, max_batch: int, linger: float = 0.0) -> None:
        self._max_batch = max_batch
        self._linger = linger
        self._jobs: deque[Job] = deque()
        self.rows_waiting = 0

    def add(self, job: Job) -> None:
        """Puts a job at the end of the line."""
        self._jobs.append(job)
        self.rows_waiting += job.left

    def due_at(self) -> float | None:
        """The monotonic time from which a batch may be taken; None when nothing waits."""
        if not self._jobs:
            return None
        first = self._jobs[0]
        return first.arrived if self.rows_waiting >= self._max_batch else first.arrived + self._linger

    @property
    def begun(self) -> bool:
        """Whether some rows of the first job were taken, and the others still wait."""
        return bool(self._jobs) and self._jobs[0].taken > 0

    def take(self, now: float, only_begun: bool = False) -> Batch | None:
        """The next batch, or None when none is due. With `only_begun`, no more than what is left of a job begun."""
        due = self.due_at()
        if due is None or due > now or (only_begun and not self.begun):
            return None
        parts: list[tuple[Job, int, int]] = []
        room = self._max_batch
        while room and self._jobs:
            job = self._jobs[0]
            if parts and (only_begun or job.rows.shape[1:] != parts[0][0].rows.shape[1:]):
                break  # a batch has one shape, and its detector may have changed between two jobs
            count = min(room, job.left)
            parts.append((job, job.taken, count))
            job.taken += count
            room -= count
            if not job.left:
                self._jobs.popleft()
        self.rows_waiting -= self._max_batch - room
        return Batch(_join([job.rows[first : first + count] for job, first, count in parts]), parts)


def _join(pieces: list[Array]) -> Array:
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
