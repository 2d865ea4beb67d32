"""The records of ranges of offsets as the worker reads them: decoded, and single observations made into windows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stream_app.decode import Decoder, InputSpec
from stream_app.history import read_range, read_ranges
from stream_app.records import Chunk, Kind, TopicPartition
from stream_app.settings import Settings
from stream_app.streams import Streams, streams_of

Ranges = Mapping[int, tuple[int, int]]  # partition to its first offset and the one after the last
Spots = Mapping[int, Sequence[int]]  # partition to single offsets, ascending, below those of its range

_SPOT_BYTES = 1 << 16  # most that is fetched for a single record; the broker sends at least one whole batch


@dataclass(frozen=True, slots=True)
class Piece:
    """What a chunk of a partition has to be scored: `n` pictures `[n, H, W, C]` or windows `[n, T, F]`, in order.

    `offsets` `[n]`, `published` `[n]` (milliseconds since the Unix epoch) and `streams` are of each record, of a window
    of single observations those of its newest. `places` `[n]` counts the records of each stream. `times` `[n, 2]` are
    of the first and the last observation of a window in seconds, NaN of what came whole; where `timed` `[n]`, the
    record said its time itself. Of the chunk's `records`, `unreadable` were refused and `incomplete` were observations
    that completed no window. `alone`: they are of the spots, and not of the range.
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
    alone: bool = False


async def read_pieces(
    settings: Settings,
    topic: str,
    spec: InputSpec,
    ranges: Ranges,
    on_record: Callable[[int], None] | None = None,
    spots: Spots | None = None,
) -> AsyncIterator[Piece]:
    """The pieces of each partition in turn, the same ones each time as far as the broker still has the records.

    Those of the partition's `spots` come first. Of single observations at them the windows are made that end there,
    with `snapshot.older_lead` records before the spot at most. `on_record` is told how many records were read. Nothing
    is learned, saved or committed. Raises BrokerUnavailable.
    """
    decoder = Decoder(spec, settings.limits, settings.sequence, settings.schema_registry)
    for partition, (first, end) in sorted(ranges.items()):
        tp, counts = TopicPartition(topic, partition), dict[str, int]()
        if alone := (spots or {}).get(partition):
            async for piece in _read_spots(settings, tp, spec, decoder, alone, counts):
                yield piece
                if on_record:
                    on_record(piece.records)
            _leave_room(counts, spec)
        reader = _Reader(decoder, Streams("", tp, spec, settings), counts)
        async for chunk in read_range(settings, tp, first, end):
            yield await asyncio.to_thread(reader.read, chunk)
            if on_record:
                on_record(len(chunk))


async def _read_spots(
    settings: Settings,
    tp: TopicPartition,
    spec: InputSpec,
    decoder: Decoder,
    spots: Sequence[int],
    counts: dict[str, int],
) -> AsyncIterator[Piece]:
    """The pieces of single records of a partition. `counts` are of the records of each stream, and go on."""
    # A window is wanted wherever it ends.
    own = settings.model_copy(update={"sequence": settings.sequence.model_copy(update={"stride": 1})})
    wanted = np.array(spots, np.int64)
    lead = settings.snapshot.older_lead if await _are_observations(settings, tp, spec, decoder, spots) else 0
    runs = _runs_of(spots, lead)
    reader, run = _Reader(decoder, Streams("", tp, spec, own), counts), 0
    async for chunk in read_ranges(settings, tp, runs, max_partition_fetch_bytes=_fetch_bytes(settings)):
        if chunk.first >= runs[run][1]:
            run = next(number for number, (_, end) in enumerate(runs) if chunk.first < end)
            _leave_room(counts, spec)
            reader = _Reader(decoder, Streams("", tp, spec, own), counts)
        piece = await asyncio.to_thread(reader.read, chunk)
        yield _only(piece, wanted, int(np.isin([record.offset for record in chunk.records], wanted).sum()), lead)


async def _are_observations(
    settings: Settings, tp: TopicPartition, spec: InputSpec, decoder: Decoder, spots: Sequence[int]
) -> bool:
    """Whether some of the records are single observations, of which windows have to be made."""
    if spec.kind is not Kind.SEQUENCE:
        return False
    runs, found = _runs_of(spots, 0), False
    async for chunk in read_ranges(settings, tp, runs, max_partition_fetch_bytes=_fetch_bytes(settings)):
        decoded = await asyncio.to_thread(decoder.decode, chunk)
        found |= len(decoded.observations.index) > 0
    return found


def _fetch_bytes(settings: Settings) -> int:
    return min(_SPOT_BYTES, settings.kafka.fetch_max_bytes)


def _runs_of(spots: Sequence[int], lead: int) -> list[tuple[int, int]]:
    """Ranges that hold the spots and `lead` offsets before each; what would be read twice is one range."""
    begins = [spots[0], *(later for before, later in pairwise(spots) if later - before > lead + 1)]
    ends = [*(before for before, later in pairwise(spots) if later - before > lead + 1), spots[-1]]
    return [(max(0, first - lead), last + 1) for first, last in zip(begins, ends, strict=True)]


def _leave_room(counts: dict[str, int], spec: InputSpec) -> None:
    """Counts on, so that no window of what follows seems to share an observation with one of what came before."""
    for name in counts:
        counts[name] += spec.shape[0]


def _only(piece: Piece, wanted: NDArray[np.int64], records: int, lead: int) -> Piece:
    """What a piece holds of the wanted offsets, of which it has so many `records`."""
    which = np.isin(piece.offsets, wanted)
    unreadable = 0 if lead else piece.unreadable
    return replace(
        piece,
        rows=piece.rows[which],
        offsets=piece.offsets[which],
        published=piece.published[which],
        streams=[name for name, is_wanted in zip(piece.streams, which.tolist(), strict=True) if is_wanted],
        places=piece.places[which],
        times=piece.times[which],
        timed=piece.timed[which],
        records=records,
        unreadable=unreadable,
        incomplete=records - int(which.sum()) - unreadable,
        alone=True,
    )


class _Reader:
    """Reads one partition; `counts` are of the records that each stream has had."""

    def __init__(self, decoder: Decoder, streams: Streams, counts: dict[str, int]) -> None:
        self._decoder = decoder
        self._streams = streams
        self._counts = counts

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
