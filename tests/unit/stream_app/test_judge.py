"""From scores to verdicts to events, without a broker, Redis or torch."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest

from stream_app.announce import Announcer
from stream_app.clock import ManualClock
from stream_app.decode import Decoder, InputSpec
from stream_app.events import event_id
from stream_app.judge import judge
from stream_app.records import Kind
from stream_app.scoring import ScoredRows
from stream_app.settings import Settings
from stream_app.streams import Streams
from tests.unit.stream_app.raw import TP, chunk_of, raw

NORMAL, ANOMALOUS = 0.5, 9.0


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
        self.settings = Settings(**sections)
        spec = InputSpec(Kind.IMAGE, (2, 2, 1))
        self.decoder = Decoder(spec, self.settings.limits)
        self.streams = Streams("images", TP, spec, self.settings)
        self.announcer = Announcer(Kind.IMAGE, self.settings, store or Store(), ManualClock())

    def judge(self, scores, keys=None, first=0):
        keys = keys or [b"cam"] * len(scores)
        chunk = chunk_of(*[raw(np.zeros((2, 2), np.uint8), key) for key in keys], first=first)
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


def test_only_crossings_and_the_end_of_an_episode_are_alerts():
    bench = Bench(alerts={"close_after": 2})
    verdicts = bench.judge([NORMAL, ANOMALOUS, NORMAL, ANOMALOUS, NORMAL, NORMAL, NORMAL])
    alerts = [(alert["record"]["offset"], alert["state"], alert["is_anomaly"]) for _, alert in bench.events(verdicts)]
    assert alerts == [(1, "open", True), (3, "update", True), (5, "close", False)]
    assert {alert["episode_id"] for _, alert in bench.events(verdicts)} == {verdicts[1].id}


def test_a_replayed_crossing_has_the_same_id():
    bench = Bench()
    first = bench.events(bench.judge([NORMAL, ANOMALOUS]))
    again = bench.events(bench.judge([NORMAL, ANOMALOUS]))
    assert [alert["id"] for _, alert in again] == [alert["id"] for _, alert in first]


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
    assert event["policy"] == {"name": "rolling-pot", "target_rate": 0.01, "observations": 0, "warm": False}
    assert event["raw"] == pytest.approx({"latent": 0.05})
    assert (event["degraded"], event["severity"], event["kind"]) == (True, 0, "image")


def test_evidence_is_wanted_of_anomalies_only_and_only_when_on():
    normal, anomalous = Bench().judge([NORMAL, ANOMALOUS])
    announcer = Bench().announcer
    assert (announcer.wants_evidence(normal), announcer.wants_evidence(anomalous)) == (False, True)
    assert Bench(alerts={"evidence": False}).announcer.wants_evidence(anomalous) is False


def test_the_heat_map_becomes_evidence():
    bench = Bench()
    (verdict,) = bench.judge([ANOMALOUS])
    verdict.heat_map = np.array([[0, 0], [0, 1]], np.float32)
    ((_, alert),) = bench.events([verdict])
    assert alert["evidence"]["box"] == [1, 1, 2, 2]
