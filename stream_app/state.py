"""The saved state of one stream, as bytes, and the store that keeps it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

Place = tuple[str, str, int]  # detector, topic, partition

_VERSION = b"\x02"
_OFFSET_DIGITS = 20
_HEAD = struct.Struct("<q3I")  # floor, lengths of the parts
_CHECKSUM = struct.Struct("<I")
_OFFSET_END = len(_VERSION) + _OFFSET_DIGITS


@dataclass(slots=True)
class StreamState:
    """One stream's state.

    `offset` is the last one of its partition that the state has learned, -1 for none. `floor` is what was committed
    when it was saved: whoever begins below that begins anew, with a group that was put back or a topic that was made
    again.
    """

    threshold: bytes
    tail: bytes
    episode: bytes
    offset: int
    floor: int = 0
    overwrites: bool = False  # the partition's offsets began anew, so a higher one that is saved means nothing

    @property
    def size(self) -> int:
        """Bytes of its parts."""
        return len(self.threshold) + len(self.tail) + len(self.episode)

    def to_bytes(self) -> bytes:
        """A version byte, the offset as 20 decimal digits, the three parts with their lengths, and a checksum."""
        parts = (self.threshold, self.tail, self.episode)
        state = b"".join((_VERSION, b"%020d" % self.offset, _HEAD.pack(self.floor, *map(len, parts)), *parts))
        return state + _CHECKSUM.pack(zlib.crc32(state))

    @classmethod
    def from_bytes(cls, data: bytes) -> StreamState:
        """Reads a value of `to_bytes`. Raises ValueError for anything else."""
        state = data[: -_CHECKSUM.size]
        if data[:1] != _VERSION or _CHECKSUM.pack(zlib.crc32(state)) != data[-_CHECKSUM.size :]:
            msg = "not a stream's state: its version or its checksum is wrong"
            raise ValueError(msg)
        try:
            floor, *lengths = _HEAD.unpack_from(state, _OFFSET_END)
        except struct.error as error:
            msg = f"not a stream's state: {error}"
            raise ValueError(msg) from error
        start = _OFFSET_END + _HEAD.size
        threshold_end, window_end = start + lengths[0], start + lengths[0] + lengths[1]
        if len(state) != window_end + lengths[2]:
            msg = f"not a stream's state: it has {len(state)} bytes instead of {window_end + lengths[2]}"
            raise ValueError(msg)
        offset = int(state[len(_VERSION) : _OFFSET_END])
        return cls(state[start:threshold_end], state[threshold_end:window_end], state[window_end:], offset, floor)


class Mark(NamedTuple):
    """What the store says of a partition's states.

    Those of another `epoch` are others: the ones from before are gone. What was learned of every record below
    `complete` is in them, except that of records below `whole_from` some may be lost.
    """

    epoch: bytes | None  # None for no states yet
    complete: int
    whole_from: int = 0

    def to_bytes(self) -> bytes:
        """The epoch, if there is one, and the numbers, separated by spaces."""
        return b"%s %d %d" % (self.epoch or b"", self.complete, self.whole_from)

    @classmethod
    def from_bytes(cls, data: bytes) -> Mark:
        """Reads what `to_bytes` wrote with an epoch. Raises ValueError for anything else."""
        epoch, complete, whole_from = data.split()
        return cls(epoch, int(complete), int(whole_from))


class Store(Protocol):
    """Where states are kept between workers."""

    @property
    def may_ask(self) -> bool:
        """False for a while after it did not answer."""
        ...

    async def mark(self, place: Place) -> Mark | None:
        """The mark of a partition's states; None where there are none. Raises RedisUnavailable."""
        ...

    async def load(self, place: Place, streams: list[str]) -> dict[str, StreamState]:
        """The states of those streams that have one. Raises RedisUnavailable."""
        ...

    async def save(
        self, changes: Mapping[Place, Mapping[str, StreamState]], marks: Mapping[Place, Mark]
    ) -> dict[Place, bytes | None]:
        """Saves states and marks, and returns the epoch that each partition of `marks` has now.

        A partition without the epoch that is expected keeps its mark, or none; where None is expected it has one
        afterwards. Raises RedisUnavailable.
        """
        ...
