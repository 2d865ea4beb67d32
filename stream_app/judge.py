"""Scores to verdicts, and verdicts to events: threshold → alert.

Every stream's records are judged in the order of their offsets, each against the threshold in force before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stream_app.alerts import Transition, evidence_of, fit, severity
from stream_app.clock import Clock
from stream_app.events import Alert, ModelRef, PolicyRef, RecordRef, ScoreEvent, encode, event_id, rfc3339
from stream_app.records import Chunk, Decoded, Kind, Rows
from stream_app.scoring import ScoredRows
from stream_app.settings import Settings
from stream_app.streams import Streams
from stream_app.threshold import StreamThreshold

FloatArray = NDArray[np.float32]


class Model(Protocol):
    """What events say of the model."""

    @property
    def name(self) -> str:
        """The detector."""
        ...

    @property
    def version(self) -> str:
        """Its version in the registry."""
        ...

    @property
    def sha256(self) -> str:
        """The digest of its weights."""
        ...


class Degradable(Protocol):
    """Whatever knows whether thresholds can be read and saved."""

    degraded: bool


@dataclass(slots=True)
class Verdict:
    """What was found of one record.

    `index` is its place in the chunk, `row` its place among the scored rows; `rate`, `observations` and `warm` are the
    threshold's when it judged.
    """

    index: int
    row: int
    id: str
    stream: str
    partition: int
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
    heat_map: FloatArray | None = None


class Judge:
    """Judges the records of one topic's detector, and words the events about them."""

    def __init__(
        self, topic: str, model: Model, kind: Kind, settings: Settings, store: Degradable, clock: Clock
    ) -> None:
        self._topic = topic
        self._detector = model.name
        self._model = ModelRef(name=model.name, version=model.version, sha256=model.sha256)
        self._kind = kind
        self._settings = settings
        self._store = store
        self._clock = clock

    def judge(
        self, chunk: Chunk, decoded: Decoded, rows: Rows, scored: ScoredRows | None, streams: Streams
    ) -> list[Verdict]:
        """Verdicts on the scored rows of a chunk, in the order of their offsets; their streams learn from them.

        A record that its stream has learned already, before a crash or a rebalance, is judged again and teaches
        nothing.
        """
        if scored is None:
            return []
        raw = {name: values.tolist() for name, values in scored.raw.items()}
        scores = scored.score.tolist()
        return [
            self._judge_one(chunk, decoded, index, row, scores[row], {n: v[row] for n, v in raw.items()}, streams)
            for row, index in enumerate(rows.index.tolist())
        ]

    def _judge_one(
        self,
        chunk: Chunk,
        decoded: Decoded,
        index: int,
        row: int,
        score: float,
        raw: dict[str, float],
        streams: Streams,
    ) -> Verdict:
        record, name = chunk.records[index], decoded.streams[index]
        time = float(decoded.event_times[index])
        stream = streams[name]
        rate, observations, warm = stream.threshold.rate, stream.threshold.observations, stream.threshold.warm
        identity = event_id(self._detector, self._topic, chunk.tp.partition, record.offset)
        if record.offset > stream.offset:
            threshold, is_anomaly = stream.threshold.judge(score, time)
            transition = stream.episode.advance(is_anomaly, identity)
            streams.touch(name, record.offset)
        else:
            threshold = stream.threshold.value
            is_anomaly = score > threshold
            transition = stream.episode.repeat(is_anomaly, identity)
        return Verdict(
            index=index,
            row=row,
            id=identity,
            stream=name,
            partition=chunk.tp.partition,
            offset=record.offset,
            event_time=time,
            record_id=decoded.ids[index],
            score=score,
            raw=raw,
            threshold=threshold,
            rate=rate,
            observations=observations,
            warm=warm,
            is_anomaly=is_anomaly,
            transition=transition,
        )

    def wants_evidence(self, verdict: Verdict) -> bool:
        """Whether its alert shall say where the anomaly is."""
        return verdict.is_anomaly and self._settings.alerts.evidence

    def events(self, verdict: Verdict) -> list[tuple[str, bytes]]:
        """What is published of a verdict: topic and message, the score before the alert."""
        settings, transition = self._settings, verdict.transition
        to_scores = settings.scores.publish
        to_alerts = transition is not None or settings.alerts.publish == "all"
        if not (to_scores or to_alerts):
            return []
        fields, events = self._fields(verdict), []
        if to_scores:
            events.append((settings.topics.scores, encode(ScoreEvent(**fields))))
        if to_alerts:
            alert = Alert(
                **fields,
                episode_id=transition.episode_id if transition else None,
                state=transition.state if transition else None,
                evidence=evidence_of(self._kind, verdict.heat_map) if verdict.heat_map is not None else None,
            )
            events.append((settings.topics.alerts, fit(alert, settings.kafka.max_message_bytes)))
        return events

    def _fields(self, verdict: Verdict) -> dict[str, Any]:
        return {
            "id": verdict.id,
            "stream": verdict.stream,
            "kind": self._kind,
            "is_anomaly": verdict.is_anomaly,
            "score": verdict.score,
            "threshold": verdict.threshold,
            "severity": severity(verdict.score, verdict.threshold),
            "record": RecordRef(
                topic=self._topic,
                partition=verdict.partition,
                offset=verdict.offset,
                timestamp=rfc3339(verdict.event_time),
                id=verdict.record_id,
            ),
            "model": self._model,
            "policy": PolicyRef(
                name=StreamThreshold.NAME,
                target_rate=verdict.rate,
                observations=verdict.observations,
                warm=verdict.warm,
            ),
            "raw": verdict.raw,
            "degraded": self._store.degraded,
            "scored_at": rfc3339(self._clock.time()),
        }
