"""A record on its way through the worker, from the broker's bytes to a scored event.

Nothing here knows Kafka, Faust, Redis or torch: a chunk is built by the transport, or by the `score` command from a
file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from model.config import Kind as Kind  # a record's kind is its detector's

DEFAULT_STREAM = "default"


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class RawRecord(Protocol):
    """What we read of a record. aiokafka's `ConsumerRecord` has these fields."""

    @property
    def topic(self) -> str:
        """The topic it was read from."""
        ...

    @property
    def partition(self) -> int:
        """Its partition."""
        ...

    @property
    def offset(self) -> int:
        """Its offset there."""
        ...

    @property
    def timestamp(self) -> int:
        """Milliseconds since the Unix epoch, as Kafka has it."""
        ...

    @property
    def key(self) -> bytes | None:
        """The stream's name, UTF-8."""
        ...

    @property
    def value(self) -> bytes | None:
        """The picture or the sequence."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """Names and values."""
        ...


def header_bytes(headers: Sequence[tuple[str, bytes]]) -> int:
    """Bytes of the names and values of a record's headers."""
    return sum(len(name) + len(value or b"") for name, value in headers)


@dataclass(slots=True)
class Chunk:
    """Consecutive records of one partition, as they were fetched: the unit of delivery, of completion and of commit.

    `first` is the first offset the chunk answers for. It is below `records[0].offset` where the log has a gap
    (compaction, transaction markers), so that gaps never hold a commit up.
    """

    tp: TopicPartition
    first: int
    records: Sequence[RawRecord]
    generation: int
    size: int  # bytes of memory: keys, values, headers, what a record takes beside them, and what is made of it

    @property
    def end(self) -> int:
        """The offset to commit when the chunk is done: the last record's plus one."""
        return self.records[-1].offset + 1

    def __len__(self) -> int:
        return len(self.records)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record of a chunk that can't be scored, where that was noticed, and why."""

    index: int
    stage: str
    error: Exception


@dataclass(frozen=True, slots=True)
class Rows:
    """Some records of a chunk as one array.

    `index` int64 `[n]` points into `chunk.records`, ascending; `data` is `[n, …]`.
    """

    index: NDArray[np.int64]
    data: NDArray[np.generic]


@dataclass(slots=True)
class Decoded:
    """A chunk as arrays. `streams`, `event_times`, `timed` and `ids` have an entry for each record of the chunk.

    `ready` is what can be scored as it is: pictures `[n, H, W, C]` (uint8, or float32 in 0…255) or windows `[n, T, F]`
    float32. `observations` `[n, F]` float32 still have to be made into windows. NaN in either is a missing value.
    """

    streams: list[str]
    event_times: NDArray[np.float64]  # seconds since the Unix epoch
    timed: NDArray[np.bool_]  # whether the record itself said its time; Kafka's stands in where it didn't
    ids: list[str | None]  # `ce_id`, where the record has one
    ready: Rows
    observations: Rows
    rejected: list[Rejected]

    @classmethod
    def empty(cls, length: int) -> Decoded:
        """Of a chunk of `length` records, with nothing read yet."""
        nothing = Rows(np.empty(0, np.int64), np.empty(0, np.float32))
        times, timed = np.zeros(length), np.zeros(length, np.bool_)
        return cls([DEFAULT_STREAM] * length, times, timed, [None] * length, nothing, nothing, [])
