"""What a partition knows of its streams: threshold, episode, last observations, and the offset they have learned.

Reading runs ahead of judging, so there are two points in a stream. Its ring of observations is as far as reading has
come; everything else is as far as judging has, and only that is ever saved.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stream_app.alerts import Episode
from stream_app.decode import InputSpec
from stream_app.errors import RedisUnavailable
from stream_app.log import get_logger
from stream_app.records import Chunk, Decoded, Kind, Rows, TopicPartition
from stream_app.settings import Settings
from stream_app.state import StreamState
from stream_app.threshold import StreamThreshold
from stream_app.windows import Recent, Ring

log = get_logger(__name__)


class Store(Protocol):
    """Where states are kept between workers."""

    @property
    def may_ask(self) -> bool:
        """False for a while after it did not answer."""
        ...

    async def load(self, detector: str, topic: str, partition: int, streams: list[str]) -> dict[str, StreamState]:
        """The states of those streams that have one. Raises RedisUnavailable."""
        ...

    async def save(self, detector: str, topic: str, partition: int, states: Mapping[str, StreamState]) -> None:
        """Saves states. Raises RedisUnavailable."""
        ...


@dataclass(slots=True)
class Stream:
    """One stream. `offset` is the last one of its partition that it has learned, -1 before the first."""

    threshold: StreamThreshold
    episode: Episode
    recent: Recent | None = None  # of streams of single observations
    offset: int = -1
    ring: Ring | None = None
    read: int = -1  # the last offset whose observation is in the ring
    in_hand: int = 0  # chunks that were read and not judged yet
    restored: bool = True  # false when Redis could not say whether there is an older state
    overwrites: bool = False  # the partition's offsets began anew

    def to_state(self, floor: int) -> StreamState:
        """As it is saved."""
        recent = self.recent.to_bytes() if self.recent is not None else b""
        return StreamState(
            self.threshold.to_bytes(), recent, self.episode.to_bytes(), self.offset, floor, self.overwrites
        )


@dataclass(frozen=True, slots=True)
class Taken:
    """A chunk as its streams took it in.

    `rows` are what is to be scored: pictures `[n, H, W, C]` or windows `[n, T, F]`. `learned` is the last offset of
    each stream in the chunk, `recent` the observations that each stream of single ones has then.
    """

    rows: Rows
    learned: dict[str, int]
    recent: dict[str, Recent]


class Streams:
    """The streams of one partition.

    Of those beyond `sequence.max_streams`, the least recently used are forgotten here.
    """

    def __init__(
        self,
        detector: str,
        tp: TopicPartition,
        spec: InputSpec,
        settings: Settings,
        store: Store | None = None,
        start: int = 0,
    ) -> None:
        self._detector = detector
        self._tp = tp
        self._spec = spec
        self._settings = settings
        self._store = store
        self._start = start  # the first offset of the assignment
        self._streams: OrderedDict[str, Stream] = OrderedDict()
        self._changed: set[str] = set()

    def __getitem__(self, name: str) -> Stream:
        return self._streams[name]

    def __contains__(self, name: str) -> bool:
        return name in self._streams

    def __len__(self) -> int:
        return len(self._streams)

    async def ensure(self, decoded: Decoded) -> None:
        """Makes sure that the streams of a chunk are here: from the store, or new.

        When Redis can't be reached they begin with the model's own calibration and are asked for again later.
        """
        wanted = [name for name in dict.fromkeys(streams_of(decoded)) if not self._is_settled(name)]
        if not wanted or self._store is None:
            self.begin(wanted)
            return
        try:
            saved = await self._store.load(self._detector, self._tp.topic, self._tp.partition, wanted)
        except RedisUnavailable as error:
            log.warning("thresholds can't be read; going on with the model's own calibration", error=str(error))
            self.begin(wanted)
            for name in wanted:
                self._streams[name].restored = False
            return
        for name in wanted:
            if name in saved:
                self._take_up(name, saved[name])
            elif name in self._streams:
                self._streams[name].restored = True
        self.begin(wanted)

    def begin(self, names: Iterable[str]) -> None:
        """Begins those of the streams that aren't here, with nothing learned."""
        for name in names:
            if name not in self._streams:
                self._streams[name] = self._new()

    def take(self, chunk: Chunk, decoded: Decoded) -> Taken:
        """Reads a chunk into its streams: single observations become windows.

        An observation that a stream has read before is the replay of one whose event was acknowledged: it makes no
        window.
        """
        offsets = [record.offset for record in chunk.records]
        due, touched = self._push(decoded.observations, decoded.streams, offsets)
        indices = np.concatenate([decoded.ready.index, decoded.observations.index])
        learned = {decoded.streams[index]: offsets[index] for index in sorted(indices.tolist())}
        for name in learned:
            self._streams[name].in_hand += 1
            self._streams.move_to_end(name)
        recent = {name: ring.recent() for name, ring in touched.items()}
        return Taken(_merge(decoded.ready, due), learned, recent)

    def settle(self, taken: Taken) -> None:
        """Notes that a chunk that was taken has been judged; its streams are to be saved."""
        for name, offset in taken.learned.items():
            stream = self._streams[name]
            stream.in_hand -= 1
            if offset > stream.offset:
                stream.offset = offset
                stream.recent = taken.recent.get(name, stream.recent)
                self._changed.add(name)

    def take_changes(self, floor: int) -> dict[str, StreamState]:
        """The states that changed since the last call, as they are at this moment, to be saved.

        `floor` is the partition's committed offset: no assignment but one that was put back begins below it.
        """
        ready = [name for name in self._changed if self._streams[name].restored]
        self._changed.difference_update(ready)
        return {name: self._streams[name].to_state(floor) for name in ready}

    def keep_changes(self, names: Iterable[str]) -> None:
        """Takes changes back that could not be saved."""
        self._changed.update(name for name in names if name in self._streams)

    def saved(self, names: Iterable[str]) -> None:
        """Notes that changes are saved, and forgets streams beyond the limit that nobody needs just now."""
        for name in names:
            if name in self._streams:
                self._streams[name].overwrites = False
        surplus = len(self._streams) - self._settings.sequence.max_streams
        if surplus > 0:
            idle = [name for name, each in self._streams.items() if not each.in_hand and name not in self._changed]
            for name in idle[:surplus]:
                del self._streams[name]

    def _is_settled(self, name: str) -> bool:
        stream = self._streams.get(name)
        return stream is not None and (stream.restored or self._store is None or not self._store.may_ask)

    def _new(self) -> Stream:
        return Stream(StreamThreshold(self._settings.threshold), Episode(self._settings.alerts), ring=self._new_ring())

    def _new_ring(self, recent: Recent | None = None) -> Ring | None:
        if self._spec.kind is Kind.IMAGE:
            return None
        return Ring(self._spec.shape, self._settings.sequence.stride, recent)

    def _take_up(self, name: str, state: StreamState) -> None:
        """Goes on from a saved state; what the stream learned here while Redis was away is given up for it."""
        try:
            threshold = StreamThreshold.from_bytes(state.threshold, self._settings.threshold)
            episode = Episode.from_bytes(state.episode, self._settings.alerts)
            recent = Recent.from_bytes(state.recent) if state.recent else None
        except ValueError as error:
            log.warning("a stream's saved state can't be read; it begins anew", stream=name, error=str(error))
            return
        offset, overwrites = state.offset, self._start < state.floor
        if overwrites:
            log.warning(
                "a stream has learned beyond where this assignment begins: the group was put back, or the topic made "
                "again; its threshold goes on, its offsets and its window begin anew",
                stream=name,
                begins=self._start,
                learned=state.offset,
            )
            offset, recent = -1, None
        if recent is not None and recent.rows.shape[1] != self._spec.shape[1]:
            log.warning(
                "the observations saved of a stream have another number of features; its window begins anew",
                stream=name,
            )
            recent = None
        here = self._streams.get(name)
        if here is None:
            ring = self._new_ring(recent)
            here = self._streams[name] = Stream(threshold, episode, recent, offset, ring, offset, overwrites=overwrites)
        else:
            here.threshold, here.episode, here.overwrites = threshold, episode, overwrites
        here.restored = True

    def _push(self, observations: Rows, streams: Sequence[str], offsets: Sequence[int]) -> tuple[Rows, dict[str, Ring]]:
        due: list[int] = []
        windows: list[np.ndarray] = []
        touched: dict[str, Ring] = {}
        for index, row in zip(observations.index.tolist(), observations.data, strict=True):
            stream = self._streams[streams[index]]
            if stream.ring is None or offsets[index] <= stream.read:
                continue
            stream.read = offsets[index]
            touched[streams[index]] = stream.ring
            window = stream.ring.push(row)
            if window is not None:
                due.append(index)
                windows.append(window)
        data = np.stack(windows) if windows else np.empty((0, *self._spec.shape), np.float32)
        return Rows(np.array(due, np.int64), data), touched


def streams_of(decoded: Decoded) -> list[str]:
    """The stream of each record that could be read, in the order of the chunk."""
    indices = np.concatenate([decoded.ready.index, decoded.observations.index])
    return [decoded.streams[index] for index in sorted(indices.tolist())]


def _merge(ready: Rows, due: Rows) -> Rows:
    if not len(due.index):
        return ready
    if not len(ready.index):
        return due
    index = np.concatenate([ready.index, due.index])
    order = np.argsort(index, kind="stable")
    return Rows(index[order], np.concatenate([ready.data, due.data])[order])
