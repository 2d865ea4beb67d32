"""From scores to verdicts to events, without a broker, Redis or torch."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest

from stream_app.announce import Announcer
from stream_app.clock import ManualClock
from stream_app.decode import Decoder, InputSpec
from stream_app.episodes import Episode
from stream_app.events import Label, event_id, rfc3339
from stream_app.judge import judge
from stream_app.label_book import LabelBook
from stream_app.records import Kind
from stream_app.scoring import ScoredRows
from stream_app.settings import Settings
from stream_app.streams import Streams
from stream_app.threshold import StreamThreshold
from tests.unit.stream_app.raw import TP, chunk_of, raw

NORMAL, CROSSING, ANOMALOUS = 0.5, 3.25, 9.0


@dataclass
class Scorer:
    name: str = "images"
    version: str = "v1"
    sha256: str = "0" * 64


@dataclass
class Store:
    degraded: bool = False


class Bench:
    """The streams of one partition, chunks of given scores, and the events about them."""

    def __init__(self, store=None, **sections):
        self.sections = sections
        self.settings = Settings(**sections)
        spec = InputSpec(Kind.IMAGE, (2, 2, 1))
        self.decoder = Decoder(spec, self.settings.limits)
        self.labels = LabelBook()
        self.streams = Streams("images", TP, spec, self.settings, labels=self.labels)
        self.announcer = Announcer(Kind.IMAGE, self.settings, store or Store(), ManualClock())

    def judge(self, scores, keys=None, first=0, seconds=0):
        """The verdicts on a chunk of scores, `seconds` apart."""
        keys = keys or [b"cam"] * len(scores)
        chunk = chunk_of(*[raw(np.zeros((2, 2), np.uint8), key) for key in keys], first=first)
        for record in chunk.records:
            record.timestamp += 1000 * seconds * record.offset
        decoded = self.decoder.decode(chunk)
        self.streams.begin(decoded.streams)
        values = np.array(scores, np.float32)
        scored = ScoredRows(values, {"latent": values / 10}, Scorer())
        return judge("images", chunk, decoded, self.streams.take(chunk, decoded), scored, self.streams).each

    def events(self, verdicts):
        return [
            (topic, json.loads(value))
            for verdict in verdicts
            for topic, value in self.announcer.events(TP, verdict, Scorer())
        ]


def test_a_score_is_held_against_its_own_streams_threshold():
    bench = Bench(threshold={"target_rate": 0.01})
    verdicts = bench.judge([NORMAL, ANOMALOUS, NORMAL], keys=[b"a", b"b", b"a"])
    assert [(v.stream, v.is_anomaly, v.threshold) for v in verdicts] == [
        ("a", False, 2.0),
        ("b", True, 2.0),
        ("a", False, 2.0),
    ]
    assert (bench.streams["a"].threshold.observations, bench.streams["b"].threshold.observations) == (2, 0)


def test_what_a_stream_has_learned_before_teaches_nothing_again():
    bench = Bench()
    bench.judge([NORMAL] * 3)
    repeated = bench.judge([NORMAL] * 3)
    assert bench.streams["cam"].threshold.observations == 3
    assert [v.id for v in repeated] == [event_id("images", TP.topic, TP.partition, offset) for offset in range(3)]
    bench.judge([NORMAL], first=3)
    assert bench.streams["cam"].threshold.observations == 4


def test_only_the_beginning_the_growth_and_the_end_of_an_episode_are_alerts():
    bench = Bench(alerts={"close_after": 2})
    verdicts = bench.judge([NORMAL, CROSSING, NORMAL, *[ANOMALOUS] * 3, NORMAL, NORMAL, NORMAL])
    alerts = [(alert["record"]["offset"], alert["state"], alert["is_anomaly"]) for _, alert in bench.events(verdicts)]
    assert alerts == [(1, "open", True), (3, "update", True), (7, "close", False)]
    assert {alert["episode_id"] for _, alert in bench.events(verdicts)} == {verdicts[1].id}
    assert [verdict.is_anomaly for verdict in verdicts] == [False, True, False, True, True, True, False, False, False]


def test_an_alert_tells_what_its_episode_has_come_to():
    bench = Bench(alerts={"close_after": 1})
    *_, (_, closing) = bench.events(bench.judge([CROSSING, ANOMALOUS, NORMAL]))
    assert closing["severity"] == 0
    assert closing["episode"] == {
        "since": "2023-11-14T22:13:20.000Z",
        "anomalous": 2,
        "worst_score": ANOMALOUS,
        "severity": 98,
    }


def test_a_lasting_shift_is_told_once_and_ends_its_episode():
    bench = Bench(threshold={"shift_after": 40, "shift_after_seconds": 0})
    verdicts = bench.judge([NORMAL, *[ANOMALOUS] * 100])
    states = [(alert["record"]["offset"], alert["state"]) for _, alert in bench.events(verdicts)]
    assert states[0] == (1, "open")
    assert states[-1] == (40, "shift")
    assert [state for _, state in states[1:-1]] == ["update"] * len(states[1:-1])
    assert {alert["episode_id"] for _, alert in bench.events(verdicts)} == {verdicts[1].id}


def test_by_default_an_incident_of_a_thousand_seconds_is_a_handful_of_alerts_and_not_learned():
    bench = Bench()
    verdicts = bench.judge([*[NORMAL] * 100, *[ANOMALOUS] * 1000, *[NORMAL] * 100], seconds=1)
    alerts = [alert for _, alert in bench.events(verdicts)]
    assert sum(verdict.is_anomaly for verdict in verdicts) == 1000
    assert [alert["state"] for alert in alerts] == ["open", *["update"] * (len(alerts) - 2), "close"]
    assert len(alerts) <= 7
    assert bench.streams["cam"].threshold.observations == 200 - 9  # the first after it still belong to its run


def restart(bench, offset):
    """A bench whose stream goes on from the other's state, in which the records up to `offset` are."""
    again = Bench(**bench.sections)
    again.streams.begin(["cam"])
    stream, saved = again.streams["cam"], bench.streams["cam"]
    stream.threshold = StreamThreshold.from_bytes(saved.threshold.to_bytes(), again.settings.threshold)
    stream.episode = Episode.from_bytes(saved.episode.to_bytes(), again.settings.alerts)
    stream.offset = offset
    return again


