"""How events are shown."""

from __future__ import annotations

from types import SimpleNamespace

import orjson
import pytest

from stream_app.cli.watch import line, read_event

EVENT = {
    "id": "655890c1397b642976f63637c464a69c",
    "stream": "camera-1",
    "state": "open",
    "is_anomaly": True,
    "score": 4.256,
    "threshold": 3.0,
    "severity": 58,
    "degraded": False,
    "record": {"topic": "records.images", "partition": 2, "offset": 17, "timestamp": "2026-01-31T12:00:00.250Z"},
}


def record(value: bytes | None, headers: tuple[tuple[str, bytes], ...] = (), key: bytes | None = b"camera-1"):
    return SimpleNamespace(topic="t", partition=1, offset=5, key=key, value=value, headers=headers)


def test_a_line_says_when_what_how_strange_and_which_record():
    assert line(EVENT).plain == (
        "2026-01-31 12:00:00.250Z  camera-1         open    score   4.26 / 3.00  ██████░░░░  58  records.images/2/17"
    )


def test_a_line_may_name_the_event_as_label_takes_it():
    assert line(EVENT, 12).plain.endswith("  records.images/2/17  655890c1397b")


@pytest.mark.parametrize(("is_anomaly", "word"), [(True, "anomaly"), (False, "normal")])
def test_an_event_outside_of_episodes_says_what_it_was(is_anomaly: bool, word: str):
    assert f" {word}" in line(EVENT | {"state": None, "is_anomaly": is_anomaly}).plain


def test_an_episode_that_goes_on_says_since_when_and_how_often():
    episode = {"since": "2026-01-31T11:59:00.000Z", "anomalous": 16, "worst_score": 5.0, "severity": 90}
    assert line(EVENT | {"state": "update", "episode": episode}).plain.endswith(
        "17  16 anomalous since 2026-01-31 11:59:00.000Z"
    )


def test_scoring_without_redis_is_told():
    assert line(EVENT | {"degraded": True}).plain.endswith("without Redis")


def test_an_event_is_read_as_it_was_published():
    assert read_event(record(orjson.dumps(EVENT))) == EVENT


def test_a_dead_letter_says_where_it_came_from_and_why():
    reason = {"topic": b"records.images", "partition": b"3", "offset": b"9", "exception.message": b"value: is empty"}
    headers = tuple((f"__connect.errors.{name}", value) for name, value in reason.items())
    event = read_event(record(b"", headers))
    assert line(event).plain == "dead letter  camera-1         records.images/3/9  value: is empty"


@pytest.mark.parametrize("value", [None, b"\xff", b"[1]", b'{"data": 1}'])
def test_whatever_else_is_in_a_topic_is_shown_without_failing(value: bytes | None):
    assert "neither an event nor a dead letter" in line(read_event(record(value, key=None))).plain
