"""What alerts make of incidents: episodes as stretches of time, and which labelled incidents they cover."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.events import EpisodeState
from stream_app.judge import Verdict

ENDS = (EpisodeState.CLOSE, EpisodeState.SHIFT)


class Span(NamedTuple):
    """A stretch of time, in seconds since the Unix epoch; both ends belong to it."""

    begin: float
    end: float

    def overlaps(self, other: Span) -> bool:
        """Whether they have a moment in common."""
        return self.begin <= other.end and other.begin <= self.end


@dataclass(slots=True)
class Told:
    """An episode: when it was open (several times where it was reopened), and when it was told of."""

    id: str
    spans: list[Span]
    alerts: list[float]
    anomalous: int = 0
    severity: int = 0

    def touches(self, span: Span) -> bool:
        """Whether it was open at any moment of the stretch."""
        return any(each.overlaps(span) for each in self.spans)


def episodes_of(verdicts: Iterable[Verdict]) -> list[Told]:
    """The episodes that the verdicts on a stream's records, in order, make; the last may still be open."""
    told: dict[str, Told] = {}
    begun: float | None = None  # of the open episode
    newest, last = None, 0.0
    for verdict in verdicts:
        last, transition = verdict.event_time, verdict.transition
        if transition is None:
            continue
        newest = told.setdefault(transition.episode_id, Told(transition.episode_id, [], []))
        if begun is None:
            begun = last if newest.spans else transition.since
        newest.anomalous, newest.severity = transition.anomalous, transition.severity
        if transition.state is not None:
            newest.alerts.append(last)
        if transition.state in ENDS:
            newest.spans.append(Span(begun, last))
            begun = None
    if newest is not None and begun is not None:
        newest.spans.append(Span(begun, last))
    return list(told.values())


def incidents_of(y: NDArray[np.int64], times: NDArray[np.float64]) -> list[Span]:
    """The runs of rows that are labelled anomalous."""
    edges = np.flatnonzero(np.diff(np.r_[0, y, 0]))
    return [Span(float(times[first]), float(times[end - 1])) for first, end in edges.reshape(-1, 2).tolist()]


def first_alert(incident: Span, episodes: Sequence[Told]) -> float | None:
    """When an incident was first told of; None when it wasn't, though an episode from before it may go on."""
    within = [time for episode in episodes for time in episode.alerts if incident.begin <= time <= incident.end]
    return min(within, default=None)
