"""Which labels from before the range are asked for, and where their records are."""

from __future__ import annotations

from model.manifest import Known
from stream_app.events import Label, event_id
from stream_app.records import TopicPartition
from training.refresh.older import older_by_labels, spots_of

RANGES = {0: (100, 200), 1: (0, 50)}
THERE = {TopicPartition("t", 0): (40, 200), TopicPartition("t", 1): (0, 50)}


def label(offset: int, said: str = "anomaly", partition: int = 0, detector: str = "images") -> Label:
    identity = event_id(detector, "t", partition, offset)
    at = "2026-03-01T00:00:00.000Z"
    return Label(
        id=identity, detector=detector, topic="t", partition=partition, offset=offset, stream="a", label=said, at=at
    )


def test_those_before_the_range_that_the_broker_has_are_kept_and_the_others_counted() -> None:
    labels = [label(39), label(40), label(99, "normal"), label(100), label(60, "none"), label(61, detector="other")]
    labels += [label(10, partition=1), label(5, partition=7)]
    older = older_by_labels(labels, "images", "t", RANGES, THERE, 10)
    assert [(each.what, each.first) for each in older.known] == [("anomaly", 40), ("normal", 99)]
    assert (older.gone, older.beyond) == (1, 0)


def test_beyond_the_limit_the_newest_labels_are_kept() -> None:
    labels = [label(offset) for offset in (90, 50, 70)]
    older = older_by_labels(labels, "images", "t", RANGES, THERE, 2)
    assert ([each.first for each in older.known], older.beyond) == ([50, 70], 1)
    assert older_by_labels(labels, "images", "t", RANGES, THERE, 0) == ([], 0, 3)


def test_spots_are_what_labels_say_of_before_the_ranges() -> None:
    known = [
        Known(what=what, partition=partition, stream="a", first=first, last=first)
        for what, partition, first in (
            ("anomaly", 0, 90),
            ("normal", 0, 50),
            ("normal", 0, 150),
            ("episode", 0, 20),
            ("anomaly", 1, 3),
        )
    ]
    assert spots_of(known, RANGES) == {0: [50, 90]}
