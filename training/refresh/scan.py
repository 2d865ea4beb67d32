"""What ranges of offsets hold, record by record, without keeping the records: the choice is made on this."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.config import Kind
from model.detector import SLICE, Detector
from stream_app.decode import InputSpec
from stream_app.settings import Settings
from training.refresh.readings import Piece, Ranges, Spots, read_pieces
from training.refresh.sampling import by_stream

# Scores of the same record differ by a millionth from machine to machine: what they decide must not.
DECIMALS = 3


@dataclass(frozen=True)
class Scan:
    """Of `n` records that can be learned from, by partition and then by offset.

    `published` are milliseconds since the Unix epoch. `streams` are numbers; partition and name of a stream tell them.
    `scores` are None without a champion. `spans` `[n, 2]` are as in `Dataset`, None where no record shares anything
    with another; `digests` `[n]` are the same for records that are the same, and None where there are spans. `shape`
    and `dtype` are of one. Of `records` that were read, `unreadable` were refused and `incomplete` completed no window;
    `alone` were at the spots.
    """

    partitions: NDArray[np.int64]
    offsets: NDArray[np.int64]
    published: NDArray[np.int64]
    streams: NDArray[np.int64]
    numbers: dict[tuple[int, str], int]
    scores: NDArray[np.float32] | None
    spans: NDArray[np.int64] | None
    digests: NDArray[np.int64] | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    records: int
    unreadable: int
    incomplete: int
    alone: int = 0

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def row_bytes(self) -> int:
        """What one record takes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @cached_property
    def rows(self) -> dict[tuple[int, str], NDArray[np.int64]]:
        """Indices of the records of each stream, in order, by its partition and name."""
        names = {number: stream for stream, number in self.numbers.items()}
        return {names[int(self.streams[each[0]])]: each for each in by_stream(self.streams)}


async def scan(
    settings: Settings,
    topic: str,
    spec: InputSpec,
    ranges: Ranges,
    champion: Detector | None,
    on_record: Callable[[int], None] | None = None,
    spots: Spots | None = None,
) -> Scan:
    """Reads spots and ranges once, and scores what they hold. Raises BrokerUnavailable."""
    pieces, numbers, scores = [], dict[tuple[int, str], int](), _Scores(champion)
    records, unreadable, incomplete, alone = 0, 0, 0, 0
    dtypes: set[np.dtype[Any]] = {np.dtype(np.uint8)}
    none = np.zeros(0, np.int64)
    async for piece in read_pieces(settings, topic, spec, ranges, on_record, spots):
        records, unreadable = records + piece.records, unreadable + piece.unreadable
        incomplete += piece.incomplete
        alone += piece.records if piece.alone else 0
        if not len(piece.offsets):
            continue
        await asyncio.to_thread(scores.add, piece)
        dtypes.add(piece.rows.dtype)
        own = [numbers.setdefault((piece.partition, name), len(numbers)) for name in piece.streams]
        streams = np.array(own, np.int64)
        partitions = np.full(len(streams), piece.partition, np.int64)
        has_spans = bool((~np.isnan(piece.times)).any())
        digests = none if has_spans else await asyncio.to_thread(digests_of, piece.rows)  # none are kept beside spans
        pieces.append(
            (partitions, piece.offsets, piece.published, streams, piece.places, piece.times, piece.timed, digests)
        )
    empty = (none, none, none, none, none, np.zeros((0, 2)), np.zeros(0, np.bool_), none)
    joined = [np.concatenate(each) for each in zip(empty, *pieces, strict=True)]
    partitions, offsets, published, streams, places, times, timed, digests = joined
    have_spans = bool((~np.isnan(times)).any())
    return Scan(
        partitions,
        offsets,
        published,
        streams,
        numbers,
        await asyncio.to_thread(scores.all),
        spans_of(streams, places, times, timed, spec.shape[0]) if have_spans else None,
        None if have_spans else digests,
        spec.shape,
        np.result_type(*dtypes) if spec.kind is Kind.IMAGE else np.dtype(np.float32),
        records,
        unreadable,
        incomplete,
        alone,
    )


def digests_of(rows: NDArray[np.generic]) -> NDArray[np.int64]:
    """A number `[n]` for each row, by its bytes."""
    rows = np.ascontiguousarray(rows)
    found = b"".join(hashlib.blake2b(row.data, digest_size=8).digest() for row in rows)
    return np.frombuffer(found, "<i8").astype(np.int64)


def spans_of(
    streams: NDArray[np.int64],
    places: NDArray[np.int64],
    times: NDArray[np.float64],
    timed: NDArray[np.bool_],
    length: int,
) -> NDArray[np.int64]:
    """Spans `[n, 2]` as in `Dataset`, of windows of `length` observations; the arrays are as in `Piece`.

    Where a stream tells its times they decide, as its observations may come in another order; otherwise the count does.
    """
    spans = np.zeros((len(streams), 2), np.int64)
    begin = 0
    for own in by_stream(streams):
        made = ~np.isnan(times[own, 0])
        # What came whole shares nothing: it has a place of its own, before all others.
        ends = np.where(made, places[own], -places[own])
        each = np.stack([ends - np.where(made, length - 1, 0), ends], axis=1)
        if timed[own][made].any():
            each[made] = np.round(times[own][made] * 1e6).astype(np.int64)
            _, ranks = np.unique(each, return_inverse=True)
            each = ranks.reshape(each.shape)
        spans[own] = each - each.min() + begin
        begin = int(spans[own].max()) + 1
    return spans


class _Scores:
    """Scores in batches that do not depend on how the records were fetched, as the last digits depend on the batch."""

    def __init__(self, champion: Detector | None) -> None:
        self._champion = champion
        self._waiting: list[NDArray[np.generic]] = []
        self._found = [np.zeros(0, np.float32)]

    def add(self, piece: Piece) -> None:
        if self._champion is None:
            return
        self._waiting.append(piece.rows)
        whole = sum(len(rows) for rows in self._waiting) // SLICE * SLICE
        if whole:
            rows = np.concatenate(self._waiting)
            self._waiting = [rows[whole:]]
            self._found.append(self._champion.score(rows[:whole]).score)

    def all(self) -> NDArray[np.float32] | None:
        if self._champion is None:
            return None
        if self._waiting:
            self._found.append(self._champion.score(np.concatenate(self._waiting)).score)
        return np.concatenate(self._found).round(DECIMALS)
