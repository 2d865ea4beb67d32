"""The demo's books: what was published, and what the worker said about it. Nothing here knows Kafka."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from stream_app.cli.demo.scene import NORMAL, Due, Planned

ENDING = ("close", "shift")  # states of alerts


@dataclass(frozen=True, slots=True)
class Counts:
    """Alarms against the truth. What is counted is said by whoever counts: pictures, or incidents."""

    found: int
    missed: int
    false: int

    @property
    def precision(self) -> float | None:
        """Share of the alarms that were right; None without alarms."""
        alarms = self.found + self.false
        return self.found / alarms if alarms else None

    @property
    def recall(self) -> float | None:
        """Share of what was to be found that was found; None where there was nothing."""
        due = self.found + self.missed
        return self.found / due if due else None


class Told(NamedTuple):
    """What an alert said of an episode: the offset that it was told at, and whether the episode goes on from there."""

    offset: int
    episode_id: str
    goes_on: bool


@dataclass(slots=True)
class Account:
    """Of one topic of records. Times are those of one monotonic clock, in seconds.

    An alert tells of an episode, not of each record in it; which records are anomalous is in their scores.
    """

    planned: dict[str, Planned]
    published: dict[str, float] = field(default_factory=dict)
    scored: set[str] = field(default_factory=set)
    anomalous: dict[str, dict[str, Any]] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    alerts: int = 0
    told: dict[str, list[Told]] = field(default_factory=lambda: defaultdict(list))
    delays: list[float] = field(default_factory=list)
    finished: float = 0.0

    @classmethod
    def of(cls, planned: Iterable[Planned]) -> Account:
        """Nothing published yet."""
        return cls({record.id: record for record in planned})

    def note_published(self, record: Planned, now: float) -> None:
        """The record is handed to the producer."""
        self.published[record.id] = now

    def note_scored(self, event: dict[str, Any], now: float) -> None:
        """A scored event came in."""
        self.scored.add(event["record"]["id"])
        if event["is_anomaly"]:
            self.anomalous[event["record"]["id"]] = event
        self.finished = max(self.finished, now)

    def note_dead(self, record_id: str, now: float) -> None:
        """A dead letter came in."""
        self.dead.add(record_id)
        self.finished = max(self.finished, now)

    def note_alert(self, event: dict[str, Any], now: float) -> None:
        """An alert came in. One without a state is only there because the user has every record published."""
        if event["state"] is None:
            return
        self.alerts += 1
        goes_on = event["state"] not in ENDING
        insort(self.told[event["stream"]], Told(event["record"]["offset"], event["episode_id"], goes_on))
        if event["is_anomaly"]:
            self.delays.append(now - self.published[event["record"]["id"]])

    def expected(self, due: Due) -> set[str]:
        """Ids of the records that the worker owes this for."""
        return {name for name, record in self.planned.items() if record.due is due}

    @property
    def outstanding(self) -> set[str]:
        """Ids of records whose score, dead letter or alert has not come yet."""
        due = self.expected(Due.SCORE) | self.expected(Due.DEAD_LETTER)
        untold = {name for name, event in self.anomalous.items() if self._episode_of(event) is None}
        return (due - self.scored - self.dead) | untold

    @property
    def in_order(self) -> bool:
        """Whether each record ended as it should: scored, or dead-lettered, and not both."""
        return self.scored == self.expected(Due.SCORE) and self.dead == self.expected(Due.DEAD_LETTER)

    @property
    def rate(self) -> float:
        """Records a second, from the first published to the last scored."""
        seconds = self.finished - min(self.published.values(), default=0.0)
        return len(self.scored | self.dead) / seconds if seconds > 0 else 0.0

    def delay(self, quantile: float) -> float | None:
        """Seconds from a record's publication to its alert's arrival."""
        return float(np.quantile(self.delays, quantile)) if self.delays else None

    def by_record(self) -> dict[str, Counts]:
        """Anomalous records, for each truth; normal records (truth "") can only be falsely raised."""
        kinds: dict[str, list[bool]] = defaultdict(list)
        for name in self.expected(Due.SCORE):
            kinds[self.planned[name].truth].append(name in self.anomalous)
        return {
            truth: Counts(0, 0, sum(raised)) if truth == NORMAL else Counts(sum(raised), len(raised) - sum(raised), 0)
            for truth, raised in sorted(kinds.items())
        }

    def by_incident(self) -> Counts:
        """Alarms by episode: an incident is found when an anomalous window has one of its hours.

        An episode without such a window is one false alarm: whoever is called is called once.
        """
        incidents = {record.truth for record in self.planned.values()} - {NORMAL}
        truths: dict[str, set[str]] = defaultdict(set)
        for name, event in self.anomalous.items():
            if episode := self._episode_of(event):
                truths[episode].add(self.planned[name].truth)
        found = {truth for episode in truths.values() for truth in episode} - {NORMAL}
        return Counts(len(found), len(incidents - found), sum(episode == {NORMAL} for episode in truths.values()))

    def _episode_of(self, event: dict[str, Any]) -> str | None:
        """The episode of an anomalous record: that of the last alert up to it. None while it has not come.

        Between an alert that ends an episode and one that opens the next there is no anomalous record.
        """
        told, offset = self.told[event["stream"]], event["record"]["offset"]
        at = bisect_right(told, offset, key=lambda each: each.offset) - 1
        if at < 0 or not (told[at].goes_on or told[at].offset == offset):
            return None
        return told[at].episode_id


def total(counts: Iterable[Counts]) -> Counts:
    """The sum."""
    every = list(counts)
    return Counts(sum(c.found for c in every), sum(c.missed for c in every), sum(c.false for c in every))