def test_a_replay_repeats_the_alerts_of_all_records_after_the_saved_state():
    scores = [NORMAL, CROSSING, *[ANOMALOUS] * 30, *[NORMAL] * 4, *[ANOMALOUS] * 30, *[NORMAL] * 4, ANOMALOUS]
    sections = {"alerts": {"close_after": 3}, "threshold": {"shift_after": 55, "shift_after_seconds": 0}}
    whole = Bench(**sections)
    told = whole.events(whole.judge(scores))
    assert {alert["state"] for _, alert in told} == {"open", "update", "close", "shift"}
    for saved in range(1, len(scores)):
        before = Bench(**sections)
        until = before.events(before.judge(scores[:saved]))
        after = restart(before, saved - 1)
        replayed = after.events(after.judge(scores))
        assert until + replayed == told


def test_a_record_that_its_stream_has_learned_tells_nothing_of_its_episode_again():
    bench = Bench(alerts={"publish": "all"})
    bench.judge([NORMAL, ANOMALOUS])
    state = bench.streams["cam"].episode.to_bytes()
    again = bench.events(bench.judge([NORMAL, ANOMALOUS]))
    assert [(alert["is_anomaly"], alert["state"], alert["episode"]) for _, alert in again] == [
        (False, None, None),
        (True, None, None),
    ]
    assert bench.streams["cam"].episode.to_bytes() == state


def test_with_all_records_published_those_of_an_episode_say_so():
    bench = Bench(alerts={"publish": "all", "close_after": 2})
    verdicts = bench.judge([NORMAL, ANOMALOUS, ANOMALOUS, NORMAL, NORMAL, NORMAL])
    alerts = [alert for _, alert in bench.events(verdicts)]
    assert [alert["state"] for alert in alerts] == [None, "open", None, None, "close", None]
    assert [alert["episode_id"] for alert in alerts] == [None, *[verdicts[1].id] * 4, None]


def test_a_stream_has_the_budget_of_the_first_pattern_that_fits_its_name():
    budgets = {"pump-1*": {"target_rate": 0.1}, "pump-*": {"target_rate": 0.01}}
    bench = Bench(threshold={"streams": budgets}, scores={"publish": True})
    keys = [b"pump-12", b"pump-2", b"door"]
    rates = [event["policy"]["target_rate"] for _, event in bench.events(bench.judge([NORMAL] * 3, keys))]
    assert rates == [0.1, 0.01, 0.001]


@pytest.mark.parametrize(
    ("sections", "topics"),
    [
        ({}, ["alerts"]),
        ({"scores": {"publish": True}}, ["scores", "scores", "alerts"]),
        ({"alerts": {"publish": "all"}}, ["alerts", "alerts"]),
    ],
)
def test_what_is_published_is_a_setting(sections, topics):
    bench = Bench(**sections)
    assert [topic for topic, _ in bench.events(bench.judge([NORMAL, ANOMALOUS]))] == topics


