"""What alerts and labels say of records."""

from __future__ import annotations

import numpy as np
import pytest

from model.manifest import Known
from stream_app.episodes import Episode
from stream_app.events import Alert, EpisodeRef, EpisodeState, Label, ModelRef, PolicyRef, RecordRef, event_id
from stream_app.settings import AlertSettings, SnapshotSettings, ThresholdSettings
from stream_app.threshold import Judgement
from training.refresh.choice import choose
from training.refresh.known import known_by_alerts, known_by_labels, mark
from training.refresh.scan import Scan

TIME = "2026-03-01T00:00:00.000Z"
RANGES = {0: (100, 200), 1: (0, 50)}


def alert(
    offset: int,
    state: str | None,
    episode: int = 110,
    stream: str = "a",
    partition: int = 0,
    anomalous: int | None = None,
) -> Alert:
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
        episode=anomalous and EpisodeRef(since=TIME, anomalous=anomalous, worst_score=5.0, severity=50),
        evidence=None,
    )


def spans(*alerts: Alert) -> list[tuple[str, int, int]]:
    return [(each.what, each.first, each.last) for each in known_by_alerts(alerts, RANGES, {})]


def test_an_episode_goes_from_the_first_to_the_last_record_that_is_told_of_it_whatever_the_order() -> None:
    told = [alert(110, "open"), alert(115, "update"), alert(140, "close")]
    assert spans(*told) == spans(*told[::-1], told[0]) == [("episode", 110, 140)]


def test_one_that_has_not_ended_goes_on_to_the_end_of_the_range_unless_another_came_since() -> None:
    assert spans(alert(110, "open"), alert(115, "update")) == [("episode", 110, 199)]
    reopened = [alert(110, "open"), alert(140, "close"), alert(150, "update")]
    assert spans(*reopened) == [("episode", 110, 140), ("episode", 150, 199)]
    later = [alert(170, "open", episode=170), alert(180, "close", episode=170)]
    assert spans(alert(110, "open"), alert(115, "update"), *later) == [("episode", 110, 115), ("episode", 170, 180)]
    elsewhere = alert(180, "close", stream="b", episode=180)
    assert ("episode", 110, 199) in spans(alert(110, "open"), elsewhere)


def test_one_whose_beginning_is_not_told_began_before_the_range() -> None:
    assert spans(alert(140, "close", episode=90)) == [("episode", 100, 140)]
    assert spans(alert(80, "open", episode=80), alert(90, "close", episode=80)) == []


def test_a_shift_is_no_episode_of_anomalies() -> None:
    assert spans(alert(110, "open"), alert(160, "shift")) == [("shift", 110, 160)]
    reopened = [alert(110, "open"), alert(120, "close"), alert(130, "update"), alert(160, "shift")]
    assert spans(*reopened) == [("episode", 110, 120), ("shift", 130, 160)]


def test_of_an_episode_whose_records_are_mostly_normal_only_those_are_known_that_were_alerted() -> None:
    told = [alert(110, "open", anomalous=1), alert(115, "update", anomalous=4), alert(140, "close", anomalous=6)]
    told += [alert(150, "update", anomalous=7), alert(153, "close", anomalous=9), alert(180, "update", anomalous=10)]

    def found(own: np.ndarray) -> list[tuple[int, int]]:
        return [(each.first, each.last) for each in known_by_alerts(told, {0: (100, 260)}, {(0, "a"): own})]

    every = np.arange(100, 260)
    assert found(every) == [(110, 110), (115, 115), (150, 153), (180, 180)]
    others_between = every[every % 4 == 2]  # of one stream among several only its own records count
    assert found(others_between) == [(110, 140), (150, 153), (180, 259)]


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
    rows = {key: np.flatnonzero(streams == number) for number, key in enumerate([(0, "a"), (0, "b"), (1, "a")])}
    known = [Known(what=what, partition=0, stream="a", first=101, last=105)]
    known.append(Known(what=what, partition=3, stream="a", first=0, last=999))
    marks = mark(known, offsets, rows)
    assert np.flatnonzero(getattr(marks, marked)).tolist() == [2]
    others = {"in_episode", "anomalous", "normal"} - {marked}
    assert not any(getattr(marks, name).any() for name in others)


def test_a_label_counts_for_more_than_an_episode_and_a_shift_counts_from_its_beginning() -> None:
    offsets = np.arange(10)
    known = [
        Known(what="episode", partition=0, stream="a", first=2, last=5),
        Known(what="normal", partition=0, stream="a", first=3, last=3),
        Known(what="shift", partition=0, stream="a", first=7, last=8),
    ]
    marks = mark(known, offsets, {(0, "a"): offsets})
    assert np.flatnonzero(marks.in_episode).tolist() == [2, 4, 5]
    assert marks.changes.tolist() == [0] * 7 + [1] * 3


@pytest.mark.parametrize("per_second", [1, 10, 40])
@pytest.mark.parametrize("rate", [0.01, 0.001])
def test_a_healthy_stream_stays_in_its_own_snapshot_however_fast_it_is(per_second: int, rate: float) -> None:
    count, threshold = 20_000, -np.log10(rate)
    scores = np.random.default_rng(0).exponential(1.0 / np.log(10.0), count).astype(np.float32)
    episode, told = Episode(AlertSettings()), []
    for offset, score in enumerate(scores.tolist()):
        judgement = Judgement(threshold, score > threshold)
        transition = episode.advance(score, judgement, offset / per_second, event_id("images", "t", 0, offset))
        if transition is not None and transition.state is not None:
            one = alert(offset, transition.state, anomalous=transition.anomalous)
            told.append(one.model_copy(update={"episode_id": transition.episode_id}))
    every, zeros = np.arange(count), np.zeros(count, np.int64)
    stream = (0, "a")
    scan = Scan(zeros, every, every, zeros, {stream: 0}, scores, None, None, (8, 8, 1), np.dtype(np.uint8), count, 0, 0)
    known = known_by_alerts(told, {0: (0, count)}, {stream: every})
    marks = mark(known, every, scan.rows)
    assert marks.in_episode.sum() <= (scores > threshold).sum()
    settings = SnapshotSettings(records=count)
    kept = choose(scan, marks, settings, ThresholdSettings(), 0)
    assert len(kept.normal) + len(kept.fresh) > (0.99 - settings.leave_out) * count
    assert not (scores[kept.normal] > threshold).any()
