"""Scores to verdicts: each against the threshold its stream has at that moment, in the order of the offsets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_app.alerts import Transition
from stream_app.events import event_id
from stream_app.records import Chunk, Decoded
from stream_app.scoring import ScoredRows, Scorer
from stream_app.streams import Stream, Streams, Taken


@dataclass(slots=True)
class Verdict:
    """What was found of one record.

    `index` is its place in the chunk, `row` its place among the scored rows. `rate`, `observations` and `warm` are the
    threshold's when it judged.
    """

    index: int
    row: int
    id: str
    stream: str
    offset: int
    event_time: float
    record_id: str | None
    score: float
    raw: dict[str, float]
    threshold: float
    rate: float
    observations: int
    warm: bool
    is_anomaly: bool
    transition: Transition | None
    heat_map: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The verdicts on a chunk, and whose scores they rest on (None where nothing was scored)."""

    scorer: Scorer | None
    each: list[Verdict]


def judge(
    detector: str, chunk: Chunk, decoded: Decoded, taken: Taken, scored: ScoredRows | None, streams: Streams
) -> Verdicts:
    """Verdicts on the scored rows of a chunk; their streams learn from them, and from what was taken with them.

    A record that its stream has learned already, before a crash or a rebalance, is judged again and teaches nothing.
    """
    verdicts = []
    if scored is not None:
        raw = {name: values.tolist() for name, values in scored.raw.items()}
        scores = scored.score.tolist()
        for row, index in enumerate(taken.rows.index.tolist()):
            record, name = chunk.records[index], decoded.streams[index]
            stream, time = streams[name], float(decoded.event_times[index])
            rate, observations, warm = stream.threshold.rate, stream.threshold.observations, stream.threshold.warm
            identity = event_id(detector, record.topic, record.partition, record.offset)
            threshold, is_anomaly, transition = _hold(stream, scores[row], time, record.offset, identity)
            verdicts.append(
                Verdict(
                    index=index,
                    row=row,
                    id=identity,
                    stream=name,
                    offset=record.offset,
                    event_time=time,
                    record_id=decoded.ids[index],
                    score=scores[row],
                    raw={evidence: values[row] for evidence, values in raw.items()},
                    threshold=threshold,
                    rate=rate,
                    observations=observations,
                    warm=warm,
                    is_anomaly=is_anomaly,
                    transition=transition,
                )
            )
    streams.settle(taken)
    return Verdicts(scored.scorer if scored is not None else None, verdicts)


def _hold(
    stream: Stream, score: float, time: float, offset: int, identity: str
) -> tuple[float, bool, Transition | None]:
    """Holds a score against its stream's threshold.

    The threshold, whether it is above, and what becomes of the episode.
    """
    if offset > stream.offset:
        threshold, is_anomaly = stream.threshold.judge(score, time)
        return threshold, is_anomaly, stream.episode.advance(is_anomaly, identity)
    threshold = stream.threshold.value
    return threshold, score > threshold, stream.episode.repeat(score > threshold, identity)
