"""Which topics there must be."""

from __future__ import annotations

import pytest

from stream_app.settings import Settings
from stream_app.topics import required_topics, why_labels_are_lost


def test_every_topic_is_required_and_only_model_updates_is_compacted_and_only_labels_are_kept_for_ever():
    settings = Settings(routes={"cameras": "images"}, topics={"alerts": "alarms"})
    assert required_topics(settings) == {
        "cameras": {},
        "alarms": {},
        "scores": {},
        "records.dead-letter": {},
        "labels": {"retention.ms": "-1"},
        "model.updates": {"cleanup.policy": "compact"},
    }


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({}, None),
        ({"retention.ms": "-1", "cleanup.policy": "delete"}, None),
        ({"retention.ms": "2592000000"}, None),
        (
            {"retention.ms": "604800000"},
            "retention.ms=604800000 keeps labels for 604800 s, and they count for 2592000 s",
        ),
        ({"retention.ms": "0"}, "retention.ms=0 keeps labels for 0 s, and they count for 2592000 s"),
        ({"retention.ms": "-1", "cleanup.policy": "compact,delete"}, "cleanup.policy=compact,delete keeps the newest"),
    ],
)
def test_a_topic_that_keeps_labels_for_less_than_they_count_is_told(config: dict[str, str], why: str | None):
    found = why_labels_are_lost(config, 30 * 86400.0)
    assert (found or "").startswith(why or "")
    assert (found is None) == (why is None)
