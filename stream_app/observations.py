"""The single observations of a chunk in the tails of their streams: the windows they make, and why some make none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_app.errors import EventTimeError
from stream_app.events import rfc3339
from stream_app.records import Chunk, Decoded, Rejected, Rows
from stream_app.residents import Residents
from stream_app.settings import SequenceSettings
from stream_app.tails import Outcome, Tails

STAGE = "windows"


@dataclass(frozen=True, slots=True)
class Read:
    """Observations as they were read.

    `names` are the streams they were new to; `due` are the windows they complete, with `times` `[k, 2]` of the first
    and the last of each, in seconds. `rejected` came at a wrong time, `duplicates` were there already. `repeated`
    counts those that their stream had read before, `begun` and `withdrawn` are as in `Pushed`.
    """

    names: list[str]
    due: Rows
    times: NDArray[np.float64]
    rejected: list[Rejected]
    duplicates: frozenset[int]
    repeated: int = 0
    begun: int = 0
    withdrawn: int = 0

    @classmethod
    def nothing(cls) -> Read:
        """Of a chunk without observations."""
        return cls([], Rows(np.empty(0, np.int64), np.empty(0)), np.empty((0, 2)), [], frozenset())


def read_observations(
    chunk: Chunk, decoded: Decoded, here: Residents, tails: Tails, settings: SequenceSettings
) -> Read:
    """Takes the observations of a chunk, at least one, whose streams are all here into their tails.

    One of an offset that its stream has read before makes no window.
    """
    index, slots, kept = [], [], []
    names: dict[str, None] = {}
    for at, record in enumerate(decoded.observations.index.tolist()):
        name, offset = decoded.streams[record], chunk.records[record].offset
        stream = here[name]
        if stream.slot is not None and offset > stream.read:
            stream.read = offset
            names[name] = None
            index.append(record)
            slots.append(stream.slot)
            kept.append(at)
    records = np.array(index, np.int64)
    stamps = np.array([chunk.records[record].timestamp for record in index], np.float64)
    pushed = tails.push(
        np.array(slots, np.int64),
        np.asarray(decoded.observations.data[kept], np.float32),
        decoded.event_times[records],
        decoded.timed[records],
        np.where(stamps < 0, np.inf, stamps / 1000.0),  # Kafka's -1: the time is not known
    )
    rejected = [
        Rejected(index[at], STAGE, _explain(decoded, index[at], pushed.outcomes[at], pushed.by[at], settings))
        for at in np.flatnonzero(pushed.outcomes >= Outcome.LATE)
    ]
    return Read(
        list(names),
        Rows(records[pushed.due], pushed.windows),
        pushed.times,
        rejected,
        frozenset(records[pushed.outcomes == Outcome.DUPLICATE].tolist()),
        len(decoded.observations.index) - len(index),
        pushed.begun,
        pushed.withdrawn,
    )


def _explain(decoded: Decoded, record: int, outcome: int, by: float, settings: SequenceSettings) -> EventTimeError:
    what = f"the observation is of {rfc3339(float(decoded.event_times[record]))}"
    stream = decoded.streams[record]
    if outcome == Outcome.LATE:
        return EventTimeError(
            f"late: {what}, {by:.12g} seconds older than the newest of stream {stream!r}: more than "
            f"sequence.lateness={settings.lateness:g}"
        )
    if outcome == Outcome.OVERTAKEN:
        return EventTimeError(
            f"late: {what}, and stream {stream!r} has {by:.0f} or more newer ones: more than "
            f"sequence.disorder={settings.disorder}"
        )
    return EventTimeError(
        f"ahead: {what}, {by:.12g} seconds later than it was published: more than "
        f"sequence.max_ahead={settings.max_ahead:g}; the clock of its sender is wrong"
    )
