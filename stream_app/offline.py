"""The rows of a file through the stream's own code: raw records, decoded, windowed, batched, scored, judged, in order.

Only the broker and Redis are missing: the file is one partition of one stream that begins with nothing learned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stream_app.decode import RAW, Decoder, InputSpec
from stream_app.errors import RecordError
from stream_app.judge import Verdict, judge
from stream_app.records import DEFAULT_STREAM, Chunk, Kind, RawRecord, Rows, TopicPartition
from stream_app.scoring import ScoredRows, Scorer
from stream_app.settings import Settings
from stream_app.streams import Streams

FILE = TopicPartition("file", 0)


class OfflineDetector(Scorer, Protocol):
    """A detector as it comes from the registry."""

    @property
    def kind(self) -> str:
        """`image` or `sequence`."""
        ...

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one record."""
        ...


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One row of a file as the record that `publish` would make of it."""

    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    offset: int
    timestamp: int
    key: bytes | None = None
    topic: str = FILE.topic
    partition: int = FILE.partition


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """What is known of a row: no verdict for an observation that completes no window."""

    index: int
    verdict: Verdict | None
    heat_map: NDArray[np.float32] | None  # where wanted


def score_rows(
    detector: OfflineDetector,
    rows: NDArray[Any],
    settings: Settings,
    timestamps: NDArray[np.float64] | None = None,
    heat_maps: bool = False,
) -> Iterator[ScoredRow]:
    """Scores rows in order and yields one result a row.

    `rows` are pictures `[N, H, W, C]` (uint8, or float32 in 0…1), windows `[N, T, F]`, or single observations `[N, F]`
    float32; `timestamps` `[N]` are seconds since the Unix epoch. The threshold learns row after row, as the stream's
    does. Raises RecordError for the first row that can't be scored, naming it.
    """
    kind = Kind(detector.kind)
    decoder = Decoder(InputSpec(kind, tuple(detector.input_shape)), settings.limits)
    streams = Streams(detector.name, FILE, decoder.spec, settings)
    streams.begin([DEFAULT_STREAM])
    size = settings.batch.max_batch
    for first in range(0, len(rows), size):
        records = _records(rows[first : first + size], first, timestamps)
        chunk = Chunk(FILE, first, records, 0, rows[first : first + size].nbytes)
        decoded = decoder.decode(chunk)
        for rejected in decoded.rejected:
            raise RecordError(f"row {first + rejected.index}: {rejected.error}") from rejected.error
        taken = streams.take(chunk, decoded)
        verdicts = judge(detector.name, chunk, decoded, taken, _score(detector, taken.rows), streams)
        maps = detector.localize(taken.rows.data) if heat_maps and len(taken.rows.index) else None
        by_index = {verdict.index: verdict for verdict in verdicts.each}
        for index in range(len(chunk)):
            verdict = by_index.get(index)
            yield ScoredRow(first + index, verdict, maps[verdict.row] if maps is not None and verdict else None)


def _score(detector: OfflineDetector, rows: Rows) -> ScoredRows | None:
    if not len(rows.index):
        return None
    scores = detector.score(rows.data)
    return ScoredRows(scores.score, scores.raw, detector)


def _records(rows: NDArray[Any], first: int, timestamps: NDArray[np.float64] | None) -> list[RawRecord]:
    shape = ",".join(str(size) for size in rows.shape[1:]).encode()
    headers = (("content-type", RAW.encode()), ("shape", shape), ("dtype", str(rows.dtype).encode()))
    return [
        FileRecord(
            np.ascontiguousarray(row).tobytes(),
            headers,
            first + i,
            0 if timestamps is None else round(timestamps[first + i] * 1000),
        )
        for i, row in enumerate(rows)
    ]
