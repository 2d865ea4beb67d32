"""`label` as a user runs it, on a broker that is real: what it finds, what it publishes, what it says."""

from __future__ import annotations

import asyncio
import json

import pytest

from stream_app.cli import search
from stream_app.events import Alert, encode, event_id
from stream_app.labels import read_labels
from stream_app.topics import ensure_topics
from tests.e2e.test_commands import run, settings
from tests.unit.stream_app.test_events import ALERT, EVENT

__all__ = ["run", "settings"]


def alert(settings, offset, *, episode, partition=0, **fields):
    topic = next(iter(settings.routes))
    place = {"topic": topic, "partition": partition, "offset": offset}
    named = {
        "id": event_id("images", topic, partition, offset),
        "stream": f"cam-{partition}",
        "record": EVENT["record"] | place,
        "episode_id": event_id("images", topic, partition, episode),
    }
    return Alert.model_validate(ALERT | named | fields)


@pytest.fixture
def published(settings, client):
    """Two episodes on two partitions among other alerts: the second has three anomalous records and its end."""
    asyncio.run(ensure_topics(settings))
    alerts = [
        alert(settings, 1, episode=1, score=3.25),
        alert(settings, 5, episode=5, partition=1),
        alert(settings, 6, episode=5, partition=1, state="update"),
        alert(settings, 9, episode=5, partition=1, state="update"),
        alert(settings, 30, episode=5, partition=1, state="close", is_anomaly=False, score=1.0),
        *[alert(settings, offset, episode=offset, partition=offset % 2) for offset in range(40, 60)],
    ]
    client.publish(
        settings.topics.alerts,
        [{"value": encode(each), "partition": each.record.partition} for each in alerts]
        + [{"value": b"{", "partition": 0}],
    )
    return alerts


@pytest.mark.parametrize("step", [3, search.STEP])
def test_an_alert_is_found_by_the_beginning_of_its_id_and_labelled(step, settings, published, run, monkeypatch):
    monkeypatch.setattr(search, "STEP", step)
    first, second = published[0], published[1]
    done = run("label", first.id[:12], second.id, "--normal", "--note", "the cleaner", "--by", "somebody")
    assert done.returncode == 0, done.stderr
    assert f"normal  cam-0  score 3.25 / 3.00  {first.record.topic}/0/1  {first.id[:12]}" in done.stdout
    assert "up to 1.25 from the threshold" in done.stdout  # the second
    labels = {each.id: each for each in asyncio.run(read_labels(settings))}
    assert set(labels) == {first.id, second.id}
    said = labels[first.id]
    assert (said.label, said.stream, said.score, said.threshold) == ("normal", "cam-0", 3.25, 3.0)
    assert (said.detector, said.by, said.note) == ("images", "somebody", "the cleaner")


def test_an_episodes_anomalous_records_are_labelled_and_its_end_is_not(settings, published, run):
    done = run("label", "--episode", published[1].id, "--anomaly", "--json")
    assert done.returncode == 0, done.stderr
    assert [json.loads(each)["offset"] for each in done.stdout.splitlines()] == [5, 6, 9]
    assert run("label", published[2].id, "--withdraw").returncode == 0
    assert [each.offset for each in asyncio.run(read_labels(settings))] == [5, 9]
    shown = run("label", "--list", "--json").stdout.splitlines()
    assert [json.loads(each)["offset"] for each in shown] == [5, 9]


def test_labels_are_keyed_by_their_stream(settings, published, run, client):
    run("label", published[1].id, "--anomaly")
    (message,) = client.read(settings.topics.labels, lambda messages: len(messages) == 1)
    assert message.key() == b"cam-1"


def test_what_is_not_there_is_said_with_what_to_do(settings, published, run):
    done = run("label", "0" * 32, "--normal")
    assert done.returncode == 2
    assert f"no alert {'0' * 32} on topic {settings.topics.alerts}" in " ".join(done.stderr.split())
    assert "`ganomaly-stream watch --from-beginning` shows what there is" in " ".join(done.stderr.split())
    assert "no episode 00000000" in run("label", "--episode", "00000000", "--normal").stderr
    assert asyncio.run(read_labels(settings)) == []


def test_without_labels_the_list_says_so(settings, run):
    assert f"no labels on topic {settings.topics.labels}" in run("label", "--list").stdout


def test_a_record_that_raised_no_alert_is_labelled_with_its_score_where_scores_are_published(settings, run, client):
    asyncio.run(ensure_topics(settings))
    topic = next(iter(settings.routes))
    client.publish(topic, [{"value": b"x", "key": "cam-7", "partition": 2} for _ in range(4)])
    place = ("--topic", topic, "--partition", "2", "--offset")
    unknown = run("label", *place, "1", "--anomaly")
    assert unknown.returncode == 0, unknown.stderr
    assert f"anomaly  cam-7  score unknown  {topic}/2/1" in unknown.stdout
    assert "1 of them with an unknown score" in unknown.stdout

    scored = [alert(settings, offset, episode=9, partition=2, is_anomaly=False, score=2.75) for offset in (0, 2, 3)]
    client.publish(settings.topics.scores, [{"value": encode(each), "partition": 2} for each in scored])
    assert "score 2.75 / 3.00" in run("label", *place, "2", "--anomaly").stdout
    assert "score unknown" in run("label", *place, "1", "--anomaly").stdout
    labels = {each.offset: each for each in asyncio.run(read_labels(settings))}
    assert (labels[2].stream, labels[2].score, labels[1].score) == ("cam-2", 2.75, None)

    missing = run("label", *place, "99", "--anomaly")
    assert (missing.returncode, f"{topic}/2/99: the broker has no such record" in missing.stderr) == (2, True)
    nowhere = run("label", "--topic", topic, "--partition", "99", "--offset", "0", "--anomaly")
    assert (nowhere.returncode, f"{topic}/99/0: the broker has no such record" in nowhere.stderr) == (2, True)
    other = run("label", "--topic", "alerts", "--partition", "0", "--offset", "0", "--normal")
    assert (other.returncode, "--topic alerts: no detector scores it" in other.stderr) == (2, True)
