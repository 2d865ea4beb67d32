"""The rows of a file through the stream's own code: the records `publish` makes, decoded, windowed, scored, judged.

Only the broker and Redis are missing: the file is one partition of one stream that begins with nothing learned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stream_app.clock import Clock, SystemClock
from stream_app.decode import Decoder, InputSpec
from stream_app.judge import Verdict, judge
from stream_app.messages import Message, encode_row
from stream_app.records import DEFAULT_STREAM, Chunk, Kind, Rows, TopicPartition
from stream_app.scoring import ScoredRows, Scorer
from stream_app.settings import Settings, ThresholdSettings
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
    headers: Sequence[tuple[str, bytes]]
    offset: int
    timestamp: int
    key: bytes | None = None
    topic: str = FILE.topic
    partition: int = FILE.partition


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """What became of a row: no verdict where it completes no window, is refused, or was there already."""

    index: int
    verdict: Verdict | None
    heat_map: NDArray[np.float32] | None  # where wanted
    refused: Exception | None  # why it would be a dead letter of the stream
    is_duplicate: bool = False


def score_rows(
    detector: OfflineDetector,
    rows: NDArray[Any],
    settings: Settings,
    timestamps: NDArray[np.float64] | None = None,
    heat_maps: bool = False,
) -> Iterator[ScoredRow]:
    """`score_messages` of rows as `publish` sends them.

    `rows` are pictures `[N, H, W, C]` (uint8, or float32 in 0…1), windows `[N, T, F]`, or single observations `[N, F]`
    float32; NaN in a sequence is a missing value. `timestamps` `[N]` are seconds since the Unix epoch.
    """
    times = [None] * len(rows) if timestamps is None else timestamps.tolist()
    messages = (encode_row(row, time=time) for row, time in zip(rows, times, strict=True))
    return score_messages(detector, messages, settings, heat_maps, timed=timestamps is not None)


def score_messages(
    detector: OfflineDetector,
    messages: Iterable[Message],
    settings: Settings,
    heat_maps: bool = False,
    clock: Clock | None = None,
    *,
    timed: bool = True,
) -> Iterator[ScoredRow]:
    """Scores records in order, as if they were published now, and yields one result for each.

    What the stream refuses is refused here: records that can't be read, too many missing values, observations at a
    wrong time. The threshold learns row after row, as the stream's does. `timed`: the records have times of their own;
    those of a file without them are all published now, so that no run of anomalous ones lasts for a time, and the
    number of its records alone says whether it is a lasting shift.
    """
    if not timed:
        settings = _without_time(settings)
    spec = InputSpec(Kind(detector.kind), tuple(detector.input_shape))
    decoder = Decoder(spec, settings.limits, settings.sequence)
    streams = Streams(detector.name, FILE, spec, settings)
    streams.begin([DEFAULT_STREAM])
    published = round((clock or SystemClock()).time() * 1000)
    remaining, first = iter(messages), 0
    while some := list(islice(remaining, settings.batch.max_batch)):
        records = [FileRecord(message.value, message.headers, first + i, published) for i, message in enumerate(some)]
        chunk = Chunk(FILE, first, records, 0, sum(len(record.value) for record in records))
        yield from _score_chunk(detector, chunk, decoder, streams, heat_maps)
        first += len(some)


def _without_time(settings: Settings) -> Settings:
    threshold = ThresholdSettings(**{**settings.threshold.model_dump(), "shift_after_seconds": 0.0})
    return settings.model_copy(update={"threshold": threshold})


def _score_chunk(
    detector: OfflineDetector, chunk: Chunk, decoder: Decoder, streams: Streams, heat_maps: bool
) -> Iterator[ScoredRow]:
    decoded = decoder.decode(chunk)
    taken = streams.take(chunk, decoded)
    verdicts = judge(detector.name, chunk, decoded, taken, _score(detector, taken.rows), streams)
    maps = detector.localize(taken.rows.data) if heat_maps and len(taken.rows.index) else None
    by_index = {verdict.index: verdict for verdict in verdicts.each}
    refused = {each.index: each.error for each in (*decoded.rejected, *taken.rejected)}
    for index in range(len(chunk)):
        verdict = by_index.get(index)
        heat_map = maps[verdict.row] if maps is not None and verdict else None
        yield ScoredRow(chunk.first + index, verdict, heat_map, refused.get(index), index in taken.duplicates)


def _score(detector: OfflineDetector, rows: Rows) -> ScoredRows | None:
    if not len(rows.index):
        return None
    scores = detector.score(rows.data)
    return ScoredRows(scores.score, scores.raw, detector)
