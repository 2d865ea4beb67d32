"""What alerts and labels say of records."""

from __future__ import annotations

import numpy as np
import pytest

from model.manifest import Known
from stream_app.episodes import Episode
from stream_app.events import Alert, EpisodeRef, EpisodeState, Label, ModelRef, PolicyRef, RecordRef, event_id
from stream_app.settings import AlertSettings
from stream_app.threshold import Judgement
from training.refresh.known import known_by_alerts, known_by_labels, mark

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
        episode=None
        if anomalous is None
        else EpisodeRef(since=TIME, anomalous=anomalous, worst_score=5.0, severity=50),
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
    marks = mark(known, offsets, streams, numbers, None)
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
    marks = mark(known, offsets, streams, {(0, "a"): 0}, None)
    assert np.flatnonzero(marks.in_episode).tolist() == [2, 4, 5]
    assert marks.changes.tolist() == [0] * 7 + [1] * 3


def test_each_piece_of_an_episode_that_began_again_says_how_many_of_its_records_were_anomalous() -> None:
    told = [alert(110, "open", anomalous=1), alert(115, "update", anomalous=4), alert(140, "close", anomalous=5)]
    told += [alert(150, "update", anomalous=6), alert(170, "close", anomalous=7), alert(180, "update", anomalous=9)]
    found = [(each.first, each.last, each.anomalous, each.above) for each in known_by_alerts(told, RANGES)]
    assert found == [(110, 140, 5, 3.0), (150, 170, 2, 3.0), (180, 199, 4 * 2, 3.0)]


def test_of_a_sparse_episode_only_what_scored_above_its_threshold_is_in_it() -> None:
    offsets, streams, scores = np.arange(100), np.zeros(100, np.int64), np.full(100, 1.0)
    scores[[10, 40]] = 3.1
    sparse = Known(what="episode", partition=0, stream="a", first=10, last=60, anomalous=2, above=3.0)
    dense = Known(what="episode", partition=0, stream="a", first=70, last=80, anomalous=2, above=3.0)
    marks = mark([sparse, dense], offsets, streams, {(0, "a"): 0}, scores)
    assert np.flatnonzero(marks.in_episode).tolist() == [10, 40, *range(70, 81)]
    unscored = mark([sparse], offsets, streams, {(0, "a"): 0}, None)
    assert np.flatnonzero(unscored.in_episode).tolist() == list(range(10, 61))


@pytest.mark.parametrize("per_second", [1, 10, 40])
@pytest.mark.parametrize("rate", [0.01, 0.001])
def test_a_healthy_stream_stays_in_its_own_snapshot_however_fast_it_is(per_second: int, rate: float) -> None:
    count, threshold = 20_000, -np.log10(rate)
    scores = np.random.default_rng(0).exponential(1.0 / np.log(10.0), count)
    episode, told = Episode(AlertSettings()), []
    for offset, score in enumerate(scores.tolist()):
        judgement = Judgement(threshold, score > threshold)
        transition = episode.advance(score, judgement, offset / per_second, event_id("images", "t", 0, offset))
        if transition is not None and transition.state is not None:
            one = alert(offset, transition.state, anomalous=transition.anomalous)
            told.append(one.model_copy(update={"episode_id": transition.episode_id, "threshold": threshold}))
    known = known_by_alerts(told, {0: (0, count)})
    marks = mark(known, np.arange(count), np.zeros(count, np.int64), {(0, "a"): 0}, scores)
    assert (scores > threshold)[marks.in_episode].sum() == (scores > threshold).sum()
    assert marks.in_episode.mean() < 3 * rate
