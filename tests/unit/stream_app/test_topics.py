"""Which topics there must be."""

from __future__ import annotations

from stream_app.settings import Settings
from stream_app.topics import required_topics


def test_every_topic_of_the_settings_is_required_and_only_model_updates_is_compacted():
    settings = Settings(routes={"cameras": "images"}, topics={"alerts": "alarms"})
    assert required_topics(settings) == {
        "cameras": {},
        "alarms": {},
        "scores": {},
        "records.dead-letter": {},
        "labels": {},
        "model.updates": {"cleanup.policy": "compact"},
    }
