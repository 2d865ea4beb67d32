"""What a partition knows of its streams.

Threshold, episode, last window, and the offset up to which they have learned.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_app.alerts import Episode
from stream_app.errors import RedisUnavailable
from stream_app.log import get_logger
from stream_app.records import TopicPartition
from stream_app.settings import Settings
from stream_app.store import StateStore, StreamState
from stream_app.threshold import StreamThreshold

log = get_logger(__name__)
FloatArray = NDArray[np.float32]


@dataclass(slots=True)
class Stream:
    """The state of one stream. `offset` is the last one of its partition that it has learned, -1 before the first."""

    threshold: StreamThreshold
    episode: Episode
    tail: FloatArray | None = None  # the last observations [≤ T, F], for streams of single observations
    offset: int = -1
    restored: bool = True  # false when Redis could not say whether there is an older state


class Streams:
    """The streams of one partition. Least recently used ones beyond `sequence.max_streams` are left to the store."""

    def __init__(self, detector: str, tp: TopicPartition, settings: Settings, store: StateStore | None = None) -> None:
        self._detector = detector
        self._tp = tp
        self._settings = settings
        self._store = store
        self._streams: OrderedDict[str, Stream] = OrderedDict()
        self._touched: set[str] = set()

    def __getitem__(self, name: str) -> Stream:
        return self._streams[name]

    def __contains__(self, name: str) -> bool:
        return name in self._streams

    def __len__(self) -> int:
        return len(self._streams)

    def begin(self, name: str) -> None:
        """Begins a stream with nothing learned."""
        self._streams[name] = self._new(restored=True)

    async def ensure(self, names: Iterable[str]) -> list[str]:
        """Makes sure that the streams are here, from the store or new; returns those that came with a saved state.

        When Redis can't be reached they begin with the model's own calibration and are asked for again later.
        """
        wanted = [name for name in dict.fromkeys(names) if not self._is_settled(name)]
        if not wanted or self._store is None:
            return []
        try:
            saved = await self._store.load(self._detector, self._tp.topic, wanted, partition=self._tp.partition)
        except RedisUnavailable as error:
            log.warning("thresholds can't be read; going on with the model's own calibration", error=str(error))
            for name in wanted:
                self._streams.setdefault(name, self._new(restored=False))
            return []
        for name in wanted:
            state = saved.get(name)
            if state is not None:
                self._streams[name] = self._restore(name, state)
            elif name in self._streams:
                self._streams[name].restored = True
            else:
                self.begin(name)
        return [name for name in wanted if name in saved]

    def touch(self, name: str, offset: int) -> None:
        """Notes that a stream has learned the record at `offset`, and is to be saved."""
        stream = self._streams[name]
        stream.offset = offset
        self._streams.move_to_end(name)
        self._touched.add(name)

    def take_changes(self) -> dict[str, StreamState]:
        """The states that changed since the last call, as they are at this moment, to be saved."""
        changed = {name: self._pack(self._streams[name]) for name in self._touched if self._streams[name].restored}
        self._touched.difference_update(changed)
        return changed

    def keep_changes(self, names: Iterable[str]) -> None:
        """Takes changes back that could not be saved."""
        self._touched.update(name for name in names if name in self._streams)

    def trim(self) -> None:
        """Forgets the least recently used streams beyond the limit; those not saved yet stay."""
        surplus = len(self._streams) - self._settings.sequence.max_streams
        for name in [name for name in self._streams if name not in self._touched][: max(0, surplus)]:
            del self._streams[name]

    def _is_settled(self, name: str) -> bool:
        stream = self._streams.get(name)
        return stream is not None and (stream.restored or self._store is None or not self._store.may_ask)

    def _new(self, restored: bool) -> Stream:
        return Stream(StreamThreshold(self._settings.threshold), Episode(self._settings.alerts), restored=restored)

    def _restore(self, name: str, state: StreamState) -> Stream:
        try:
            threshold = StreamThreshold.from_bytes(state.threshold, self._settings.threshold)
            episode = Episode.from_bytes(state.episode, self._settings.alerts)
            tail = unpack_tail(state.window)
        except ValueError as error:
            log.warning("a stream's saved state can't be read; it begins anew", stream=name, error=str(error))
            return self._new(restored=True)
        return Stream(threshold, episode, tail, state.offset)

    @staticmethod
    def _pack(stream: Stream) -> StreamState:
        return StreamState(
            stream.threshold.to_bytes(), pack_tail(stream.tail), stream.episode.to_bytes(), stream.offset
        )


def pack_tail(tail: FloatArray | None) -> bytes:
    """`[n, F]` float32 as two little-endian uint32 (n, F) and the rows; empty for none."""
    if tail is None:
        return b""
    return np.array(tail.shape, "<u4").tobytes() + tail.astype("<f4").tobytes()


def unpack_tail(data: bytes) -> FloatArray | None:
    """What `pack_tail` packed. Raises ValueError when the bytes are as many as the shape doesn't say."""
    if not data:
        return None
    steps, features = (int(size) for size in np.frombuffer(data[:8], "<u4"))
    return np.frombuffer(data, "<f4", offset=8).reshape(steps, features).astype(np.float32)
