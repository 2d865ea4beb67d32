"""The labels that are in force: of each record the newest, unless it takes the label back."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Set
from datetime import datetime
from typing import NamedTuple

from stream_app.corrections import Mark
from stream_app.events import Label, LabelKind


class _Held(NamedTuple):
    label: Label
    order: float  # grows with each label
    since: float  # seconds since the Unix epoch


class LabelBook:
    """Takes labels as they were published.

    Those within a partition of the topic are in order, and a stream's are in one partition as long as the topic keeps
    their number. Between partitions the time of publication decides, as far as it agrees with that order. `horizon` is
    in seconds; of each stream the newest `per_stream` labels are kept. `version` rises with whatever changes.
    """

    def __init__(self, horizon: float = math.inf, per_stream: int | None = None) -> None:
        self.version = 0
        self._horizon = horizon
        self._per_stream = per_stream
        self._held: dict[str, _Held] = {}  # by the record's id
        self._streams: defaultdict[tuple[str, str], dict[str, dict[str, _Held]]] = defaultdict(dict)  # and by stream
        self._latest: dict[int, float] = {}  # publication, by partition of the topic

    def __len__(self) -> int:
        return len(self._held)

    def add(self, label: Label, partition: int, published: float, now: float = math.inf) -> None:
        """Takes a label from a partition of the topic, published and taken at these seconds since the Unix epoch."""
        order = self._latest[partition] = max(published, self._latest.get(partition, -math.inf))
        older = self._held.get(label.id)
        if older is not None:
            if order < older.order:
                return
            self._drop(older)
        since = min(datetime.fromisoformat(label.at).timestamp(), published, now)  # some clock may be wrong
        own = self._streams[label.detector, label.topic].setdefault(label.stream, {})
        own[label.id] = self._held[label.id] = _Held(label, order, since)
        if self._per_stream is not None and len(own) > self._per_stream:
            self._drop(min(own.values(), key=_order))
        self.version += 1

    def expire(self, now: float) -> None:
        """Forgets labels that are older than the horizon, at this second since the Unix epoch."""
        old = [each for each in self._held.values() if now - each.since > self._horizon]
        for each in old:
            self._drop(each)
        self.version += bool(old)

    def labels(self) -> list[Label]:
        """All labels in force, the oldest first."""
        return [each.label for each in sorted(self._held.values(), key=_order) if _counts(each)]

    def marks(self, detector: str, topic: str, stream: str) -> tuple[Mark, ...]:
        """The labelled scores of a stream, the oldest label first."""
        own = self._streams[detector, topic].get(stream, {})
        return tuple(
            Mark(each.label.score, each.label.label is LabelKind.ANOMALY)
            for each in sorted(own.values(), key=_order)
            if _counts(each) and each.label.score is not None
        )

    def streams(self, detector: str, topic: str) -> Set[str]:
        """The streams of a topic that have labels."""
        return self._streams[detector, topic].keys()

    def _drop(self, held: _Held) -> None:
        label = held.label
        streams = self._streams[label.detector, label.topic]
        del self._held[label.id], streams[label.stream][label.id]
        if not streams[label.stream]:
            del streams[label.stream]


class TopicLabels:
    """The labels of a topic's records that a detector scores, for one that has to know when they change."""

    def __init__(self, book: LabelBook, detector: str, topic: str) -> None:
        self._book = book
        self._place = (detector, topic)
        self._seen = book.version
        self._labelled: set[str] = set()  # streams that had labels when they were asked for

    def marks(self, stream: str) -> tuple[Mark, ...]:
        """The labelled scores of a stream, the oldest label first."""
        marks = self._book.marks(*self._place, stream)
        if marks:
            self._labelled.add(stream)
        return marks

    def changed(self) -> set[str]:
        """Streams whose labels may have changed since the last call; empty as long as no label of any has."""
        if self._seen == self._book.version:
            return set()
        self._seen = self._book.version
        changed, self._labelled = self._labelled | self._book.streams(*self._place), set()
        return changed


def _order(held: _Held) -> float:
    return held.order


def _counts(held: _Held) -> bool:
    return held.label.label is not LabelKind.NONE
