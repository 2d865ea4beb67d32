"""The streams of a partition that are in memory: how many there may be, and which leave."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from stream_app.clock import Clock
from stream_app.episodes import Episode
from stream_app.threshold import StreamThreshold


@dataclass(slots=True)
class Stream:
    """One stream. `offset` is the last one of its partition that it has learned, -1 before the first."""

    threshold: StreamThreshold
    episode: Episode
    slot: int | None = None  # of its tail, where it may have single observations
    offset: int = -1
    read: int = -1  # the last offset whose observation is in the tail
    in_hand: int = 0  # chunks that were read and not judged yet
    used: float = 0.0  # seconds on a monotonic clock
    restored: bool = True  # false when Redis could not say whether there is an older state
    stored: bool = False  # Redis has a state, maybe an older one
    overwrites: bool = False  # the partition's offsets began anew


class Residents:
    """Streams by name, the least recently used first; `most` of them, once what changed is saved.

    `changed` are those that are to be saved. One that is in hand, or reserved for the chunk that is being read, never
    leaves. `on_leaving` is called with each that does.
    """

    def __init__(self, most: int, forget_after: float, clock: Clock, on_leaving: Callable[[str, Stream], None]) -> None:
        self.changed: set[str] = set()
        self._most = most
        self._forget_after = forget_after
        self._clock = clock
        self._on_leaving = on_leaving
        self._streams: OrderedDict[str, Stream] = OrderedDict()
        self._reserved: frozenset[str] = frozenset()
        self._left: OrderedDict[int, None] = OrderedDict()  # hashes of names whose state is in the store

    def __getitem__(self, name: str) -> Stream:
        return self._streams[name]

    def __contains__(self, name: object) -> bool:
        return name in self._streams

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[str]:
        return iter(self._streams)

    def get(self, name: str) -> Stream | None:
        """The stream, where it is here."""
        return self._streams.get(name)

    def add(self, name: str, stream: Stream) -> None:
        """Takes in one that wasn't here."""
        self._streams[name] = stream
        self._left.pop(hash(name), None)

    def reserve(self, names: Iterable[str]) -> frozenset[str]:
        """Keeps these streams, and no others, until the next call; returns those that were kept before."""
        before, self._reserved = self._reserved, frozenset(names)
        return before

    def use(self, name: str) -> Stream:
        """The stream, which is now the most recently used."""
        self._streams.move_to_end(name)
        stream = self._streams[name]
        stream.used = self._clock.monotonic()
        return stream

    def put_first(self, names: Iterable[str]) -> None:
        """Makes these the least recently used, the last of them the least of all."""
        used = next(iter(self._streams.values())).used if self._streams else 0.0
        for name in names:
            self._streams.move_to_end(name, last=False)
            self._streams[name].used = used

    def has_left(self, name: str) -> bool:
        """Whether a stream that isn't here was, and left a state in the store. Some of long ago are not remembered."""
        return hash(name) in self._left

    def forget_saved(self) -> None:
        """Lets those leave that are beyond the limit, or silent for long, and whose state is in the store."""
        surplus = len(self._streams) - self._most
        silent = self._clock.monotonic() - self._forget_after
        leaving: list[str] = []
        for name, stream in self._streams.items():
            if len(leaving) >= surplus and stream.used > silent:
                break
            if name not in self.changed and self._may_leave(name):
                leaving.append(name)
        for name in leaving:
            self._leave(name)
            self._left[hash(name)] = None
        while len(self._left) > self._most:
            self._left.popitem(last=False)

    def drop(self, among: Iterable[str] | None = None) -> list[Stream]:
        """Lets those leave that are beyond the limit, saved or not; of `among` only, in its order, where it is told."""
        surplus = max(0, len(self._streams) - self._most)
        leaving = [name for name in (self._streams if among is None else among) if self._may_leave(name)][:surplus]
        return [self._leave(name) for name in leaving]

    def _may_leave(self, name: str) -> bool:
        return not self._streams[name].in_hand and name not in self._reserved

    def _leave(self, name: str) -> Stream:
        self.changed.discard(name)
        stream = self._streams.pop(name)
        self._on_leaving(name, stream)
        return stream
