"""The records of ranges of offsets as the worker reads them: decoded, and single observations made into windows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_app.decode import Decoder, InputSpec
from stream_app.history import read_range
from stream_app.records import Chunk, TopicPartition
from stream_app.settings import Settings
from stream_app.streams import Streams, streams_of

Ranges = Mapping[int, tuple[int, int]]  # partition to its first offset and the one after the last


@dataclass(frozen=True, slots=True)
class Piece:
    """What a chunk of a partition has to be scored: `n` pictures `[n, H, W, C]` or windows `[n, T, F]`, in order.

    `offsets` `[n]`, `published` `[n]` (milliseconds since the Unix epoch) and `streams` are of each record, of a window
    of single observations those of its newest. `places` `[n]` counts the records of each stream. `times` `[n, 2]` are
    of the first and the last observation of a window in seconds, NaN of what came whole; where `timed` `[n]`, the
    record said its time itself. Of the chunk's `records`, `unreadable` were refused and `incomplete` were observations
    that completed no window.
    """

    partition: int
    rows: NDArray[np.generic]
    offsets: NDArray[np.int64]
    published: NDArray[np.int64]
    streams: list[str]
    places: NDArray[np.int64]
    times: NDArray[np.float64]
    timed: NDArray[np.bool_]
    records: int
    unreadable: int
    incomplete: int


async def read_pieces(
    settings: Settings,
    topic: str,
    spec: InputSpec,
    ranges: Ranges,
    on_record: Callable[[int], None] | None = None,
) -> AsyncIterator[Piece]:
    """The pieces of each partition in turn, the same ones each time as far as the broker still has the records.

    `on_record` is told how many records were read. Nothing is learned, saved or committed. Raises BrokerUnavailable.
    """
    decoder = Decoder(spec, settings.limits, settings.sequence, settings.schema_registry)
    for partition, (first, end) in sorted(ranges.items()):
        tp = TopicPartition(topic, partition)
        reader = _Reader(decoder, Streams("", tp, spec, settings))
        async for chunk in read_range(settings, tp, first, end):
            yield await asyncio.to_thread(reader.read, chunk)
            if on_record:
                on_record(len(chunk))


class _Reader:
    """Reads one partition."""

    def __init__(self, decoder: Decoder, streams: Streams) -> None:
        self._decoder = decoder
        self._streams = streams
        self._counts: dict[str, int] = {}  # records of each stream

    def read(self, chunk: Chunk) -> Piece:
        decoded = self._decoder.decode(chunk)
        self._streams.begin(streams_of(decoded))
        taken = self._streams.take(chunk, decoded)
        index = taken.rows.index
        places = np.zeros(len(chunk), np.int64)
        for record in np.sort(np.concatenate([decoded.ready.index, decoded.observations.index])).tolist():
            name = decoded.streams[record]
            places[record] = self._counts[name] = self._counts.get(name, 0) + 1
        unreadable = len(decoded.rejected) + len(taken.rejected)
        return Piece(
            chunk.tp.partition,
            taken.rows.data,
            np.array([chunk.records[record].offset for record in index], np.int64),
            np.array([chunk.records[record].timestamp for record in index], np.int64),
            [decoded.streams[record] for record in index.tolist()],
            places[index],
            taken.times,
            decoded.timed[index],
            len(chunk),
            unreadable,
            len(chunk) - len(index) - unreadable,
        )
