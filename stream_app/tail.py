"""What is kept of the observations of a stream, as bytes and as its place in an array of many streams."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Slots = NDArray[np.int64]
Times = NDArray[np.float64]
FloatArray = NDArray[np.float32]

NEVER = -np.inf
_HEAD = struct.Struct("<BQIIIIIdddddd")
_VERSION = 3


@dataclass(frozen=True, slots=True)
class Tail:
    """The newest observations of a stream: `rows` `[n, F]` float32, oldest first, at `times` `[n]` in seconds.

    `count` is how many the window has had, with them: from it follows when the next one is due, so that a stream that
    is taken up again goes on in step. The last `ahead` of them are on trial; `since` is the oldest time there was. The
    last `late` ones came too late: from `late_from` on, which was published at `late_published`, to `late_time`. `gap`
    is where the last jump ahead that stayed went from, and to. The last `behind`, of those that have no time of their
    own, were published before others.
    """

    count: int
    rows: FloatArray
    times: Times
    late: int = 0
    late_time: float = NEVER
    late_from: float = NEVER
    late_published: float = NEVER
    ahead: int = 0
    since: float = -NEVER
    gap: tuple[float, float] = (NEVER, NEVER)
    behind: int = 0

    def to_bytes(self) -> bytes:
        """A head, the rows as little-endian float32, and the times as float64."""
        head = _HEAD.pack(
            _VERSION,
            self.count,
            *self.rows.shape,
            self.late,
            self.ahead,
            self.behind,
            self.late_time,
            self.late_from,
            self.late_published,
            self.since,
            *self.gap,
        )
        return head + self.rows.astype("<f4").tobytes() + self.times.astype("<f8").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Tail:
        """Reads what `to_bytes` wrote. Raises ValueError for anything else."""
        try:
            version, count, steps, features, late, ahead, behind, *moments = _HEAD.unpack_from(data)
        except struct.error as error:
            msg = f"not the observations of a stream: {error}"
            raise ValueError(msg) from error
        size = _HEAD.size + 4 * steps * features + 8 * steps
        if version != _VERSION or len(data) != size or count < steps or ahead > max(steps - 1, 0):
            msg = f"not the observations of a stream: {len(data)} bytes for {steps} steps of {features} features"
            raise ValueError(msg)
        rows = np.frombuffer(data, "<f4", steps * features, _HEAD.size).reshape(steps, features)
        times = np.frombuffer(data, "<f8", steps, _HEAD.size + 4 * steps * features)
        late_time, late_from, late_published, since, *gap = moments
        return cls(
            count,
            rows.astype(np.float32),
            times.astype(np.float64),
            late,
            late_time,
            late_from,
            late_published,
            ahead,
            since,
            (gap[0], gap[1]),
            behind,
        )


NOTHING = Tail(0, np.empty((0, 0), np.float32), np.empty(0))


@dataclass(slots=True)
class Block:
    """Observations by slot, `rows` `[S, n, F]`, of which the first `filled` `[S]` are there; the rest as in `Tail`."""

    rows: FloatArray
    times: Times
    filled: Slots
    count: Slots
    late: Slots
    late_time: Times
    late_from: Times
    late_published: Times
    ahead: Slots
    since: Times
    gap_from: Times
    gap_to: Times
    behind: Slots

    @classmethod
    def empty(cls, slots: int, steps: int, features: int) -> Block:
        """With no observations."""
        return cls(
            rows=np.empty((slots, steps, features), np.float32),
            times=np.zeros((slots, steps)),
            filled=np.zeros(slots, np.int64),
            count=np.zeros(slots, np.int64),
            late=np.zeros(slots, np.int64),
            ahead=np.zeros(slots, np.int64),
            late_time=np.full(slots, NEVER),
            late_from=np.full(slots, NEVER),
            late_published=np.full(slots, NEVER),
            since=np.full(slots, -NEVER),
            gap_from=np.full(slots, NEVER),
            gap_to=np.full(slots, NEVER),
            behind=np.zeros(slots, np.int64),
        )

    def arrays(self) -> tuple[NDArray[np.generic], ...]:
        """All of it, by slot."""
        return (self.rows, self.times, self.filled, self.count, *self.marks())

    def marks(self) -> tuple[NDArray[Any], ...]:
        """What is known of slots beside their observations, in the order of the fields."""
        late = self.late, self.late_time, self.late_from, self.late_published
        return *late, self.ahead, self.since, self.gap_from, self.gap_to, self.behind

    def mark(self, slot: int, tail: Tail) -> None:
        """Takes what a tail says beside its observations."""
        late = tail.late, tail.late_time, tail.late_from, tail.late_published
        told = (*late, tail.ahead, tail.since, *tail.gap, tail.behind)
        for marks, each in zip(self.marks(), told, strict=True):
            marks[slot] = each

    def grown(self, slots: int) -> Block:
        """A copy with room for so many slots."""
        more = Block.empty(slots, *self.rows.shape[1:])
        for old, new in zip(self.arrays(), more.arrays(), strict=True):
            new[: len(old)] = old
        return more


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The tails of some streams at one point of reading."""

    slots: Slots
    block: Block

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(array.nbytes for array in self.block.arrays())
