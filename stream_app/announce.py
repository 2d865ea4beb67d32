"""Verdicts to events: what of them is published, and in which words."""

from __future__ import annotations

from typing import Any, Protocol

from stream_app.alerts import evidence_of, fit
from stream_app.clock import Clock
from stream_app.episodes import Transition, severity
from stream_app.events import Alert, EpisodeRef, ModelRef, PolicyRef, RecordRef, ScoreEvent, encode, rfc3339
from stream_app.judge import Verdict
from stream_app.records import Kind, TopicPartition
from stream_app.scoring import Scorer
from stream_app.settings import Settings
from stream_app.threshold import StreamThreshold


class Degradable(Protocol):
    """Whatever knows whether thresholds can be read and saved."""

    degraded: bool


class Announcer:
    """Words the events about verdicts, for one kind of records."""

    def __init__(self, kind: Kind, settings: Settings, store: Degradable, clock: Clock) -> None:
        self._kind = kind
        self._settings = settings
        self._store = store
        self._clock = clock

    def wants_evidence(self, verdict: Verdict) -> bool:
        """Whether there will be an alert that shall say where the anomaly is."""
        return verdict.is_anomaly and self._settings.alerts.evidence and self._makes_alert(verdict)

    def events(self, tp: TopicPartition, verdict: Verdict, scorer: Scorer) -> list[tuple[str, bytes]]:
        """What is published of a verdict: topic and message, the score before the alert."""
        settings, transition = self._settings, verdict.transition
        to_alerts = self._makes_alert(verdict)
        if not (settings.scores.publish or to_alerts):
            return []
        fields = self._fields(tp, verdict, scorer)
        events = []
        if settings.scores.publish:
            events.append((settings.topics.scores, encode(ScoreEvent(**fields))))
        if to_alerts:
            alert = Alert(
                **fields,
                episode_id=transition.episode_id if transition else None,
                state=transition.state if transition else None,
                episode=_episode(transition) if transition else None,
                evidence=evidence_of(self._kind, verdict.heat_map) if verdict.heat_map is not None else None,
            )
            events.append((settings.topics.alerts, fit(alert, settings.kafka.max_message_bytes)))
        return events

    def _makes_alert(self, verdict: Verdict) -> bool:
        return verdict.is_told or self._settings.alerts.publish == "all"

    def _fields(self, tp: TopicPartition, verdict: Verdict, scorer: Scorer) -> dict[str, Any]:
        return {
            "id": verdict.id,
            "stream": verdict.stream,
            "kind": self._kind,
            "is_anomaly": verdict.is_anomaly,
            "score": verdict.score,
            "threshold": verdict.threshold,
            "severity": severity(verdict.score, verdict.threshold),
            "record": RecordRef(
                topic=tp.topic,
                partition=tp.partition,
                offset=verdict.offset,
                timestamp=rfc3339(verdict.event_time),
                id=verdict.record_id,
            ),
            "model": ModelRef(name=scorer.name, version=scorer.version, sha256=scorer.sha256),
            "policy": PolicyRef(
                name=StreamThreshold.NAME,
                target_rate=verdict.rate,
                observations=verdict.observations,
                min_observations=self._settings.threshold.min_observations,
                warm=verdict.warm,
                labels=verdict.labels,
                shift=verdict.shift,
            ),
            "raw": verdict.raw,
            "degraded": self._store.degraded,
            "scored_at": rfc3339(self._clock.time()),
        }


def _episode(transition: Transition) -> EpisodeRef:
    return EpisodeRef(
        since=rfc3339(transition.since),
        anomalous=transition.anomalous,
        worst_score=transition.worst_score,
        severity=transition.severity,
    )
