"""Scores to verdicts: each against the threshold its stream has at that moment, in the order of the offsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from stream_app.episodes import Transition
from stream_app.events import event_id
from stream_app.records import Chunk, Decoded
from stream_app.residents import Stream
from stream_app.scoring import ScoredRows, Scorer
from stream_app.state import Place
from stream_app.streams import Streams, Taken


@dataclass(slots=True)
class Verdict:
    """What was found of one record.

    `index` is where it is in the chunk, `row` where among the scored rows, whose evidence `evidence` is. `rate`,
    `observations`, `warm`, `labels` and `shift` are the threshold's when it judged. `transition` is None outside of
    episodes, and for a record that was judged before.
    """

    index: int
    row: int
    place: Place
    stream: str
    offset: int
    event_time: float
    record_id: str | None
    score: float
    evidence: Mapping[str, Sequence[float]]
    threshold: float
    rate: float
    observations: int
    warm: bool
    is_anomaly: bool
    transition: Transition | None
    labels: int = 0
    shift: float = 0.0
    heat_map: NDArray[np.float32] | None = None

    @property
    def id(self) -> str:
        """Of the event about the record; not kept, as most events are never published."""
        return event_id(*self.place, self.offset)

    @property
    def raw(self) -> dict[str, float]:
        """Its evidence before calibration, by name."""
        return {name: values[self.row] for name, values in self.evidence.items()}

    @property
    def is_told(self) -> bool:
        """Whether the record does something to its episode that is to be told."""
        return self.transition is not None and self.transition.state is not None


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The verdicts on a chunk, and whose scores they rest on (None where nothing was scored)."""

    scorer: Scorer | None
    each: list[Verdict]


def judge(
    detector: str, chunk: Chunk, decoded: Decoded, taken: Taken, scored: ScoredRows | None, streams: Streams
) -> Verdicts:
    """Verdicts on the scored rows of a chunk; their streams learn from them, and from what was taken with them.

    A record that its stream has learned already, before a crash or a rebalance, is judged again, teaches nothing, and
    leaves the episode as it is: a state is saved only when the broker has acknowledged what was told of the records in
    it (`CommitCycle.prepare`). Those after it meet the episode as it was saved, and tell the same again.
    """
    streams.heed_labels()
    verdicts = []
    if scored is not None:
        place = (detector, *chunk.tp)
        model = _number(scored.scorer.version)
        evidence = {name: values.tolist() for name, values in scored.raw.items()}
        times = decoded.event_times[taken.rows.index].tolist()
        told = zip(taken.rows.index.tolist(), scored.score.tolist(), times, strict=True)
        for row, (index, score, time) in enumerate(told):
            name, offset = decoded.streams[index], chunk.records[index].offset
            stream = streams[name]
            own = stream.threshold
            if own.model != model and offset > stream.offset:
                own.follow(model)
            rate, observations, warm = own.rate, own.observations, own.warm
            labels, shift = own.labels, own.shift
            threshold, is_anomaly, transition = _hold(stream, score, time, place, offset)
            verdicts.append(
                Verdict(
                    index,
                    row,
                    place,
                    name,
                    offset,
                    time,
                    decoded.ids[index],
                    score,
                    evidence,
                    threshold,
                    rate,
                    observations,
                    warm,
                    is_anomaly,
                    transition,
                    labels,
                    shift,
                )
            )
    streams.settle(taken)
    return Verdicts(scored.scorer if scored is not None else None, verdicts)


@lru_cache(maxsize=64)
def _number(version: str) -> int:
    """Tells versions apart, in 8 bytes; not 0."""
    return int.from_bytes(blake2b(version.encode(), digest_size=8).digest(), "little") or 1


def _hold(
    stream: Stream, score: float, time: float, place: Place, offset: int
) -> tuple[float, bool, Transition | None]:
    """Holds a score against its stream's threshold.

    The threshold, whether it is above, and what becomes of the episode.
    """
    if offset <= stream.offset:
        threshold = stream.threshold.value
        return threshold, score > threshold, None
    judgement = stream.threshold.judge(score, time)
    # Only an anomalous record can give its id to an episode.
    identity = event_id(*place, offset) if judgement.is_anomaly else ""
    transition = stream.episode.advance(score, judgement, time, identity)
    return judgement.threshold, judgement.is_anomaly, transition
