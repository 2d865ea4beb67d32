"""What alerts and labels say of records."""

from __future__ import annotations

import numpy as np
import pytest

from model.manifest import Known
from stream_app.events import Alert, EpisodeState, Label, ModelRef, PolicyRef, RecordRef, event_id
from training.refresh.known import known_by_alerts, known_by_labels, mark

TIME = "2026-03-01T00:00:00.000Z"
RANGES = {0: (100, 200), 1: (0, 50)}


def alert(offset: int, state: str | None, episode: int = 110, stream: str = "a", partition: int = 0) -> Alert:
    return Alert(
        id=event_id("images", "t", partition, offset),
        stream=stream,
        kind="image",
        is_anomaly=state != "close",
        score=5.0,
        threshold=3.0,
        severity=50,
        record=RecordRef(topic="t", partition=partition, offset=offset, timestamp=TIME, id=None),
        model=ModelRef(name="images", version="v", sha256="0" * 64),
        policy=PolicyRef(name="p", target_rate=0.001, observations=1, min_observations=500, warm=False),
        raw={},
        degraded=False,
        scored_at=TIME,
        episode_id=event_id("images", "t", partition, episode),
        state=None if state is None else EpisodeState(state),
        episode=None,
        evidence=None,
    )


def spans(*alerts: Alert) -> list[tuple[str, int, int]]:
    return [(each.what, each.first, each.last) for each in known_by_alerts(alerts, RANGES)]


def test_an_episode_goes_from_the_first_to_the_last_record_that_is_told_of_it_whatever_the_order() -> None:
    told = [alert(110, "open"), alert(115, "update"), alert(140, "close")]
    assert spans(*told) == spans(*told[::-1], told[0]) == [("episode", 110, 140)]


def test_one_that_has_not_ended_goes_on_to_the_end_of_the_range_unless_another_came_since() -> None:
    assert spans(alert(110, "open"), alert(115, "update")) == [("episode", 110, 199)]
    reopened = [alert(110, "open"), alert(140, "close"), alert(150, "update")]
    assert spans(*reopened) == [("episode", 110, 199)]
    later = [alert(170, "open", episode=170), alert(180, "close", episode=170)]
    assert spans(alert(110, "open"), alert(115, "update"), *later) == [("episode", 110, 115), ("episode", 170, 180)]
    elsewhere = alert(180, "close", stream="b", episode=180)
    assert ("episode", 110, 199) in spans(alert(110, "open"), elsewhere)


def test_one_whose_beginning_is_not_told_began_before_the_range() -> None:
    assert spans(alert(140, "close", episode=90)) == [("episode", 100, 140)]
    assert spans(alert(80, "open", episode=80), alert(90, "close", episode=80)) == []


def test_a_shift_is_no_episode_of_anomalies() -> None:
    assert spans(alert(110, "open"), alert(160, "shift")) == [("shift", 110, 160)]


def test_records_that_are_published_because_all_are_count_only_where_they_are_anomalous() -> None:
    single = alert(120, None, episode=120).model_copy(update={"episode_id": None})
    normal = single.model_copy(update={"is_anomaly": False})
    assert spans(single) == [("episode", 120, 120)]
    assert spans(normal) == []


def test_labels_of_other_detectors_topics_and_offsets_are_not_asked() -> None:
    def label(offset: int, said: str = "anomaly", topic: str = "t", detector: str = "images") -> Label:
        identity = event_id(detector, topic, 0, offset)
        return Label(
            id=identity, detector=detector, topic=topic, partition=0, offset=offset, stream="a", label=said, at=TIME
        )

    labels = [label(110), label(99), label(200), label(120, "normal"), label(130, "none")]
    labels += [label(111, topic="other"), label(112, detector="other")]
    found = known_by_labels(labels, "images", "t", RANGES)
    assert [(each.what, each.first, each.last) for each in found] == [("anomaly", 110, 110), ("normal", 120, 120)]


@pytest.mark.parametrize(
    ("what", "marked"),
    [("episode", "in_episode"), ("anomaly", "anomalous"), ("normal", "normal")],
)
def test_marks_are_of_the_stream_and_the_offsets_alone(what: str, marked: str) -> None:
    offsets = np.array([100, 101, 103, 104, 106, 101, 103])
    streams = np.array([0, 1, 0, 1, 0, 2, 2])
    numbers = {(0, "a"): 0, (0, "b"): 1, (1, "a"): 2}
    known = [Known(what=what, partition=0, stream="a", first=101, last=105)]
    known.append(Known(what=what, partition=3, stream="a", first=0, last=999))
    marks = mark(known, offsets, streams, numbers)
    assert np.flatnonzero(getattr(marks, marked)).tolist() == [2]
    others = {"in_episode", "anomalous", "normal"} - {marked}
    assert not any(getattr(marks, name).any() for name in others)


def test_a_label_counts_for_more_than_an_episode_and_a_shift_counts_from_its_beginning() -> None:
    offsets, streams = np.arange(10), np.zeros(10, np.int64)
    known = [
        Known(what="episode", partition=0, stream="a", first=2, last=5),
        Known(what="normal", partition=0, stream="a", first=3, last=3),
        Known(what="shift", partition=0, stream="a", first=7, last=8),
    ]
    marks = mark(known, offsets, streams, {(0, "a"): 0})
    assert np.flatnonzero(marks.in_episode).tolist() == [2, 4, 5]
    assert marks.changes.tolist() == [0] * 7 + [1] * 3