def test_an_event_tells_record_model_policy_and_degradation():
    store = Store()
    bench = Bench(store, threshold={"target_rate": 0.01}, scores={"publish": True})
    verdicts = bench.judge([NORMAL])
    store.degraded = True
    ((_, event),) = bench.events(verdicts)
    assert event["record"] == {
        "topic": TP.topic,
        "partition": 0,
        "offset": 0,
        "timestamp": "2023-11-14T22:13:20.000Z",
        "id": None,
    }
    assert event["model"] == {"name": "images", "version": "v1", "sha256": "0" * 64}
    assert event["policy"] == {
        "name": "rolling-pot",
        "target_rate": 0.01,
        "observations": 0,
        "min_observations": 500,
        "warm": False,
        "labels": 0,
        "shift": 0.0,
    }
    assert event["raw"] == pytest.approx({"latent": 0.05})
    assert (event["degraded"], event["severity"], event["kind"]) == (True, 0, "image")


def test_evidence_is_wanted_of_anomalies_that_are_published_and_only_when_on():
    verdicts = Bench().judge([NORMAL, ANOMALOUS, ANOMALOUS])
    wanted = {
        publish: [Bench(alerts={"publish": publish}).announcer.wants_evidence(verdict) for verdict in verdicts]
        for publish in ("anomalies", "all")
    }
    assert wanted == {"anomalies": [False, True, False], "all": [False, True, True]}
    assert Bench(alerts={"evidence": False}).announcer.wants_evidence(verdicts[1]) is False


def test_the_heat_map_becomes_evidence():
    bench = Bench()
    (verdict,) = bench.judge([ANOMALOUS])
    verdict.heat_map = np.array([[0, 0], [0, 1]], np.float32)
    ((_, alert),) = bench.events([verdict])
    assert alert["evidence"]["box"] == [1, 1, 2, 2]


def label(verdict, kind, at=0.0):
    """What somebody says of a record that was judged."""
    detector, topic, partition = verdict.place
    return Label(
        id=verdict.id,
        detector=detector,
        topic=topic,
        partition=partition,
        offset=verdict.offset,
        stream=verdict.stream,
        label=kind,
        score=verdict.score,
        threshold=verdict.threshold,
        at=rfc3339(at),
    )


def test_a_label_counts_from_the_next_chunk_on_for_its_stream_alone():
    bench = Bench()
    first = bench.judge([CROSSING, CROSSING], keys=[b"a", b"b"])
    assert [verdict.is_anomaly for verdict in first] == [True, True]
    bench.labels.add(label(first[0], "normal"), 0, 0.0)
    again = bench.judge([CROSSING, CROSSING], keys=[b"a", b"b"], first=2)
    assert [verdict.is_anomaly for verdict in again] == [False, True]
    assert [verdict.labels for verdict in again] == [1, 0]
    assert [verdict.shift for verdict in again] == pytest.approx([CROSSING + 0.01 - 3.0, 0.0])
    bench.labels.add(label(first[0], "none"), 0, 0.0)
    taken_back = bench.judge([CROSSING], keys=[b"a"], first=4)
    assert [(verdict.is_anomaly, verdict.labels) for verdict in taken_back] == [(True, 0)]


def test_a_label_that_has_expired_counts_no_more_also_where_it_was_the_last():
    bench = Bench()
    bench.labels = LabelBook(horizon=100.0)
    bench.streams = Streams("images", TP, bench.decoder.spec, bench.settings, labels=bench.labels)
    (verdict,) = bench.judge([CROSSING])
    bench.labels.add(label(verdict, "normal"), 0, 0.0)
    assert not bench.judge([CROSSING], first=1)[0].is_anomaly
    bench.labels.expire(101.0)
    assert bench.judge([CROSSING], first=2)[0].is_anomaly


def test_a_stream_that_begins_heeds_the_labels_that_there_are():
    bench = Bench(scores={"publish": True})
    (verdict,) = bench.judge([CROSSING])
    bench.labels.add(label(verdict, "normal"), 0, 0.0)
    again = Bench(scores={"publish": True})
    again.streams = Streams("images", TP, again.decoder.spec, again.settings, labels=bench.labels)
    ((_, event),) = again.events(again.judge([CROSSING], first=1))
    assert (event["is_anomaly"], event["policy"]["labels"]) == (False, 1)
    assert event["policy"]["shift"] == pytest.approx(0.26)


def test_records_like_one_that_was_called_normal_end_its_episode():
    bench = Bench(alerts={"close_after": 5})
    (opening,) = bench.judge([CROSSING])
    bench.labels.add(label(opening, "normal"), 0, 0.0)
    verdicts = bench.judge([CROSSING] * 6, first=1)
    assert [alert["state"] for _, alert in bench.events(verdicts)] == ["close"]
    assert verdicts[4].is_told
